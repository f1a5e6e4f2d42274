//! The original product's client logic, with another node for every request.

use serde_json::{Value, json};

use super::rig::Cluster;
use crate::common::calls::Caller;
use crate::common::{ADMIN, ADMIN_PASSWORD, kv, run, said};

/// Sends each request to the next node.
struct Around<'a> {
    cluster: &'a Cluster,
    caller: Caller,
    next: usize,
}

impl Around<'_> {
    fn call(&mut self, path: &str, body: Value) -> Value {
        let index = self.next % 3;
        self.next += 1;
        self.caller.at(self.cluster.http(index)).call(path, body)
    }

    fn add(&mut self, value: &str, finish: bool) {
        let answer = self.call(
            "/add_value",
            json!({"key": "example", "value": value, "finish_value": finish}),
        );
        let status = if finish { "OK" } else { "IN_PROGRESS" };
        assert_eq!(answer, json!({"status": status}));
    }

    fn sees(&mut self, values: &[&str]) {
        // At each node.
        for _ in 0..3 {
            let answer = self.call("/get_value", json!({"key": "example"}));
            assert_eq!(answer, json!({"key": "example", "value": values}));
        }
    }

    fn clear(&mut self) {
        assert_eq!(
            self.call("/clear_key", json!({"key": "example"})),
            json!({"status": "OK"})
        );
    }
}

#[test]
fn the_original_logic_holds_when_every_request_goes_to_another_node() {
    let cluster = Cluster::new();
    cluster.admin(1).add_user("123", "abc123");
    cluster.admin(2).add_user("124", "abc124");
    let around = |name: &str, hash: &str, next: usize| Around {
        cluster: &cluster,
        caller: Caller::new(cluster.http(0), name, hash),
        next,
    };
    let mut one = around("123", "abc123", 0);
    let mut other = around("124", "abc124", 1);

    one.add("some data", true);
    one.sees(&["some data"]);
    other.sees(&[]);
    other.add("of the other", false);
    one.add("a", false);
    one.add("b", false);
    one.sees(&["some data"]);
    one.add("c", true);
    other.add(", in parts", true);
    one.sees(&["some data", "abc"]);
    other.sees(&["of the other, in parts"]);
    one.add("left over", false);
    one.clear();
    one.sees(&[]);
    one.clear();
    one.add("anew", true);
    one.sees(&["anew"]);
    other.sees(&["of the other, in parts"]);

    // Each request is checked for its user, wherever it goes.
    for index in 0..3 {
        let wrong = Caller::new(cluster.http(index), "123", "abc124");
        let response = wrong.post("/get_value", json!({"key": "example"}));
        assert_eq!(
            (response.status, response.json()),
            (401, json!({"detail": "Invalid user_id or password"}))
        );
    }
    // The node that removes a user, and one that never saw it, know it no more at once; the others within a minute.
    cluster.admin(0).add_user("125", "abc125");
    Caller::new(cluster.http(1), "125", "abc125").add("example", "value");
    cluster.admin(0).remove_user("125");
    for index in [0, 2] {
        let gone = Caller::new(cluster.http(index), "125", "abc125");
        assert_eq!(gone.post("/get_value", json!({"key": "example"})).status, 401);
    }

    // The commands, as the document prints them.
    let mut turn = 0;
    let mut cli = |words: &[&str]| {
        turn += 1;
        let mut command = kv();
        command.args(words).env("KV_URL", cluster.url(turn % 3));
        command.env("KV_USER", ADMIN).env("KV_PASSWORD", ADMIN_PASSWORD);
        let output = run(command);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    cli(&["add_value", "my_key", "my_value"]);
    cli(&["add_value_part", "my_key", "partial_value"]);
    assert_eq!(cli(&["get_value", "my_key"]), "my_value\n");
    cli(&["clear_key", "my_key"]);
    assert_eq!(cli(&["get_value", "my_key"]), "");
    cli(&["add_value_part", "test_key", "part_value"]);
    cli(&["add_value", "test_key", "test_value"]);
    assert_eq!(cli(&["get_value", "test_key"]), "part_valuetest_value\n");
}
