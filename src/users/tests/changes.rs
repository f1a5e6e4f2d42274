use futures_util::FutureExt;

use super::*;
use crate::types::PASSWORD_HASH_BYTES_MAX;
use crate::users::turns::{CHANGES_MAX, CHANGES_OF_ONE_MAX};
use crate::users::{Ensured, UserInfo, UsersError};

#[tokio::test]
async fn a_name_is_added_once() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(
        users.add(&id("ann"), "x", false).await,
        Err(UsersError::Exists("ann".into()))
    );
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
}

#[tokio::test]
async fn no_new_name_has_control_characters_and_those_that_are_there_stay_users() {
    let world = World::default();
    let users = world.with_ann().await;
    for name in ["a\nb", "eve\tadmin", "\u{1b}[2J", "del\u{7f}", "csi\u{9b}"] {
        let refused = Err(UsersError::Name(name.to_owned()));
        assert_eq!(users.add(&id(name), "x", false).await, refused);
        assert_eq!(
            users.adopt(&id(name), "x", false).await,
            refused,
            "nothing is there to adopt"
        );
        assert_eq!(world.store.records_of(name), Vec::<String>::new());
    }
    users
        .add(&id("é b/ü"), "x", false)
        .await
        .expect("no control characters");
    // As an earlier program added it.
    let old = id("a\nb");
    for record in world.store.records_of("ann") {
        let record = record.replace("\"ann\"", "\"a\\nb\"");
        world.store.put(&UserId::system(), "user/a\nb", Some(&record));
    }
    assert_eq!(users.verify("a\nb", "right", address(1)).await, admin("a\nb"));
    assert_eq!(
        users.add(&old, "x", false).await,
        Err(UsersError::Exists("a\nb".into()))
    );
    assert_eq!(users.ensure_admin(&old, "other").await, Ok(Ensured::Present));
    assert_eq!(users.set_password(&old, "new").await, Ok(()));
    assert_eq!(users.verify("a\nb", "new", address(1)).await, admin("a\nb"));
    assert_eq!(users.remove(&old).await, Ok(()));
    // As when a damaged disk lost the record, and not the data.
    world.store.put(&id("c\td"), "kept", Some("value"));
    assert_eq!(users.adopt(&id("c\td"), "x", false).await, Ok(()));
    assert_eq!(world.store.values(&id("c\td"), &key("kept")), ["value"]);
}

fn too_many() -> UsersError {
    UsersError::Store(OpError::Overloaded {
        what: "the queue of changes of users",
        retry_after_s: 1,
    })
}

/// Asks for a change and goes away.
fn ask(users: &Users, name: &str) -> Option<Result<(), UsersError>> {
    users.set_password(&id(name), "new").now_or_never()
}

#[tokio::test]
async fn those_who_ask_for_changes_and_go_away_do_not_pile_up() {
    let world = World::default();
    let users = world.with_ann().await;
    let names: Vec<String> = (0..CHANGES_MAX).map(|number| format!("n{number}")).collect();
    users.add(&id("n0"), "x", false).await.expect("a new name");
    world.threads.hold();
    for _ in 0..CHANGES_OF_ONE_MAX {
        assert_eq!(ask(&users, "ann"), None);
        settle().await;
    }
    for _ in 0..100 {
        assert_eq!(ask(&users, "ann"), Some(Err(too_many())), "the same user again");
    }
    let begun = names.iter().filter(|name| ask(&users, name).is_none()).count();
    assert_eq!(begun, CHANGES_MAX - CHANGES_OF_ONE_MAX);
    assert_eq!(users.add(&id("bob"), "x", false).await, Err(too_many()));
    assert_eq!(users.remove(&id("n0")).await, Err(too_many()));
    world.threads.release();
    settle().await;
    assert_eq!(users.set_password(&id("ann"), "newer").await, Ok(()));
    assert_eq!(users.remove(&id("n0")).await, Ok(()), "the places are free again");
}

#[tokio::test]
async fn adding_one_name_many_times_at_once_succeeds_once() {
    let world = World::default();
    let users = world.start();
    let adds: Vec<_> = (0..10)
        .map(|number| {
            let users = users.clone();
            tokio::spawn(async move { users.add(&id("ann"), &number.to_string(), true).await })
        })
        .collect();
    let mut added = 0;
    for add in adds {
        match add.await.expect("no panic") {
            Ok(()) => added += 1,
            // A few of them are in time to be looked at.
            Err(error) if error == too_many() => {}
            Err(error) => assert_eq!(error, UsersError::Exists("ann".into())),
        }
    }
    assert_eq!(added, 1);
}

#[tokio::test]
async fn users_are_listed_by_name_without_those_being_removed() {
    let world = World::default();
    let users = world.with_ann().await;
    for name in ["dan", "bob", "cat/user/"] {
        users.add(&id(name), "x", false).await.expect("a new name");
    }
    users.remove(&id("dan")).await.expect("dan exists");
    world.store.put(
        &UserId::system(),
        "user/gone",
        Some(r#"{"v":1,"name":"gone","state":"removing"}"#),
    );
    let info = |name, admin| UserInfo { user: id(name), admin };
    let expected = vec![info("ann", true), info("bob", false), info("cat/user/", false)];
    assert_eq!(users.list().await, Ok(expected));
}

#[tokio::test]
async fn many_users_are_listed_over_pages() {
    let world = World::default();
    let users = world.with_ann().await;
    let records = world.store.records_of("ann");
    for number in 0..2500 {
        let name = format!("n{number:05}");
        for record in &records {
            let record = record.replace("\"ann\"", &format!("{name:?}"));
            world
                .store
                .put(&UserId::system(), &format!("user/{name}"), Some(&record));
        }
    }
    let listed = users.list().await.expect("the store answers");
    assert_eq!(listed.len(), 2501);
    assert!(listed.is_sorted_by_key(|info| info.user.clone()));
}

#[tokio::test]
async fn the_last_admin_stays() {
    let world = World::default();
    let users = world.with_ann().await;
    users.add(&id("bob"), "x", false).await.expect("bob is new");
    assert_eq!(users.remove(&id("ann")).await, Err(UsersError::LastAdmin("ann".into())));
    users.add(&id("cat"), "x", true).await.expect("cat is new");
    assert_eq!(users.remove(&id("ann")).await, Ok(()));
    assert_eq!(users.remove(&id("cat")).await, Err(UsersError::LastAdmin("cat".into())));
}

#[tokio::test]
async fn a_password_change_keeps_the_right_and_needs_a_user() {
    let world = World::default();
    let users = world.with_ann().await;
    users.add(&id("bob"), "x", false).await.expect("bob is new");
    users.set_password(&id("bob"), "y").await.expect("bob exists");
    let bob = users.verify("bob", "y", address(1)).await;
    assert_eq!(bob.map(|principal| principal.admin), Ok(false));
    assert_eq!(
        users.set_password(&id("eve"), "y").await,
        Err(UsersError::Unknown("eve".into()))
    );
    assert_eq!(users.remove(&id("eve")).await, Err(UsersError::Unknown("eve".into())));
}

#[tokio::test]
async fn a_password_hash_beyond_its_limit_is_refused_by_name() {
    let world = World::default();
    let users = world.with_ann().await;
    for wrong in [String::new(), "x".repeat(PASSWORD_HASH_BYTES_MAX + 1)] {
        for refused in [
            users.add(&id("bob"), &wrong, false).await,
            users.set_password(&id("ann"), &wrong).await,
        ] {
            let message = refused.expect_err("beyond the limit").to_string();
            let expected = format!("password_hash must be 1 to 256 bytes long, got {}", wrong.len());
            assert_eq!(message, expected);
        }
    }
}

#[tokio::test]
async fn a_change_goes_on_to_its_end_when_nobody_waits_for_it() {
    let world = World::default();
    let users = world.with_ann().await;
    assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    let mut change = Box::pin(async { users.set_password(&id("ann"), "new").await });
    assert!((&mut change).now_or_never().is_none());
    drop(change);
    settle().await;
    assert_eq!(users.verify("ann", "right", address(1)).await, Err(AuthError::Invalid));
    assert_eq!(users.verify("ann", "new", address(1)).await, admin("ann"));
}

#[tokio::test(start_paused = true)]
async fn who_asked_with_a_password_that_was_reset_meanwhile_does_not_have_the_last_word() {
    let world = World::default();
    let users = world.with_ann().await;
    users.add(&id("bob"), "stolen", true).await.expect("bob is new");
    let by_ann = users.asked_by(&users.verify("ann", "right", address(1)).await.expect("it is right"));
    let by_thief = users.asked_by(&users.verify("bob", "stolen", address(2)).await.expect("it is right"));
    world.threads.hold();
    let reset = tokio::spawn(async move { by_ann.set_password(&id("bob"), "reset").await });
    settle().await;
    assert_eq!(world.threads.held(), 1, "it has its turn");
    let thief = by_thief.clone();
    let late = tokio::spawn(async move { thief.set_password(&id("bob"), "stolen").await });
    settle().await;
    world.threads.release();
    assert_eq!(reset.await.expect("no panic"), Ok(()));
    let overtaken = Err(UsersError::Overtaken(AuthError::Invalid));
    assert_eq!(late.await.expect("no panic"), overtaken);
    assert_eq!(by_thief.add(&id("eve"), "x", true).await, overtaken);
    assert_eq!(by_thief.remove(&id("ann")).await, overtaken);
    assert_eq!(users.verify("bob", "stolen", address(1)).await, Err(AuthError::Invalid));
    assert!(users.verify("bob", "reset", address(1)).await.is_ok());
    assert!(users.verify("ann", "right", address(1)).await.is_ok());
}

#[tokio::test]
async fn who_was_let_in_before_the_name_was_somebody_elses_changes_nothing_of_theirs() {
    let world = World::default();
    let (first, second) = (world.with_ann().await, world.start());
    first.add(&id("bob"), "x", false).await.expect("bob is new");
    let earlier = second.asked_by(&second.verify("bob", "x", address(1)).await.expect("it is right"));
    first.remove(&id("bob")).await.expect("bob exists");
    let overtaken = Err(UsersError::Overtaken(AuthError::Invalid));
    assert_eq!(earlier.set_password(&id("bob"), "y").await, overtaken);
    // The same password, and another user.
    first.add(&id("bob"), "x", false).await.expect("bob is gone");
    assert_eq!(earlier.set_password(&id("bob"), "y").await, overtaken);
    assert!(first.verify("bob", "x", address(1)).await.is_ok());
}

#[tokio::test]
async fn what_was_written_and_could_not_be_looked_at_is_in_doubt() {
    let (world, down) = (World::default(), OpError::ShardUnavailable { maybe_applied: false });
    let in_doubt = Err(UsersError::Store(down.clone().doubted()));
    let users = world.with_ann().await;
    // Two looks at a name that nobody has, a claim, a look, the user; and a look, the new password.
    world.store.fail_after_records(4, down.clone());
    assert_eq!(users.add(&id("bob"), "x", false).await, in_doubt);
    world.store.heal();
    assert_eq!(
        users.verify("bob", "x", address(1)).await.map(|bob| bob.user),
        Ok(id("bob"))
    );
    world.store.fail_after_records(2, down);
    assert_eq!(users.set_password(&id("bob"), "y").await, in_doubt);
    world.store.heal();
    assert_eq!(
        users.verify("bob", "y", address(1)).await.map(|bob| bob.user),
        Ok(id("bob"))
    );
}
