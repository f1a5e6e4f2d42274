//! What two nodes do with one name at the same moment: two services on one store, of which one is held at a step.

use std::time::Duration;

use super::*;
use crate::users::UsersError;

type Change = tokio::task::JoinHandle<Result<(), UsersError>>;

/// Two nodes with the admin ann.
async fn two_nodes(world: &World) -> (Users, Users) {
    (world.with_ann().await, world.start())
}

fn adding(node: &Users, name: &'static str, password: &'static str) -> Change {
    let node = node.clone();
    tokio::spawn(async move { node.add(&id(name), password, true).await })
}

fn removing(node: &Users, name: &'static str) -> Change {
    let node = node.clone();
    tokio::spawn(async move { node.remove(&id(name)).await })
}

async fn end(change: Change) -> Result<(), UsersError> {
    change.await.expect("no panic")
}

async fn held(world: &World) {
    settle().await;
    assert_eq!(world.store.waiting(), 1, "nothing came to the step that is held");
}

#[tokio::test(start_paused = true)]
async fn an_adding_that_comes_late_leaves_what_the_added_user_wrote() {
    let world = World::default();
    let (first, second) = two_nodes(&world).await;
    world.store.hold_record("adding");
    let late = adding(&first, "bob", "x");
    held(&world).await;
    second.add(&id("bob"), "y", false).await.expect("the name is free");
    world.store.put(&id("bob"), "key", Some("bob's own"));
    world.store.let_go();
    assert_eq!(end(late).await, Err(UsersError::Exists("bob".into())));
    assert_eq!(world.store.values(&id("bob"), &key("key")), ["bob's own"]);
    assert!(second.verify("bob", "y", address(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn of_two_who_add_one_name_at_the_same_moment_one_is_told_that_it_did() {
    for held_at in ["adding", "active"] {
        let world = World::default();
        let (first, second) = two_nodes(&world).await;
        world.store.hold_record(held_at);
        let one = adding(&first, "bob", "x");
        held(&world).await;
        let other = adding(&second, "bob", "y");
        settle().await;
        world.store.let_go();
        let outcome = (end(one).await, end(other).await);
        let exists = Err(UsersError::Exists("bob".into()));
        let winner = match outcome {
            (Ok(()), refused) if refused == exists => "x",
            (refused, Ok(())) if refused == exists => "y",
            outcome => panic!("held at {held_at}: {outcome:?}"),
        };
        for node in [first, second, world.start()] {
            for password in ["x", "y"] {
                let is_let_in = node.verify("bob", password, address(1)).await.is_ok();
                assert_eq!(is_let_in, password == winner, "held at {held_at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_who_claim_a_name_in_step_agree_in_the_end() {
    for _ in 0..20 {
        let world = World::default();
        let (first, second) = two_nodes(&world).await;
        let (one, other) = (adding(&first, "bob", "x"), adding(&second, "bob", "y"));
        let outcome = [end(one).await, end(other).await];
        assert_eq!(outcome.iter().filter(|told| told.is_ok()).count(), 1, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_left_behind_is_given_up_and_brings_nobody() {
    let world = World::default();
    let (first, second) = two_nodes(&world).await;
    world.store.hold_record("\"active\"");
    let late = adding(&first, "bob", "x");
    held(&world).await;
    // Its claim stands, and it goes no further for longer than the other one waits.
    assert_eq!(second.add(&id("bob"), "y", false).await, Ok(()));
    world.store.let_go();
    assert_eq!(end(late).await, Err(UsersError::Contended("bob".into())));
    assert!(second.verify("bob", "x", address(1)).await.is_err());
    assert!(world.start().verify("bob", "y", address(2)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_comes_late_leaves_the_next_user_of_the_name() {
    let world = World::default();
    let (first, second) = two_nodes(&world).await;
    first.add(&id("bob"), "x", false).await.expect("bob is new");
    world.store.put(&id("bob"), "key", Some("old"));
    world.store.hold_clears(1);
    let late = removing(&first, "bob");
    held(&world).await;
    // As after a restart of the other node: it finishes what it finds begun.
    let third = world.start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.records_of("bob").len(), 1);
    third.add(&id("bob"), "y", false).await.expect("bob is gone");
    world.store.put(&id("bob"), "key", Some("new"));
    world.store.let_go();
    assert_eq!(end(late).await, Ok(()));
    assert_eq!(world.store.values(&id("bob"), &key("key")), ["new"]);
    assert!(second.verify("bob", "y", address(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn of_two_who_remove_one_user_one_is_told_that_it_did() {
    let world = World::default();
    let (first, second) = two_nodes(&world).await;
    first.add(&id("bob"), "x", false).await.expect("bob is new");
    world.store.put(&id("bob"), "key", Some("old"));
    world.store.hold_record("removing");
    let one = removing(&first, "bob");
    held(&world).await;
    assert_eq!(end(removing(&second, "bob")).await, Ok(()));
    world.store.let_go();
    assert_eq!(end(one).await, Err(UsersError::Unknown("bob".into())));
    assert_eq!(world.store.keys_of(&id("bob")), 0);
    assert_eq!(first.add(&id("bob"), "y", false).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn of_admins_who_remove_each_other_one_stays() {
    for held_at in ["\"decided\":false", "\"decided\":true", "nothing"] {
        let world = World::default();
        let (first, second) = two_nodes(&world).await;
        first.add(&id("cat"), "x", true).await.expect("cat is new");
        world.store.hold_record(held_at);
        let one = removing(&first, "cat");
        settle().await;
        let other = removing(&second, "ann");
        settle().await;
        world.store.let_go();
        let outcome = [end(one).await, end(other).await];
        let admins = first.list().await.expect("the store answers");
        assert!(!admins.is_empty(), "held at {held_at}: {outcome:?}");
        let removed = outcome.iter().filter(|told| told.is_ok()).count();
        assert_eq!(admins.len(), 2 - removed, "held at {held_at}: {outcome:?}");
        for refused in outcome.into_iter().filter_map(Result::err) {
            assert!(matches!(refused, UsersError::LastAdmin(_)), "{refused:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_was_left_behind_on_the_last_admin_is_taken_back() {
    let world = World::default();
    let users = world.with_ann().await;
    let record = world.store.records_of("ann").pop().expect("ann has a record");
    let life = record
        .split("\"life\":\"")
        .nth(1)
        .and_then(|rest| rest.get(..16))
        .expect("a life");
    let mark = format!(r#"{{"v":1,"name":"ann","state":"removing","life":"{life}","id":"1","decided":false}}"#);
    world.store.put(&UserId::system(), "user/ann", Some(&mark));
    assert!(world.start().verify("ann", "right", address(1)).await.is_err());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(users.list().await.map(|users| users.len()), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_password_set_while_its_user_is_removed_brings_nobody_back() {
    let world = World::default();
    let (first, second) = two_nodes(&world).await;
    first.add(&id("bob"), "x", false).await.expect("bob is new");
    world.store.hold_record("\"active\"");
    let late = tokio::spawn({
        let first = first.clone();
        async move { first.set_password(&id("bob"), "y").await }
    });
    held(&world).await;
    second.remove(&id("bob")).await.expect("bob exists");
    world.store.let_go();
    assert_eq!(end(late).await, Err(UsersError::Unknown("bob".into())));
    for password in ["x", "y"] {
        assert_eq!(
            second.verify("bob", password, address(1)).await,
            Err(AuthError::Invalid)
        );
    }
    assert_eq!(second.add(&id("bob"), "z", false).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_password_set_while_its_user_is_removed_and_added_anew_is_not_told_to_hold() {
    let world = World::default();
    let (first, second) = two_nodes(&world).await;
    first.add(&id("bob"), "x", false).await.expect("bob is new");
    world.store.hold_record("\"active\"");
    let late = tokio::spawn({
        let first = first.clone();
        async move { first.set_password(&id("bob"), "new").await }
    });
    held(&world).await;
    second.remove(&id("bob")).await.expect("bob exists");
    second.add(&id("bob"), "y", false).await.expect("bob is gone");
    world.store.let_go();
    assert_eq!(end(late).await, Err(UsersError::Contended("bob".into())));
    assert_eq!(first.verify("bob", "new", address(1)).await, Err(AuthError::Invalid));
    assert!(first.verify("bob", "y", address(1)).await.is_ok());
}
