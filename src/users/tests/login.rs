use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::users::VERIFIED_AGE_MAX;

#[tokio::test]
async fn only_the_right_password_of_a_known_user_logs_in() {
    let world = World::default();
    let users = world.with_ann().await;
    users.add(&id("bob"), "other", false).await.expect("bob is new");
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    let bob = users.verify("bob", "other", address(1)).await;
    assert_eq!(bob.map(|principal| principal.admin), Ok(false));
    for (name, password) in [("ann", "wrong"), ("ann", "other"), ("bob", "right"), ("eve", "right")] {
        assert_eq!(users.verify(name, password, address(1)).await, Err(AuthError::Invalid));
    }
}

#[tokio::test]
async fn every_refused_login_costs_one_run_whatever_is_wrong_with_it() {
    let world = World::default();
    let users = world.with_ann().await;
    let long = "x".repeat(300);
    let huge = "x".repeat(8 * 1024 * 1024);
    let refused = [
        ("ann", "wrong"),
        ("nobody", "right"),
        ("", "right"),
        ("ann", ""),
        (&*long, "right"),
        ("ann", &*long),
        (&*huge, &*huge),
    ];
    for (number, (name, password)) in refused.into_iter().enumerate() {
        let before = world.runs();
        let from = address(u8::try_from(number).unwrap_or_default());
        assert_eq!(users.verify(name, password, from).await, Err(AuthError::Invalid));
        assert_eq!(world.runs(), before + 1, "for {:?}", name.get(..10));
    }
}

#[tokio::test]
async fn a_credential_verified_once_needs_no_run_no_read_and_no_waiting() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    let before = (world.runs(), world.store.reads.load(SeqCst));
    for _ in 0..10 {
        assert_eq!(
            users.verify("ann", "right", address(2)).now_or_never(),
            Some(admin("ann"))
        );
    }
    assert_eq!((world.runs(), world.store.reads.load(SeqCst)), before);
}

#[tokio::test(start_paused = true)]
async fn an_old_verification_is_renewed_by_a_read_without_a_run() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    let before = (world.runs(), world.store.reads.load(SeqCst));
    tokio::time::advance(VERIFIED_AGE_MAX).await;
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    assert_eq!(
        users.verify("ann", "right", address(1)).now_or_never(),
        Some(admin("ann"))
    );
    assert_eq!((world.runs(), world.store.reads.load(SeqCst)), (before.0, before.1 + 1));
}

#[tokio::test(start_paused = true)]
async fn a_password_changed_on_another_node_is_noticed_in_time() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    let elsewhere = world.start();
    elsewhere.set_password(&id("ann"), "new").await.expect("ann exists");
    tokio::time::advance(VERIFIED_AGE_MAX).await;
    assert_eq!(users.verify("ann", "right", address(1)).await, Err(AuthError::Invalid));
    assert_eq!(users.verify("ann", "new", address(1)).await, admin("ann"));
}

#[tokio::test]
async fn a_new_password_holds_at_once_and_the_old_one_no_more() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    users.set_password(&id("ann"), "new").await.expect("ann exists");
    assert_eq!(users.verify("ann", "right", address(1)).await, Err(AuthError::Invalid));
    assert_eq!(users.verify("ann", "new", address(1)).await, admin("ann"));
}

#[tokio::test]
async fn a_password_changed_while_it_was_checked_is_refused_and_not_remembered() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    let login = tokio::spawn({
        let users = users.clone();
        async move { users.verify("ann", "right", address(1)).await }
    });
    settle().await;
    assert_eq!(world.threads.held(), 1);
    let change = tokio::spawn({
        let users = users.clone();
        async move { users.set_password(&id("ann"), "new").await }
    });
    settle().await;
    // The change's run first, so that the record is new when the login's run ends.
    let login_run = world.threads.held.lock().as_mut().map(|held| held.remove(0));
    world.threads.release();
    change.await.expect("no panic").expect("ann exists");
    login_run.into_iter().for_each(|run| run());
    assert_eq!(login.await.expect("no panic"), Err(AuthError::Invalid));
    assert_eq!(users.verify("ann", "right", address(2)).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn a_hundred_requests_with_one_new_credential_cost_one_run() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    let before = world.runs();
    let logins = tokio::spawn({
        let users = users.clone();
        async move { join_all((0..100).map(|_| users.verify("ann", "right", address(1)))).await }
    });
    settle().await;
    world.threads.release();
    let outcomes = logins.await.expect("no panic");
    assert!(outcomes.into_iter().all(|outcome| outcome == admin("ann")));
    assert_eq!(world.runs(), before + 1);
}

#[tokio::test]
async fn a_shared_check_goes_on_when_the_first_who_asked_goes_away() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    let mut first = Box::pin(users.verify("ann", "right", address(1)));
    let mut second = Box::pin(users.verify("ann", "right", address(1)));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    world.threads.release();
    assert_eq!(second.await, admin("ann"));
}

#[tokio::test]
async fn records_survive_a_restart() {
    let world = World::default();
    let users = world.with_ann().await;
    users.set_password(&id("ann"), "new").await.expect("ann exists");
    drop(users);
    let users = world.start();
    assert_eq!(users.verify("ann", "new", address(1)).await, admin("ann"));
    assert_eq!(users.verify("ann", "right", address(1)).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn what_is_stored_is_salted_and_does_not_show_the_password() {
    let world = World::default();
    let users = world.with_ann().await;
    users.add(&id("bob"), "right", true).await.expect("bob is new");
    let (ann, bob) = (world.store.records_of("ann").pop(), world.store.records_of("bob").pop());
    let hash = |record: &Option<String>| {
        let record = record.as_deref().expect("a record");
        assert!(!record.contains("right"));
        let record: serde_json::Value = serde_json::from_str(record).expect("a record is JSON");
        record["argon2"].as_str().expect("a record has a hash").to_owned()
    };
    assert!(hash(&ann).starts_with("$argon2id$v=19$"));
    assert_ne!(hash(&ann), hash(&bob));
}

#[tokio::test]
async fn a_damaged_record_refuses_its_user_and_no_other() {
    let world = World::default();
    let users = world.with_ann().await;
    for damaged in ["{\"v\":1", "{\"v\":9,\"name\":\"bob\"}", "", "[]"] {
        world.store.put(&UserId::system(), "user/bob", Some(damaged));
        let before = world.runs();
        assert_eq!(users.verify("bob", "right", address(1)).await, Err(AuthError::Invalid));
        assert_eq!(world.runs(), before + 1);
    }
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    let listed = users.list().await.expect("the store answers");
    assert_eq!(listed.len(), 1);
    users
        .set_password(&id("bob"), "new")
        .await
        .expect("an admin may mend it");
    assert!(users.verify("bob", "new", address(2)).await.is_ok());
    let newer = "{\"v\":9,\"name\":\"bob\"}";
    world.store.put(&UserId::system(), "user/bob", Some(newer));
    assert!(
        users.set_password(&id("bob"), "new").await.is_err(),
        "a newer program can read it"
    );
    users.remove(&id("bob")).await.expect("a damaged record can be removed");
    users.add(&id("bob"), "newer", false).await.expect("bob is gone");
    assert!(users.verify("bob", "newer", address(3)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_delayed_login_sees_the_record_of_after_the_delay() {
    let world = World::default();
    let users = world.with_ann().await;
    for _ in 0..4 {
        assert_eq!(users.verify("ann", "new", address(1)).await, Err(AuthError::Invalid));
    }
    let login = tokio::spawn({
        let users = users.clone();
        async move { users.verify("ann", "new", address(1)).await }
    });
    settle().await;
    users.set_password(&id("ann"), "new").await.expect("ann exists");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(login.await.expect("no panic"), admin("ann"));
}

#[tokio::test]
async fn a_node_that_is_cut_off_lets_in_whom_it_knows_and_tells_nobody_that_a_password_is_wrong() {
    let world = World::default();
    let users = world.with_ann().await;
    world.store.is_cut_off.store(true, SeqCst);
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    for (number, (name, password)) in [("ann", "wrong"), ("nobody", "right")].into_iter().enumerate() {
        let before = world.runs();
        let from = address(u8::try_from(number).unwrap_or_default() + 2);
        let refused = users.verify(name, password, from).await;
        assert_eq!(refused, Err(AuthError::CutOff(NO_QUORUM)), "{name}");
        assert_eq!(world.runs(), before + 1, "{name}");
    }
    world.store.is_cut_off.store(false, SeqCst);
    assert_eq!(users.verify("ann", "wrong", address(2)).await, Err(AuthError::Invalid));
}
