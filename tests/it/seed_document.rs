//! Every command and every API example of the original product's document, as printed there.

use std::process::Command;

use crate::common::http::{Response, send};
use crate::common::{ADMIN, ADMIN_PASSWORD, Home, Node, kv, run, said};
use serde_json::{Value, json};

fn post(node: &Node, path: &str, body: &str) -> Response {
    send(node.addr(), "POST", path, body.as_bytes()).unwrap()
}

fn answer(node: &Node, path: &str, body: &str) -> Value {
    let response = post(node, path, body);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()
}

const ADD_VALUE: &str = r#"{
  "key": "example",
  "value": "some data",
  "finish_value": true,
  "user": {
    "user_id": "123",
    "password_hash": "abc123"
  }
}"#;

const GET_VALUE: &str = r#"{
  "key": "example",
  "user": {
    "user_id": "123",
    "password_hash": "abc123"
  }
}"#;

/// The same body is printed for both calls.
const CLEAR_KEY: &str = GET_VALUE;

#[test]
fn the_examples_of_the_api_work_as_printed() {
    let home = Home::new();
    let node = home.start();
    node.admin().add_user("123", "abc123");

    assert_eq!(answer(&node, "/add_value", ADD_VALUE), json!({"status": "OK"}));
    let printed = json!({"key": "example", "value": ["some data"]});
    assert_eq!(answer(&node, "/get_value", GET_VALUE), printed);
    assert_eq!(answer(&node, "/clear_key", CLEAR_KEY), json!({"status": "OK"}));
    assert_eq!(
        answer(&node, "/get_value", GET_VALUE),
        json!({"key": "example", "value": []})
    );
    assert_eq!(answer(&node, "/clear_key", CLEAR_KEY), json!({"status": "OK"}));
}

#[test]
fn values_are_assembled_from_parts_and_unfinished_ones_do_not_show() {
    let home = Home::new();
    let node = home.start();
    node.admin().add_user("123", "abc123");
    let part = ADD_VALUE.replace("true", "false");

    assert_eq!(answer(&node, "/add_value", &part), json!({"status": "IN_PROGRESS"}));
    assert_eq!(answer(&node, "/get_value", GET_VALUE)["value"], json!([]));
    assert_eq!(answer(&node, "/add_value", ADD_VALUE), json!({"status": "OK"}));
    assert_eq!(
        answer(&node, "/get_value", GET_VALUE)["value"],
        json!(["some datasome data"])
    );

    answer(&node, "/add_value", &part);
    answer(&node, "/clear_key", CLEAR_KEY);
    answer(&node, "/add_value", ADD_VALUE);
    assert_eq!(answer(&node, "/get_value", GET_VALUE)["value"], json!(["some data"]));
}

#[test]
fn a_key_holds_the_list_of_all_its_values() {
    let home = Home::new();
    let node = home.start();
    node.admin().add_user("123", "abc123");
    for value in [
        "some data",
        "more",
        "more",
        "\\u0000 \\\"quoted\\\" \\uD83D\\uDE00 данные",
    ] {
        answer(&node, "/add_value", &ADD_VALUE.replace("some data", value));
    }
    let values = json!(["some data", "more", "more", "\0 \"quoted\" 😀 данные"]);
    assert_eq!(answer(&node, "/get_value", GET_VALUE)["value"], values);
}

#[test]
fn every_request_is_checked_for_its_user() {
    let home = Home::new();
    let node = home.start();
    node.admin().add_user("123", "abc123");
    answer(&node, "/add_value", ADD_VALUE);
    let wrong_password = |body: &str| body.replace("abc123", "abc124");
    let wrong_user = |body: &str| body.replace("\"123\"", "\"124\"");
    let calls = [
        ("/add_value", ADD_VALUE),
        ("/get_value", GET_VALUE),
        ("/clear_key", CLEAR_KEY),
    ];
    for (path, body) in calls {
        for body in [wrong_password(body), wrong_user(body)] {
            let response = post(&node, path, &body);
            assert_eq!(response.status, 401);
            assert_eq!(response.json(), json!({"detail": "Invalid user_id or password"}));
        }
    }
    assert_eq!(answer(&node, "/get_value", GET_VALUE)["value"], json!(["some data"]));
}

#[test]
fn a_body_that_is_not_what_the_call_takes_is_named_field_by_field() {
    let home = Home::new();
    let node = home.start();
    let response = post(
        &node,
        "/add_value",
        r#"{"key": 5, "finish_value": "maybe", "user": {"user_id": "123"}}"#,
    );
    assert_eq!(response.status, 422);
    let detail = response.json()["detail"].clone();
    for loc in [
        json!(["body", "key"]),
        json!(["body", "value"]),
        json!(["body", "finish_value"]),
        json!(["body", "user", "password_hash"]),
    ] {
        let entry = detail.as_array().unwrap().iter().find(|entry| entry["loc"] == loc);
        let entry = entry.unwrap_or_else(|| panic!("no entry for {loc} in {detail}"));
        assert!(entry["msg"].is_string() && entry["type"].is_string(), "{entry}");
    }
}

/// A command line of the document: `python cli_interface.py WORDS…` is now `kv WORDS…`.
fn cli(node: &Node, words: &[&str]) -> String {
    let mut command: Command = kv();
    command
        .args(words)
        .env("KV_URL", node.url())
        .env("KV_USER", ADMIN)
        .env("KV_PASSWORD", ADMIN_PASSWORD);
    let output = run(command);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_of_the_cli_work_as_printed() {
    let home = Home::new();
    let node = home.start();
    cli(&node, &["add_value", "my_key", "my_value"]);
    cli(&node, &["add_value_part", "my_key", "partial_value"]);
    assert_eq!(cli(&node, &["get_value", "my_key"]), "my_value\n");
    cli(&node, &["clear_key", "my_key"]);
    assert_eq!(cli(&node, &["get_value", "my_key"]), "");

    cli(&node, &["add_value", "test_key", "test_value"]);
    assert_eq!(cli(&node, &["get_value", "test_key"]), "test_value\n");
    cli(&node, &["clear_key", "test_key"]);
    cli(&node, &["add_value_part", "test_key", "part_value"]);
    cli(&node, &["add_value", "test_key", "test_value"]);
    assert_eq!(cli(&node, &["get_value", "test_key"]), "part_valuetest_value\n");
}
