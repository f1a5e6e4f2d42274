//! The description of the API, OpenAPI 3.1: built from the same constants and the same table of fields that requests are
//! checked by.

mod schemas;

use serde_json::{Map, Value, json};

use crate::api::{BATCH_ANSWER_BYTES_MAX, BATCH_OPERATIONS_MAX};
use crate::types::{BODY_BYTES_MAX, KEY_BYTES_MAX, PASSWORD_HASH_BYTES_MAX, VALUE_BYTES_MAX};

use super::config::{H2_HEADER_LIST_BYTES_MAX, H2_STREAMS_MAX, HEAD_BYTES_MAX};
use super::metrics;
use super::route::{COUNTS, Call};
use super::shape::{self, Field, Kind, Presence, Shape};

const SHAPES: [&Shape; 14] = [
    &shape::USER,
    &shape::ADD_VALUE,
    &shape::GET_VALUE,
    &shape::CLEAR_KEY,
    &shape::LIST_KEYS,
    &shape::BATCH,
    &shape::OPERATION,
    &shape::USERS_LIST,
    &shape::USERS_ADD,
    &shape::USERS_REMOVE,
    &shape::USERS_PASSWD,
    &shape::CLUSTER_STATUS,
    &shape::CLUSTER_REMOVE,
    &shape::CLUSTER_REPLACE,
];

/// The whole document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for call in Call::ALL.into_iter().filter(|call| *call != Call::Unknown) {
        paths.insert(call.path().to_owned(), path_item(call));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "KV-Storage",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": format!(
                "A key holds a list of text values, per user. Limits: key {KEY_BYTES_MAX} bytes of UTF-8, body of one \
                 request {BODY_BYTES_MAX} bytes, one value assembled from parts {VALUE_BYTES_MAX} bytes, \
                 `password_hash` {PASSWORD_HASH_BYTES_MAX} bytes, head of a request {HEAD_BYTES_MAX} bytes \
                 ({H2_HEADER_LIST_BYTES_MAX} bytes over HTTP/2; 431 beyond), {BATCH_OPERATIONS_MAX} operations and \
                 {BATCH_ANSWER_BYTES_MAX} bytes of values read a batch. `maxLength` counts bytes of UTF-8. Unknown \
                 fields are ignored; null for an optional field counts as absent. Any content type is taken as JSON. \
                 Over one connection of HTTP/2, {H2_STREAMS_MAX} requests at a time; one that is reset with `REFUSED_STREAM` was \
                 not carried out, as the node was overloaded."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": schemas::schemas(),
            "securitySchemes": {"basic": {
                "type": "http", "scheme": "basic",
                "description": "`user_id:password_hash`; instead of `user` in the body. Not for a `user_id` with a colon in it.",
            }},
        },
    })
}

fn path_item(call: Call) -> Value {
    let mut responses = Map::new();
    for status in statuses(call) {
        responses.insert(status.to_string(), response(call, *status));
    }
    let mut operation = json!({
        "operationId": call.name().replace(['/', '.'], "_"),
        "summary": summary(call),
        "responses": responses,
    });
    if call == Call::Readyz {
        operation["parameters"] = json!([{
            "name": COUNTS, "in": "query", "required": false, "allowEmptyValue": true, "schema": {"type": "string"},
            "description": "Whether the node's word has to count, whatever its value.",
        }]);
    }
    let Some(shape) = call.shape() else {
        let mut head = operation.clone();
        head["operationId"] = json!(format!("head_{}", call.name().replace('.', "_")));
        return json!({"get": operation, "head": head});
    };
    operation["security"] = json!([{}, {"basic": []}]);
    operation["requestBody"] =
        json!({"required": true, "content": {"application/json": {"schema": reference(shape.name)}}});
    json!({"post": operation})
}

fn summary(call: Call) -> &'static str {
    match call {
        Call::AddValue => "Adds a value, or a part of one, to a key's list; durable when answered.",
        Call::GetValue => "A key's finished values, in order; an unknown key has none. Large lists are streamed.",
        Call::ClearKey => "Empties a key, unfinished parts too; an unknown key as well.",
        Call::ListKeys => "The user's keys that hold a value, in the order of their bytes, page by page.",
        Call::Batch => "Many operations in one body, with one result each, in their order.",
        Call::UsersList => "All users. For admins.",
        Call::UsersAdd => "Adds a user. For admins.",
        Call::UsersRemove => "Removes a user with all of their keys. For admins.",
        Call::UsersPasswd => "Changes a user's password: one's own, or as an admin anyone's.",
        Call::ClusterStatus => "The cluster's members, as this node sees them. For admins.",
        Call::ClusterRemove => "Takes a node out of the cluster, for good. For admins.",
        Call::ClusterReplace => "Gives the place of a lost node to an empty one. For admins.",
        Call::Healthz => "Whether the process serves.",
        Call::Readyz => {
            "Whether the node serves: every shard does, in a cluster it is a member, and it is not shutting down. With `?counts`, \
             whether its word counts as well, for all that it holds: what to wait for before another node is stopped."
        }
        Call::Metrics => "What the node counts, in the OpenMetrics text format that Prometheus reads.",
        Call::OpenApi => "This document.",
        Call::Unknown => "",
    }
}

/// Every status that a call may be answered with.
pub(super) fn statuses(call: Call) -> &'static [u16] {
    match call {
        Call::AddValue | Call::ClearKey => &[200, 400, 401, 405, 408, 409, 413, 415, 422, 431, 500, 503, 507],
        Call::Batch => &[200, 400, 401, 405, 408, 413, 415, 422, 431, 500, 503, 507],
        Call::GetValue | Call::ListKeys => &[200, 400, 401, 405, 408, 413, 415, 422, 431, 500, 503],
        Call::UsersList => &[200, 400, 401, 403, 405, 408, 413, 415, 422, 431, 500, 503],
        Call::UsersAdd => &[200, 400, 401, 403, 405, 408, 409, 413, 415, 422, 431, 500, 503, 507],
        Call::ClusterStatus => &[200, 400, 401, 403, 405, 408, 409, 413, 415, 422, 431, 500, 503],
        Call::UsersRemove | Call::UsersPasswd | Call::ClusterRemove | Call::ClusterReplace => &[
            200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 431, 500, 503, 507,
        ],
        Call::Readyz => &[200, 405, 431, 503],
        // The 503 is of a connection more than the node takes, which is refused before it says what it wants.
        Call::Healthz | Call::Metrics | Call::OpenApi => &[200, 405, 431, 503],
        Call::Unknown => &[404],
    }
}

fn response(call: Call, status: u16) -> Value {
    let on_cluster = matches!(call, Call::ClusterStatus | Call::ClusterRemove | Call::ClusterReplace);
    let about = match status {
        200 => "Done.".to_owned(),
        400 => "The body broke off; or the request is not HTTP, and this comes without a body.".to_owned(),
        401 => "Invalid user_id or password; the same for an unknown user and a wrong password.".to_owned(),
        403 => "Only an admin may do this.".to_owned(),
        404 if on_cluster => "There is no such node.".to_owned(),
        404 => "There is no such user.".to_owned(),
        405 => "The path takes another method; see `Allow`.".to_owned(),
        408 => "The body did not arrive in time.".to_owned(),
        409 if on_cluster => {
            "The node that answers is not part of a cluster, or it cannot be done as things are.".to_owned()
        }
        409 if matches!(call, Call::AddValue | Call::ClearKey) => {
            "The `request_id` was used for another add or clear of this key; nothing was changed.".to_owned()
        }
        409 => {
            "The user exists already, is being removed, or is the last admin; or something is stored under the name."
                .to_owned()
        }
        413 => format!(
            "The body is larger than {BODY_BYTES_MAX} bytes, or a value would grow beyond {VALUE_BYTES_MAX} bytes."
        ),
        415 => "The body has a Content-Encoding, which no call takes.".to_owned(),
        422 => "The body is not what the call takes; `detail` has an entry for each bad field.".to_owned(),
        431 => format!("The head is larger than {HEAD_BYTES_MAX} bytes; the connection is closed."),
        500 => "The data asked for is damaged, or the disk failed.".to_owned(),
        503 => unavailable(call),
        507 => "The disk is full: adds are refused until space returns; reads and clear_key go on.".to_owned(),
        _ => String::new(),
    };
    let mut response = json!({"description": about});
    match (status, call) {
        // hyper answers these by itself, without a body.
        (431, _) => {}
        (200, Call::Metrics) => {
            response["content"] = json!({metrics::CONTENT_TYPE: {"schema": {"type": "string"}}});
        }
        (200, _) => response["content"] = json!({"application/json": {"schema": answer(call)}}),
        (500.., _) => response["content"] = json!({"application/json": {"schema": reference("Outage")}}),
        _ => response["content"] = json!({"application/json": {"schema": reference("Error")}}),
    }
    let header = |about: &str, schema: Value| json!({"description": about, "schema": schema});
    match status {
        401 => response["headers"] = json!({"WWW-Authenticate": header("Basic.", json!({"type": "string"}))}),
        405 => response["headers"] = json!({"Allow": header("The methods taken.", json!({"const": call.allow()}))}),
        503 => {
            let seconds = json!({"type": "integer", "minimum": 0});
            response["headers"] = json!({"Retry-After": header("Seconds.", seconds)});
        }
        _ => {}
    }
    response
}

fn unavailable(call: Call) -> String {
    let effect = match call {
        Call::Readyz => {
            return "The node does not serve yet, or no more, or its disk hangs; the detail says why.".to_owned();
        }
        Call::AddValue | Call::ClearKey | Call::Batch => {
            " The detail says when the request may have taken effect; a retry with the same `request_id` is safe."
        }
        Call::UsersAdd | Call::UsersRemove | Call::UsersPasswd => {
            " It may have taken effect: `/users/list` tells what came of it."
        }
        Call::ClusterRemove | Call::ClusterReplace => {
            " It may have taken effect: asked for again, what is done answers OK."
        }
        _ => "",
    };
    format!(
        "The node is overloaded, was not let into its cluster or was removed, a part of it is restarting, or too few replicas answered in time: \
         retry after the seconds in `Retry-After`.{effect}"
    )
}

fn answer(call: Call) -> Value {
    match call {
        Call::AddValue => json!({"oneOf": [reference("Ok"), reference("InProgress")]}),
        Call::GetValue => json!({"oneOf": [reference("Values"), reference("Count")]}),
        Call::ListKeys => reference("KeyList"),
        Call::Batch => reference("BatchResults"),
        Call::UsersList => reference("UserEntries"),
        Call::ClusterStatus => reference("ClusterStatus"),
        Call::OpenApi => json!({"type": "object"}),
        _ => reference("Ok"),
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn shape_schema(shape: &Shape) -> Value {
    let mut properties = Map::new();
    for field in shape.fields {
        properties.insert(field.name.to_owned(), field_schema(field));
    }
    let named = |presence: fn(&Presence) -> bool| -> Vec<&str> {
        shape
            .fields
            .iter()
            .filter(|field| presence(&field.presence))
            .map(|field| field.name)
            .collect()
    };
    let mut schema = json!({
        "type": "object",
        "required": named(|presence| *presence == Presence::Required),
        "properties": properties,
    });
    let for_op = named(|presence| matches!(presence, Presence::ForOp(_)));
    let op = shape.fields.iter().find_map(|field| match field.presence {
        Presence::ForOp(op) => Some(op),
        _ => None,
    });
    if let Some(op) = op {
        schema["if"] = json!({"properties": {"op": {"const": op}}});
        schema["then"] = json!({"required": for_op});
    }
    schema
}

fn field_schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Text { min, max } => {
            let mut schema = json!({"type": "string", "minLength": min});
            if let Some(max) = max {
                schema["maxLength"] = json!(max);
            }
            schema
        }
        Kind::Flag { default } => json!({"type": "boolean", "default": default}),
        Kind::Number { min, max, .. } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::OneOf { names, .. } => json!({"type": "string", "enum": names}),
        Kind::Object(shape) => reference(shape.name),
        Kind::Operations { max } => {
            json!({"type": "array", "items": reference(shape::OPERATION.name), "maxItems": max})
        }
    };
    let limit = match field.kind {
        Kind::Text { max: Some(max), .. } => format!(" At most {max} bytes of UTF-8."),
        Kind::Text { max: None, .. } => {
            format!(" Limited by the body's {BODY_BYTES_MAX} bytes; larger ones go in parts.")
        }
        Kind::Operations { max } => format!(" At most {max}."),
        Kind::Number {
            max,
            default: Some(default),
            ..
        } => {
            schema["default"] = json!(default);
            format!(" At most {max}; {default} when left out.")
        }
        Kind::OneOf {
            default: Some(default), ..
        } => {
            schema["default"] = json!(default);
            format!(" `{default}` when left out.")
        }
        _ => String::new(),
    };
    schema["description"] = json!(format!("{}{limit}", field.about));
    schema
}
