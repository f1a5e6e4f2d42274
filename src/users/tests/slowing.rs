use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;
use crate::users::delayed::DELAYED_PER_ADDRESS_MAX;
use crate::users::failures::{ADDRESS_FAILURES_FREE, DELAY_FIRST, DELAY_MAX, FAILURES_FREE};
use crate::users::hashing::{QUEUE_MAX, RUNS_MAX};
use crate::users::login::{UNKNOWN_MAX, UNKNOWN_PER_ADDRESS_MAX, WAITING_PER_ADDRESS_MAX};

const BUSY: Result<Principal, AuthError> = Err(AuthError::Busy { retry_after_s: 1 });

/// What the login came to, and how long it took; time passes only where something sleeps.
async fn timed(users: &Users, name: &str, password: &str, from: IpAddr) -> (Result<Principal, AuthError>, Duration) {
    let start = Instant::now();
    let outcome = users.verify(name, password, from).await;
    (outcome, start.elapsed())
}

async fn fail_often(users: &Users, name: &str, from: IpAddr, times: u32) -> Duration {
    let mut last = Duration::ZERO;
    for _ in 0..times {
        let (outcome, took) = timed(users, name, "wrong", from).await;
        assert_eq!(outcome, Err(AuthError::Invalid));
        last = took;
    }
    last
}

/// One wrong login for each of so many names, and how long the last one took.
async fn spray(users: &Users, from: IpAddr, names: usize) -> Duration {
    let mut last = Duration::ZERO;
    for number in 0..names {
        last = fail_often(users, &format!("sprayed {number}"), from, 1).await;
    }
    last
}

/// Tries again when told to, as a client does; how long that took.
async fn patient(users: &Users, name: &str, password: &str, from: IpAddr) -> (Result<Principal, AuthError>, Duration) {
    let start = Instant::now();
    loop {
        match users.verify(name, password, from).await {
            BUSY => tokio::time::sleep(Duration::from_secs(1)).await,
            outcome => return (outcome, start.elapsed()),
        }
    }
}

/// Guesses without end, each time at this name or another one, in many requests at the same time that never pause for long.
fn storm(users: &Users, from: IpAddr, name: Option<&'static str>) -> Vec<tokio::task::JoinHandle<()>> {
    let guesser = |number: usize| {
        let users = users.clone();
        async move {
            for guess in 0_u64.. {
                let guess = format!("{number}.{guess}");
                let outcome = users.verify(name.unwrap_or(&guess), &guess, from).await;
                assert!(outcome.is_err());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let guessers = 0..2 * DELAYED_PER_ADDRESS_MAX;
    guessers.map(|number| tokio::spawn(guesser(number))).collect()
}

#[tokio::test(start_paused = true)]
async fn guesses_at_a_node_that_is_cut_off_are_slowed_too() {
    let world = World::default();
    let users = world.with_ann().await;
    world.store.is_cut_off.store(true, SeqCst);
    for name in ["ann", "nobody"] {
        for _ in 0..FAILURES_FREE {
            let (outcome, took) = timed(&users, name, "wrong", address(1)).await;
            assert_eq!(
                (outcome, took),
                (Err(AuthError::CutOff(NO_QUORUM)), Duration::ZERO),
                "{name}"
            );
        }
        let (_, took) = timed(&users, name, "wrong", address(1)).await;
        assert_eq!(took, DELAY_FIRST, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_address_is_slowed_over_many_names_and_no_other_address() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(
        spray(&users, address(9), ADDRESS_FAILURES_FREE as usize).await,
        Duration::ZERO
    );
    assert!(spray(&users, address(9), 40).await >= DELAY_MAX / 2);
    assert_eq!(
        timed(&users, "ann", "right", address(1)).await,
        (admin("ann"), Duration::ZERO)
    );
    // What is verified is not slowed at the address either, and what is not yet is let in after at most the longest delay.
    assert_eq!(timed(&users, "ann", "right", address(9)).await.1, Duration::ZERO);
    users.inner.verified.forget(&id("ann"));
    let (outcome, took) = timed(&users, "ann", "right", address(9)).await;
    assert_eq!(outcome, admin("ann"));
    assert!(took > Duration::ZERO && took <= DELAY_MAX + Duration::from_millis(1));
    // A right login takes back its own count only.
    assert!(spray(&users, address(9), 1).await > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn right_logins_never_slow_their_address() {
    let world = World::default();
    let users = world.with_ann().await;
    for _ in 0..3 * ADDRESS_FAILURES_FREE {
        users.inner.verified.forget(&id("ann"));
        assert_eq!(
            timed(&users, "ann", "right", address(1)).await,
            (admin("ann"), Duration::ZERO)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn guesses_at_one_name_follow_each_other_however_many_are_made_at_once() {
    const GUESSES: u32 = 16;
    let world = World::default();
    let users = world.with_ann().await;
    fail_often(&users, "ann", address(9), FAILURES_FREE + 7).await;
    let start = Instant::now();
    let guesses: Vec<_> = (0..GUESSES)
        .map(|number| {
            let users = users.clone();
            tokio::spawn(async move { patient(&users, "ann", &number.to_string(), address(9)).await.0 })
        })
        .collect();
    for guess in guesses {
        assert_eq!(guess.await.expect("no panic"), Err(AuthError::Invalid));
    }
    assert!(start.elapsed() >= DELAY_MAX * GUESSES, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn strangers_at_the_same_address_do_not_keep_a_right_login_out() {
    for name in [None, Some("ann")] {
        let world = World::default();
        let users = world.with_ann().await;
        let strangers = storm(&users, address(9), name);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let login = patient(&users, "ann", "right", address(9));
        // Who waits already goes first, and then it has its own delay.
        let let_in = tokio::time::timeout(3 * DELAY_MAX, login).await;
        let (outcome, _) = let_in.unwrap_or_else(|_| panic!("kept out by guesses at {name:?}"));
        assert_eq!(outcome, admin("ann"));
        strangers.iter().for_each(|stranger| stranger.abort());
    }
}

#[tokio::test(start_paused = true)]
async fn failures_slow_that_user_and_address_and_no_other() {
    let world = World::default();
    let users = world.with_ann().await;
    users.add(&id("bob"), "bobs", false).await.expect("bob is new");
    assert_eq!(
        fail_often(&users, "ann", address(1), FAILURES_FREE).await,
        Duration::ZERO
    );
    let slowed = fail_often(&users, "ann", address(1), 1).await;
    assert!(slowed >= DELAY_FIRST);
    assert!(fail_often(&users, "ann", address(1), 1).await > slowed);
    assert_eq!(
        timed(&users, "ann", "right", address(2)).await,
        (admin("ann"), Duration::ZERO)
    );
    assert_eq!(timed(&users, "bob", "bobs", address(1)).await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_user_is_slowed_like_a_known_one() {
    let world = World::default();
    let users = world.with_ann().await;
    for times in 1..=12 {
        let known = fail_often(&users, "ann", address(1), 1).await;
        let unknown = fail_often(&users, "nobody", address(1), 1).await;
        // Seconds of sleep in between also forget a little, the same for both but not at the same moment.
        assert!(
            known.abs_diff(unknown) <= DELAY_MAX / 2,
            "after {times}: {known:?} and {unknown:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_lock_a_user_out() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    fail_often(&users, "ann", address(9), 20).await;
    fail_often(&users, "ann", address(1), 20).await;
    // Remembered: not delayed even from the address that failed.
    assert_eq!(
        users.verify("ann", "right", address(1)).now_or_never(),
        Some(admin("ann"))
    );
    let users = world.start();
    fail_often(&users, "ann", address(9), 20).await;
    // Not remembered: not delayed from another address, and let in after at most the longest delay from the same one.
    assert_eq!(
        timed(&users, "ann", "right", address(2)).await,
        (admin("ann"), Duration::ZERO)
    );
    users.inner.verified.forget(&id("ann"));
    let (outcome, took) = timed(&users, "ann", "right", address(9)).await;
    assert_eq!(outcome, admin("ann"));
    assert!(took > Duration::ZERO && took <= DELAY_MAX + Duration::from_millis(1));
    users.inner.verified.forget(&id("ann"));
    assert_eq!(
        timed(&users, "ann", "right", address(9)).await.1,
        Duration::ZERO,
        "forgiven"
    );
}

#[tokio::test(start_paused = true)]
async fn the_delay_comes_before_the_run() {
    let world = World::default();
    let users = world.with_ann().await;
    fail_often(&users, "ann", address(1), FAILURES_FREE).await;
    let before = world.runs();
    let mut login = Box::pin(users.verify("ann", "wrong", address(1)));
    assert!((&mut login).now_or_never().is_none());
    assert_eq!(world.runs(), before);
    assert_eq!(login.await, Err(AuthError::Invalid));
    assert_eq!(world.runs(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn guesses_made_at_the_same_moment_are_slowed_too() {
    let world = World::default();
    let users = world.with_ann().await;
    let before = world.runs();
    let guesses: Vec<_> = (0..10)
        .map(|number| {
            let users = users.clone();
            tokio::spawn(async move { users.verify("ann", &format!("guess {number}"), address(1)).await })
        })
        .collect();
    settle().await;
    assert_eq!(world.runs(), before + FAILURES_FREE as usize);
    let mut outcomes = Vec::new();
    for guess in guesses {
        outcomes.push(guess.await.expect("no panic"));
    }
    // One that was delayed, and none beside it.
    let checked = outcomes.iter().filter(|outcome| **outcome == Err(AuthError::Invalid));
    assert_eq!(checked.count(), FAILURES_FREE as usize + 1);
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == BUSY || *outcome == Err(AuthError::Invalid))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_fill_the_queue_for_others() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    let mut stranger = Vec::new();
    for number in 0..QUEUE_MAX * 2 {
        let mut guess = Box::pin({
            let users = users.clone();
            async move { users.verify(&format!("user {number}"), "x", address(9)).await }
        });
        match (&mut guess).now_or_never() {
            Some(outcome) => assert_eq!(outcome, BUSY),
            None => stranger.push(guess),
        }
    }
    assert_eq!(stranger.len(), WAITING_PER_ADDRESS_MAX);
    settle().await;
    assert_eq!(world.threads.held(), RUNS_MAX);
    let mut login = Box::pin(users.verify("ann", "right", address(1)));
    assert!((&mut login).now_or_never().is_none(), "in the queue");
    world.threads.release();
    drop(stranger);
    assert_eq!(login.await, admin("ann"));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_waits_for_one_check_leaves_places_to_others() {
    let world = World::default();
    let users = world.with_ann().await;
    users.add(&id("bob"), "right", false).await.unwrap();
    assert_eq!(users.verify("ann", "right", address(9)).await, admin("ann"));
    world.threads.hold();
    let mut crowd = Vec::new();
    let mut waits = |from: u8| {
        let users = users.clone();
        let mut guess = Box::pin(async move { users.verify("nobody", "x", address(from)).await });
        match (&mut guess).now_or_never() {
            Some(outcome) => assert_eq!(outcome, BUSY),
            None => crowd.push(guess),
        }
        crowd.len()
    };
    for _ in 0..=UNKNOWN_PER_ADDRESS_MAX {
        waits(9);
    }
    assert_eq!(waits(9), UNKNOWN_PER_ADDRESS_MAX);
    // Who is remembered needs no place, and another address has places of its own.
    assert_eq!(users.verify("ann", "right", address(9)).await, admin("ann"));
    let mut login = Box::pin(users.verify("bob", "right", address(1)));
    assert!((&mut login).now_or_never().is_none(), "in the queue");
    for from in 2..5 {
        for _ in 0..UNKNOWN_PER_ADDRESS_MAX {
            waits(from);
        }
    }
    assert_eq!(waits(2), UNKNOWN_MAX - 1, "bob is one of them");
    world.threads.release();
    assert!(login.await.is_ok());
    for guess in crowd {
        assert_eq!(guess.await, Err(AuthError::Invalid));
    }
    assert_eq!(users.verify("nobody", "x", address(9)).await, Err(AuthError::Invalid));
}

#[tokio::test(start_paused = true)]
async fn delayed_logins_of_one_address_are_bounded_and_take_no_place_in_the_queue() {
    let world = World::default();
    let users = world.with_ann().await;
    spray(&users, address(9), 60).await;
    let before = world.runs();
    let mut delayed = Vec::new();
    for number in 0..DELAYED_PER_ADDRESS_MAX {
        let users = users.clone();
        let mut guess = Box::pin(async move { users.verify(&number.to_string(), "x", address(9)).await });
        assert!((&mut guess).now_or_never().is_none());
        delayed.push(guess);
    }
    assert_eq!(users.verify("one more", "x", address(9)).await, BUSY);
    assert_eq!(world.runs(), before);
    // Nobody at another address is held up.
    assert_eq!(
        timed(&users, "ann", "right", address(1)).await,
        (admin("ann"), Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn the_whole_queue_is_bounded_and_being_turned_away_does_not_count_as_failing() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    let mut waiting = Vec::new();
    for number in 0..QUEUE_MAX {
        let from = address(u8::try_from(number % 8).unwrap_or_default());
        let users = users.clone();
        let mut login = Box::pin(async move { users.verify(&format!("user {number}"), "x", from).await });
        assert!((&mut login).now_or_never().is_none());
        waiting.push(login);
    }
    for _ in 0..20 {
        assert_eq!(users.verify("ann", "right", address(20)).await, BUSY);
    }
    world.threads.release();
    drop(waiting);
    // They are checked all the same.
    settle().await;
    assert_eq!(
        timed(&users, "ann", "right", address(20)).await,
        (admin("ann"), Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_counts_until_it_ends_though_nobody_waits_for_it() {
    let world = World::default();
    let users = world.with_ann().await;
    world.threads.hold();
    for number in 0..10 {
        let name = format!("user {number}");
        let mut login = Box::pin(users.verify(&name, "x", address(1)));
        assert!((&mut login).now_or_never().is_none());
    }
    settle().await;
    assert_eq!(world.threads.held(), RUNS_MAX);
    let mut login = Box::pin(users.verify("ann", "right", address(1)));
    assert!((&mut login).now_or_never().is_none());
    settle().await;
    assert_eq!(world.threads.held(), RUNS_MAX);
    // Those of whom nobody waits go before it, as many at a time as ever.
    for left in (1..=10 + 1_usize).rev().step_by(RUNS_MAX) {
        assert_eq!(world.threads.held(), left.min(RUNS_MAX));
        world.threads.do_held();
        settle().await;
    }
    world.threads.release();
    assert_eq!(login.await, admin("ann"));
}
