//! No user sees, changes or learns of another user's keys.

use crate::common::calls::Caller;
use crate::common::{Home, password_hash};
use serde_json::json;

#[test]
fn two_users_with_the_same_key_never_see_each_other() {
    let home = Home::new();
    let node = home.start();
    let (ann, bob) = (node.user("ann"), node.user("bob"));
    ann.add("key", "of ann");
    assert!(bob.get("key").is_empty() && bob.count("key") == 0 && bob.keys("", 10).is_empty());

    bob.add("key", "of bob");
    bob.add_part("key", "half of bob's, ");
    bob.add("bob's own", "x");
    assert_eq!(ann.get("key"), ["of ann"]);
    assert_eq!(ann.count("key"), 1);
    assert_eq!(ann.keys("", 10), ["key"]);
    assert_eq!(bob.keys("", 1), ["bob's own", "key"]);

    ann.add("key", "more");
    assert_eq!(ann.get("key"), ["of ann", "more"]);
    ann.clear("key");
    bob.add("key", "done");
    assert_eq!(bob.get("key"), ["of bob", "half of bob's, done"]);
    assert!(ann.get("key").is_empty());
}

#[test]
fn the_end_of_a_name_and_the_start_of_a_key_cannot_be_moved() {
    let home = Home::new();
    let node = home.start();
    let (short, long) = (node.user("a"), node.user("ab"));
    short.add("bc", "of a");
    long.add("c", "of ab");
    short.add("b\u{0}c", "of a");
    assert_eq!(short.keys("", 10), ["b\u{0}c", "bc"]);
    assert_eq!(long.keys("", 10), ["c"]);
    assert!(long.get("bc").is_empty() && short.get("c").is_empty());
}

#[test]
fn the_same_request_id_of_two_users_is_two_requests() {
    let home = Home::new();
    let node = home.start();
    for user in [node.user("ann"), node.user("bob")] {
        for _ in 0..2 {
            user.call(
                "/add_value",
                json!({"key": "k", "value": user.name, "request_id": "same"}),
            );
        }
        assert_eq!(user.get("k"), std::slice::from_ref(&user.name));
    }
}

#[test]
fn a_user_added_again_sees_nothing_of_the_former_one() {
    let home = Home::new();
    let node = home.start();
    let (ann, bob) = (node.user("ann"), node.user("bob"));
    for index in 0..50 {
        ann.add(&format!("key {index}"), "secret");
        bob.add(&format!("key {index}"), "of bob");
    }
    ann.add_part("key 0", "half a secret, ");
    node.admin().remove_user("ann");
    assert_eq!(ann.post("/get_value", json!({"key": "key 0"})).status, 401);

    let new = Caller::new(node.addr(), "ann", &password_hash("another"));
    add_when_removed(&node.admin(), &new);
    assert!(new.keys("", 1000).is_empty());
    assert!(new.get("key 7").is_empty() && new.count("key 7") == 0);
    new.add("key 0", "fresh");
    assert_eq!(new.get("key 0"), ["fresh"]);
    assert_eq!(ann.post("/get_value", json!({"key": "key 0"})).status, 401);

    // Nor after a restart, and the other user kept everything.
    drop(node);
    let node = home.start();
    assert_eq!(new.at(node.addr()).keys("", 1000), ["key 0"]);
    let bob = bob.at(node.addr());
    assert_eq!(bob.keys("", 7).len(), 50);
    assert_eq!(bob.get("key 49"), ["of bob"]);
}

/// The name is free once the removal has gone through all keys; until then the answer says so.
fn add_when_removed(admin: &Caller, user: &Caller) {
    let body = json!({"name": user.name, "password_hash": user.hash});
    loop {
        let response = admin.post("/users/add", body.clone());
        match response.status {
            200 => return,
            409 => std::thread::sleep(std::time::Duration::from_millis(20)),
            _ => panic!("{} {}", response.status, response.text()),
        }
    }
}

#[test]
fn only_an_admin_changes_users_and_a_user_changes_the_own_password() {
    let home = Home::new();
    let node = home.start();
    let (ann, bob) = (node.user("ann"), node.user("bob"));
    for (path, body) in [
        ("/users/add", json!({"name": "eve", "password_hash": "x"})),
        ("/users/remove", json!({"name": "bob"})),
        ("/users/passwd", json!({"name": "bob", "password_hash": "x"})),
        ("/users/list", json!({})),
    ] {
        let response = ann.post(path, body);
        assert_eq!(response.status, 403, "{path}: {}", response.text());
    }
    bob.add("k", "v");
    ann.call("/users/passwd", json!({"name": "ann", "password_hash": "new"}));
    assert_eq!(ann.post("/get_value", json!({"key": "k"})).status, 401);
    assert!(Caller::new(node.addr(), "ann", "new").get("k").is_empty());
    assert_eq!(bob.get("k"), ["v"]);
}
