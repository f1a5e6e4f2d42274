//! What the answers look like, by name; those of bodies come from `shape`.

use serde_json::{Map, Value, json};

use super::{SHAPES, reference, shape_schema};

pub(super) fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    for shape in SHAPES {
        schemas.insert(shape.name.to_owned(), shape_schema(shape));
    }
    answer_schemas(&mut schemas);
    user_schemas(&mut schemas);
    cluster_schemas(&mut schemas);
    error_schemas(&mut schemas);
    schemas
}

fn object(schemas: &mut Map<String, Value>, name: &str, required: &[&str], properties: Value) {
    let schema = json!({"type": "object", "required": required, "properties": properties});
    schemas.insert(name.to_owned(), schema);
}

fn text() -> Value {
    json!({"type": "string"})
}

fn answer_schemas(schemas: &mut Map<String, Value>) {
    let text = text();
    object(
        schemas,
        "Ok",
        &["status"],
        json!({"status": {"const": crate::api::STATUS_OK}}),
    );
    object(
        schemas,
        "InProgress",
        &["status"],
        json!({"status": {"const": crate::api::STATUS_IN_PROGRESS}}),
    );
    object(
        schemas,
        "Values",
        &["key", "value"],
        json!({"key": text, "value": {"type": "array", "items": text}}),
    );
    object(
        schemas,
        "Count",
        &["key", "count"],
        json!({"key": text, "count": {"type": "integer", "minimum": 0}}),
    );
    let after = "Set when more keys may follow, also after a page of none: what the next call passes as `after`.";
    object(
        schemas,
        "KeyList",
        &["keys"],
        json!({"keys": {"type": "array", "items": text}, "after": {"type": "string", "description": after}}),
    );
    let result = "The answer of the operation with its `status_code`; for an error, `detail`, and from 500 on what `Outage` has.";
    object(
        schemas,
        "BatchResults",
        &["results"],
        json!({"results": {"type": "array", "items": {
            "type": "object", "description": result, "required": ["status_code"],
            "properties": {
                "status_code": {"type": "integer"}, "detail": {"type": "string"},
                "code": {"type": "string"}, "may_have_taken_effect": {"type": "boolean"},
            },
        }}}),
    );
}

fn user_schemas(schemas: &mut Map<String, Value>) {
    let text = text();
    object(
        schemas,
        "UserEntry",
        &["user_id", "admin"],
        json!({"user_id": text, "admin": {"type": "boolean"}}),
    );
    object(
        schemas,
        "UserEntries",
        &["users"],
        json!({"users": {"type": "array", "items": reference("UserEntry")}}),
    );
}

fn cluster_schemas(schemas: &mut Map<String, Value>) {
    let text = text();
    let count = json!({"type": "integer", "minimum": 0});
    let members = json!({"type": "array", "items": reference("Member")});
    object(
        schemas,
        "ClusterStatus",
        &["cluster", "node", "replication", "members"],
        json!({"cluster": text, "node": text, "replication": count, "members": members}),
    );
    let per_s = |what: &str| json!({"type": "number", "minimum": 0, "description": format!("{what} that came from other replicas, a second.")});
    object(
        schemas,
        "Member",
        &["node", "peer", "http", "zone", "weight", "state", "alive", "slots"],
        json!({
            "node": {"type": "string", "description": "16 hexadecimal digits."},
            "peer": {"type": "string", "description": "Where the other nodes reach it."},
            "http": {"type": "string", "description": "Where clients reach it."},
            "zone": text,
            "weight": count,
            "state": {"type": "string", "enum": crate::api::MemberState::NAMES},
            "alive": {"type": "boolean", "description": "Whether it is heard of now."},
            "slots": count,
            "lag_ops": {"type": "integer", "minimum": 0, "description": "Ops that it lacks of what any other member has. This and what follows is absent where it cannot be known."},
            "lag_bytes": {"type": "integer", "minimum": 0, "description": "An estimate: as many times the mean size of an op."},
            "lag_seconds": {"type": "number", "minimum": 0, "description": "Since it last lacked nothing, or since its start."},
            "unsynced_slots": {"type": "integer", "minimum": 0, "description": "Slots for which its word does not count: it is new or damaged there, or was just started."},
            "quorum_failures": {"type": "integer", "minimum": 0, "description": "Clients' requests on keys, sent to this node, for which too few replicas answered, since its start."},
            "stream_ops_per_s": per_s("Ops"),
            "stream_bytes_per_s": per_s("Bytes"),
            "clock_skew_ms": {"type": "integer", "description": "Positive when its clock is ahead of the answering node's."},
            "quarantined_segments": count,
        }),
    );
}

fn error_schemas(schemas: &mut Map<String, Value>) {
    let text = text();
    let step = json!({"oneOf": [text, {"type": "integer"}]});
    object(
        schemas,
        "FieldError",
        &["loc", "msg", "type"],
        json!({"loc": {"type": "array", "items": step}, "msg": text, "type": text}),
    );
    let fields = json!({"type": "array", "items": reference("FieldError"), "maxItems": crate::api::FIELD_ERRORS_MAX});
    object(
        schemas,
        "Error",
        &["detail"],
        json!({"detail": {"oneOf": [text, fields]}}),
    );
    object(
        schemas,
        "Outage",
        &["detail", "code", "may_have_taken_effect"],
        json!({
            "detail": text,
            "code": {"type": "string", "enum": crate::api::OutageCode::NAMES},
            "may_have_taken_effect": {"type": "boolean", "description": "False when nothing was changed, for certain. If true: a retry with the same `request_id` is safe, one without may count twice."},
        }),
    );
}
