use std::time::Duration;

use super::*;
use crate::users::{Ensured, UsersError};

const DOWN: OpError = OpError::ShardUnavailable { maybe_applied: false };
const IN_DOUBT: UsersError = UsersError::Store(OpError::ShardUnavailable { maybe_applied: true });

/// Ann, the admin, and bob with some keys, one of them with unfinished parts only.
async fn with_bobs_keys(world: &World, keys: usize) -> Users {
    let users = world.with_ann().await;
    users.add(&id("bob"), "x", false).await.expect("bob is new");
    for number in 0..keys {
        world.store.put(&id("bob"), &format!("key {number}"), Some("value"));
        world.store.put(&id("ann"), &format!("key {number}"), Some("value"));
    }
    world.store.put(&id("bob"), "parts", None);
    users
}

/// That the name was somebody's, and nothing of who that was.
fn only_one_record_stays(world: &World) {
    let records = world.store.records_of("bob");
    assert!(
        matches!(&records[..], [record] if record.contains(r#""state":"void""#)),
        "{records:?}"
    );
}

#[tokio::test]
async fn everything_of_a_removed_user_goes_and_nothing_of_others() {
    let world = World::default();
    let users = with_bobs_keys(&world, 2500).await;
    assert!(users.verify("bob", "x", address(1)).await.is_ok());
    users.remove(&id("bob")).await.expect("bob exists");
    assert_eq!(world.store.keys_of(&id("bob")), 0);
    assert_eq!(world.store.keys_of(&id("ann")), 2500);
    only_one_record_stays(&world);
    assert_eq!(users.verify("bob", "x", address(1)).await, Err(AuthError::Invalid));
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
}

#[tokio::test]
async fn a_removal_cut_short_by_a_crash_is_resumed_at_the_next_start() {
    let world = World::default();
    let users = with_bobs_keys(&world, 100).await;
    world.store.fail_after_clears(40, OpError::ShuttingDown);
    assert_eq!(users.remove(&id("bob")).await, Err(IN_DOUBT));
    let left = world.store.keys_of(&id("bob"));
    assert!(left > 0 && left < 101);
    drop(users);
    // Nothing of the first life goes on.
    settle().await;
    assert_eq!(world.store.keys_of(&id("bob")), left);

    world.store.heal();
    let users = world.start();
    assert_eq!(users.verify("bob", "x", address(1)).await, Err(AuthError::Invalid));
    settle().await;
    assert_eq!(world.store.keys_of(&id("bob")), 0);
    only_one_record_stays(&world);
    users.add(&id("bob"), "y", false).await.expect("bob is gone");
    settle().await;
    assert!(users.verify("bob", "y", address(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_cannot_go_on_is_retried_and_its_name_stays_taken_until_it_is_done() {
    let world = World::default();
    let users = with_bobs_keys(&world, 100).await;
    assert!(users.verify("bob", "x", address(1)).await.is_ok());
    world.store.fail_after_clears(40, DOWN);
    assert_eq!(users.remove(&id("bob")).await, Err(IN_DOUBT));
    let being_removed = Err(UsersError::BeingRemoved("bob".into()));
    assert_eq!(users.verify("bob", "x", address(1)).await, Err(AuthError::Invalid));
    assert_eq!(users.add(&id("bob"), "y", false).await, being_removed);
    assert_eq!(users.set_password(&id("bob"), "y").await, being_removed);
    assert_eq!(users.remove(&id("bob")).await, being_removed);

    world.store.heal();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.keys_of(&id("bob")), 0);
    users.add(&id("bob"), "y", false).await.expect("bob is gone");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(users.verify("bob", "y", address(2)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_marked_goes_on_wherever_it_was_cut_short() {
    // What is read and written of records until the keys' turn comes.
    for records in 0..4 {
        let world = World::default();
        let users = with_bobs_keys(&world, 10).await;
        let keys = world.store.keys_of(&id("bob"));
        world.store.fail_after_records(records, DOWN);
        let was_marked = records >= 2;
        let failed = if was_marked { IN_DOUBT } else { DOWN.into() };
        assert_eq!(users.remove(&id("bob")).await, Err(failed));
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.store.heal();
        tokio::time::sleep(Duration::from_secs(60)).await;
        match records {
            // Not even the mark was written.
            0 | 1 => assert!(users.verify("bob", "x", address(1)).await.is_ok()),
            _ => assert_eq!(users.add(&id("bob"), "y", false).await, Ok(())),
        }
        assert_eq!(world.store.keys_of(&id("bob")), if records < 2 { keys } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn however_often_a_removal_fails_one_looks_whether_it_was_begun() {
    let world = World::default();
    let users = with_bobs_keys(&world, 10).await;
    world.store.fail_after_records(0, DOWN);
    for _ in 0..50 {
        assert_eq!(users.remove(&id("bob")).await, Err(UsersError::Store(DOWN)));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = world.store.reads.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let reads = world.store.reads.load(SeqCst) - before;
    assert!((1..20).contains(&reads), "{reads}");

    // The mark comes to the disk, and is not acknowledged: while the one before is still looked at.
    world.store.heal();
    world.store.fail_after_records(2, DOWN);
    assert_eq!(users.remove(&id("bob")).await, Err(IN_DOUBT));
    world.store.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.store.keys_of(&id("bob")), 0);
    let before = world.store.reads.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.store.reads.load(SeqCst), before);
}

#[tokio::test(start_paused = true)]
async fn a_removal_at_the_start_waits_for_a_store_that_is_not_ready() {
    let world = World::default();
    world.store.put(
        &UserId::system(),
        "user/bob",
        Some(r#"{"v":1,"name":"bob","state":"removing"}"#),
    );
    world.store.put(&id("bob"), "key", Some("value"));
    world.store.fail_after_clears(0, DOWN);
    let users = world.start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        users.add(&id("bob"), "y", false).await,
        Err(UsersError::BeingRemoved("bob".into()))
    );
    world.store.heal();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(users.add(&id("bob"), "y", false).await, Ok(()));
}

#[tokio::test]
async fn what_a_late_request_wrote_after_the_removal_is_not_the_next_users() {
    let world = World::default();
    let users = with_bobs_keys(&world, 1).await;
    let bob = id("bob");
    users.remove(&bob).await.expect("bob exists");
    world.store.put(&bob, "late", Some("value"));
    let refused = Err(UsersError::KeysLeft("bob".to_owned()));
    assert_eq!(users.add(&bob, "y", false).await, refused);
    assert_eq!(world.store.keys_of(&bob), 1);
    users.remove(&bob).await.expect("there is something to remove");
    assert_eq!((world.store.keys_of(&bob), world.store.records_of("bob").len()), (0, 1));
    users.add(&bob, "y", false).await.expect("bob is gone");
    assert_eq!(
        users.remove(&id("cat")).await,
        Err(UsersError::Unknown("cat".to_owned()))
    );
}

/// As when a damaged disk lost the records of users, and nothing else.
#[tokio::test]
async fn what_is_stored_under_a_name_without_a_user_is_never_removed_by_adding_it() {
    let world = World::default();
    for name in ["ann", "bob"] {
        world.store.put(&id(name), "kept", Some("value"));
    }
    let users = world.start();
    assert_eq!(users.ensure_admin(&id("ann"), "right").await, Ok(Ensured::Created));
    assert_eq!(users.adopt(&id("bob"), "x", false).await, Ok(()));
    for name in ["ann", "bob"] {
        assert_eq!(world.store.values(&id(name), &key("kept")), ["value"], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_was_left_by_a_node_that_died_is_finished_by_another_that_is_asked_for_it() {
    let world = World::default();
    let users = with_bobs_keys(&world, 10).await;
    let other = world.start();
    settle().await;
    world.store.hold_clears(1);
    let removing = tokio::spawn(async move { users.remove(&id("bob")).await });
    settle().await;
    assert_eq!(world.store.waiting(), 1);
    removing.abort();
    assert_eq!(
        other.remove(&id("bob")).await,
        Err(UsersError::BeingRemoved("bob".into()))
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.store.keys_of(&id("bob")), 0);
    assert_eq!(other.add(&id("bob"), "y", false).await, Ok(()));
}

#[tokio::test]
async fn while_a_node_is_away_that_may_hold_what_an_earlier_user_stored_the_name_is_not_given_away() {
    let world = World::default();
    let users = with_bobs_keys(&world, 10).await;
    users.remove(&id("bob")).await.expect("bob exists");
    world.store.one_is_away.store(true, SeqCst);
    let unknown = Err(UsersError::KeysUnknown("bob".into()));
    assert_eq!(users.add(&id("bob"), "y", false).await, unknown);
    users
        .add(&id("eve"), "y", false)
        .await
        .expect("nobody had the name before");
    users.adopt(&id("bob"), "y", false).await.expect("whatever it holds");
    users.remove(&id("bob")).await.expect("bob exists");
    assert_eq!(users.add(&id("bob"), "y", false).await, unknown);
    world.store.one_is_away.store(false, SeqCst);
    users.add(&id("bob"), "y", false).await.expect("nothing is there");
}

#[tokio::test]
async fn who_adds_the_name_anew_keeps_the_claim_though_another_node_is_late_with_the_removal() {
    let world = World::default();
    let users = with_bobs_keys(&world, 0).await;
    world.store.hold_clears(1);
    let removing = tokio::spawn(async move { users.remove(&id("bob")).await });
    settle().await;
    assert_eq!(world.store.waiting(), 1);
    // Another node has ended the removal, and a third one adds the name.
    let life = world.store.records_of("bob")[0].clone();
    let life: serde_json::Value = serde_json::from_str(&life).expect("JSON");
    let put = |record: String| world.store.put(&UserId::system(), "user/bob", Some(&record));
    put(format!(
        r#"{{"v":1,"name":"bob","state":"void","id":{}}}"#,
        life["life"]
    ));
    put(r#"{"v":1,"name":"bob","state":"adding","life":"next"}"#.to_owned());
    world.store.let_go();
    assert_eq!(removing.await.expect("it ends"), Ok(()));
    let records = world.store.records_of("bob");
    assert!(records.iter().any(|record| record.contains("next")), "{records:?}");
}
