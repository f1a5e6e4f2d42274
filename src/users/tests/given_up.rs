//! Logins whose clients do not wait for the end, as where one resets its request over HTTP/2.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, advance};

use super::*;
use crate::types::AddressGroup;
use crate::users::failures::{FAILURES_FREE, FORGET_ONE_AFTER};
use crate::users::hashing::{QUEUE_MAX, RUNS_MAX};

/// Begins the login, and goes away.
fn give_up(users: &Users, name: &str, password: &str, from: IpAddr) {
    let login = Box::pin(users.verify(name, password, from));
    assert!(login.now_or_never().is_none(), "it had to wait for nothing");
}

/// What the next login has to wait for what failed before.
fn delay(users: &Users, name: &str, from: IpAddr) -> Duration {
    let failures = users.inner.failures.lock();
    failures.delay(&failures.key(name, AddressGroup::of(from)), Instant::now())
}

async fn fail(users: &Users, name: &str, from: IpAddr, times: u32) {
    for _ in 0..times {
        let outcome = users.verify(name, "wrong", from).await;
        assert_eq!(outcome, Err(AuthError::Invalid));
    }
}

#[tokio::test(start_paused = true)]
async fn a_right_login_that_is_given_up_while_it_is_checked_counts_as_right() {
    let world = World::default();
    let users = world.with_ann().await;
    for _ in 0..30 {
        users.inner.verified.forget(&id("ann"));
        world.threads.hold();
        give_up(&users, "ann", "right", address(1));
        settle().await;
        assert_eq!(world.threads.held(), 1);
        world.threads.release();
        settle().await;
        let again = users.verify("ann", "right", address(1)).now_or_never();
        assert_eq!(again, Some(admin("ann")), "it is remembered");
    }
    assert_eq!(delay(&users, "ann", address(1)), Duration::ZERO);
    assert_eq!(delay(&users, "bob", address(1)), Duration::ZERO, "for the address");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_and_comes_again_while_it_is_checked_costs_one_run() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    let before = world.runs();
    for _ in 0..10 {
        give_up(&users, "ann", "right", address(1));
        settle().await;
    }
    let login = tokio::spawn({
        let users = users.clone();
        async move { users.verify("ann", "right", address(1)).await }
    });
    settle().await;
    world.threads.release();
    assert_eq!(login.await.expect("no panic"), admin("ann"));
    assert_eq!(world.runs(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_right_login_that_is_given_up_in_the_queue_counts_as_right_and_keeps_one_place() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    for number in 0..RUNS_MAX {
        give_up(&users, &format!("user {number}"), "x", address(9));
    }
    let before = world.runs() + RUNS_MAX;
    for _ in 0..QUEUE_MAX {
        give_up(&users, "ann", "right", address(1));
        settle().await;
    }
    world.threads.release();
    settle().await;
    assert_eq!(world.runs(), before + 1);
    let again = users.verify("ann", "right", address(1)).now_or_never();
    assert_eq!(again, Some(admin("ann")), "it is remembered");
    assert_eq!(delay(&users, "ann", address(1)), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_given_up_in_its_delay_lengthens_none() {
    let world = World::default();
    let users = world.with_ann().await;
    fail(&users, "ann", address(1), FAILURES_FREE + 7).await;
    // So that some are forgotten, and there is something to lengthen.
    advance(4 * FORGET_ONE_AFTER).await;
    let before = (delay(&users, "ann", address(1)), world.runs());
    assert!(before.0 > Duration::ZERO);
    for _ in 0..5 {
        give_up(&users, "ann", "right", address(1));
    }
    assert_eq!((delay(&users, "ann", address(1)), world.runs()), before);
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_login_that_is_given_up_while_it_is_checked_counts_as_wrong() {
    let world = World::default();
    let users = world.with_ann().await;
    for number in 0..FAILURES_FREE {
        world.threads.hold();
        give_up(&users, "ann", &format!("guess {number}"), address(1));
        settle().await;
        world.threads.release();
        settle().await;
    }
    assert!(delay(&users, "ann", address(1)) > Duration::ZERO);
}
