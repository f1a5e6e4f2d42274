//! `/openapi.json` against what the front does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::rig::{Rig, request, with_admin};
use crate::http::openapi::statuses;
use crate::http::openapi_document;
use crate::http::route::Call;

fn shape_of(document: &Value, call: Call) -> Value {
    let body = &document["paths"][call.path()]["post"]["requestBody"]["content"]["application/json"]["schema"];
    resolve(document, body)
}

fn resolve(document: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .expect(reference)
            .clone(),
        None => schema.clone(),
    }
}

fn bodied() -> impl Iterator<Item = Call> {
    Call::ALL.into_iter().filter(|call| call.shape().is_some())
}

/// A body that the call accepts.
fn good(call: Call) -> Value {
    with_admin(match call {
        Call::AddValue => json!({"key": "k", "value": "v"}),
        Call::GetValue | Call::ClearKey => json!({"key": "k"}),
        Call::Batch => json!({"operations": []}),
        Call::UsersAdd | Call::UsersPasswd => json!({"name": "n", "password_hash": "p"}),
        Call::UsersRemove => json!({"name": "n"}),
        Call::ClusterRemove => json!({"node": "00000000000000aa"}),
        Call::ClusterReplace => json!({"old": "00000000000000aa", "new": "00000000000000bb"}),
        _ => json!({}),
    })
}

#[tokio::test]
async fn every_path_and_method_that_is_described_exists_and_the_reverse() {
    let rig = Rig::start();
    let document = rig.get("/openapi.json").await.json();
    assert_eq!(document, openapi_document());
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), Call::ALL.len() - 1);
    for call in Call::ALL.into_iter().filter(|call| *call != Call::Unknown) {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
            let described = paths[call.path()].get(method.as_str().to_lowercase()).is_some();
            let status = rig
                .send(request(method.clone(), call.path(), Bytes::new()))
                .await
                .status;
            assert_eq!(described, status != 405, "{method} {}", call.path());
            assert_ne!(status, 404);
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, at: &Value) {
        resolve(document, at);
        match at {
            Value::Object(fields) => fields.values().for_each(|value| walk(document, value)),
            Value::Array(items) => items.iter().for_each(|value| walk(document, value)),
            _ => {}
        }
    }
    let document = openapi_document();
    walk(&document, &document);
}

#[test]
fn every_status_of_a_call_is_described() {
    let document = openapi_document();
    for call in Call::ALL.into_iter().filter(|call| *call != Call::Unknown) {
        for (_, operation) in document["paths"][call.path()].as_object().unwrap() {
            let described: Vec<u16> = operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .map(|status| status.parse().unwrap())
                .collect();
            assert_eq!(described, statuses(call));
        }
    }
}

#[tokio::test]
async fn what_is_required_is_what_an_empty_body_is_said_to_lack() {
    let rig = Rig::start();
    let document = openapi_document();
    for call in bodied() {
        let mut expected = shape_of(&document, call)["required"].as_array().unwrap().clone();
        let basic = format!("Basic {}", STANDARD.encode("root:secret"));
        let mut asked = request(Method::POST, call.path(), "{}".into());
        asked.headers_mut().insert("authorization", basic.parse().unwrap());
        assert_eq!(lacking(&rig.send(asked).await), expected, "{}", call.path());
        expected.push(json!("user"));
        assert_eq!(
            lacking(&rig.post(call.path(), &json!({})).await),
            expected,
            "{}",
            call.path()
        );
    }
    let nested = json!({"operations": [{}, {"op": "add_value"}], "user": {}});
    let reply = rig.post("/batch", &nested).await;
    let required = |name: &str| {
        document["components"]["schemas"][name]["required"]
            .as_array()
            .unwrap()
            .clone()
    };
    let of = |prefix: Value| -> Vec<Value> {
        let prefix = prefix.as_array().unwrap();
        let detail = reply.json()["detail"].as_array().unwrap().clone();
        let locs = detail.iter().map(|fault| fault["loc"].as_array().unwrap().clone());
        locs.filter(|loc| loc.starts_with(prefix))
            .map(|loc| loc.last().unwrap().clone())
            .collect()
    };
    assert_eq!(of(json!(["body", "user"])), required("User"));
    assert_eq!(of(json!(["body", "operations", 0])), required("Operation"));
    let then = &document["components"]["schemas"]["Operation"]["then"]["required"];
    assert_eq!(of(json!(["body", "operations", 1])), [json!("key"), then[0].clone()]);
}

fn lacking(reply: &super::rig::Reply) -> Vec<Value> {
    if reply.status != 422 {
        return Vec::new();
    }
    let detail = reply.json()["detail"].as_array().unwrap().clone();
    detail
        .iter()
        .filter(|fault| fault["type"] == "missing")
        .map(|fault| fault["loc"][1].clone())
        .collect()
}

/// Every field with a limit, and the pointer to where it goes in a body.
fn limited(document: &Value, schema: &Value, pointer: &str, found: &mut Vec<(String, Value)>) {
    for (name, field) in schema["properties"].as_object().unwrap() {
        let field_pointer = format!("{pointer}/{name}");
        let field = resolve(document, field);
        if field["properties"].is_object() {
            limited(document, &field, &field_pointer, found);
        } else {
            found.push((field_pointer, field));
        }
    }
}

#[tokio::test]
async fn limits_hold_exactly_where_they_are_described() {
    let rig = Rig::start();
    let document = openapi_document();
    let mut checked = 0;
    for call in bodied() {
        let mut fields = Vec::new();
        limited(&document, &shape_of(&document, call), "", &mut fields);
        for (pointer, schema) in fields {
            for (value, fits) in around(&schema) {
                let mut body = good(call);
                place(&mut body, &pointer, value);
                let status = rig.post(call.path(), &body).await.status;
                assert_eq!(status != 422, fits, "{} {pointer} {status}", call.path());
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "{checked}");
}

fn place(body: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[name] = value;
}

/// Values at and just beyond each limit of a field.
fn around(schema: &Value) -> Vec<(Value, bool)> {
    let number = |name: &str| schema[name].as_u64();
    let text = |bytes: u64| json!("x".repeat(bytes as usize));
    let operations = |count: u64| json!(vec![json!({"op": "get_value", "key": "k"}); count as usize]);
    let mut cases = Vec::new();
    if let Some(max) = number("maxLength") {
        cases.extend([(text(max), true), (text(max + 1), false)]);
    }
    if let Some(min) = number("minLength") {
        cases.push((text(min), true));
        cases.extend(min.checked_sub(1).map(|less| (text(less), false)));
    }
    if let Some(max) = number("maximum") {
        cases.push((json!(max), true));
        cases.extend(max.checked_add(1).map(|more| (json!(more), false)));
    }
    if let Some(min) = number("minimum") {
        cases.extend([(json!(min), true), (json!(min as i64 - 1), false)]);
    }
    if let Some(max) = number("maxItems") {
        cases.extend([(operations(max), true), (operations(max + 1), false)]);
    }
    cases
}

#[tokio::test]
async fn what_a_503_promises_is_what_the_call_can_keep() {
    let document = Rig::start().get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        let operation = item.get("post").or_else(|| item.get("get")).unwrap();
        let Some(about) = operation["responses"]["503"]["description"].as_str() else {
            continue;
        };
        let takes_id = ["/add_value", "/clear_key", "/batch"].contains(&path.as_str());
        assert_eq!(about.contains("request_id"), takes_id, "{path}: {about}");
        assert_eq!(about.contains("overloaded"), path != "/readyz", "{path}: {about}");
    }
}
