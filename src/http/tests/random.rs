//! Bodies of all kinds: what the table of fields faults is what is refused, and nothing else.

use hyper::Method;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use super::rig::{Rig, request};
use crate::http::faults_of_body;
use crate::http::route::Call;

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..20_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z\"\\\\ж]{0,3}".prop_map(Value::from),
        prop::sample::select(vec!["add_value", "get_value", "clear_key", "quorum", "one"]).prop_map(Value::from),
        prop::sample::select(vec![0usize, 1, 256, 257, 1024, 1025]).prop_map(|bytes| Value::from("x".repeat(bytes))),
    ]
}

fn field() -> impl Strategy<Value = String> {
    let names = [
        "key",
        "value",
        "finish_value",
        "request_id",
        "offset",
        "limit",
        "count_only",
        "consistency",
        "deadline_ms",
        "prefix",
        "after",
        "user",
        "user_id",
        "password_hash",
        "name",
        "admin",
        "node",
        "old",
        "new",
        "op",
        "operations",
        "other",
    ];
    prop::sample::select(names.to_vec()).prop_map(str::to_owned)
}

fn any_value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((field(), inner), 0..8).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn good() -> Value {
    json!({
        "key": "k", "value": "v", "name": "n", "node": "a", "old": "a", "new": "b", "password_hash": "p", "limit": 1,
        "user": {"user_id": "root", "password_hash": "secret"},
        "operations": [{"op": "add_value", "key": "k", "value": "v"}, {"op": "get_value", "key": "k"}],
    })
}

/// A good body with some fields replaced, at the top and in an operation; or anything.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let changes = || prop::collection::vec((field(), any_value()), 0..3);
    let changed = (changes(), changes()).prop_map(|(top, inner)| {
        let mut body = good();
        for (name, value) in inner {
            body["operations"][0][name] = value;
        }
        for (name, value) in top {
            body[name] = value;
        }
        body
    });
    let json = prop_oneof![4 => changed, 1 => any_value()];
    (
        json,
        prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(json, broken)| {
            let mut bytes = json.to_string().into_bytes();
            if let Some((at, byte)) = broken {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
}

#[test]
fn a_body_is_refused_exactly_for_faults_of_the_table() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let rig = runtime.block_on(async { Rig::in_memory(Default::default()) });
    let calls: Vec<Call> = Call::ALL.into_iter().filter(|call| call.shape().is_some()).collect();
    let mut runner = TestRunner::new(Config {
        cases: 600,
        failure_persistence: None,
        ..Config::default()
    });
    let bodies = (prop::sample::select(calls), any_body());
    let check = |(call, body): (Call, Vec<u8>)| {
        let reply = runtime.block_on(rig.send(request(Method::POST, call.path(), body.clone().into())));
        let faults = faults_of_body(call.path(), &body);
        let text = String::from_utf8_lossy(&body);
        prop_assert_eq!(
            reply.status == 422,
            !faults.is_empty(),
            "{:?} {} {:?} {}",
            call,
            text,
            faults,
            reply.text()
        );
        prop_assert!(reply.status != 500);
        if reply.status == 422 {
            prop_assert_eq!(&reply.json()["detail"], &json!(faults));
        }
        Ok(())
    };
    runner.run(&bodies, check).unwrap();
}
