//! Which fields each body has, with their types and limits.
//!
//! Invariant: `explain` faults a body by this table exactly when the structs of `api` and the types of `types` refuse it;
//! `openapi` publishes the same table.

use crate::api::{
    BATCH_OPERATIONS_MAX, DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, LIST_KEYS_LIMIT_DEFAULT, LIST_KEYS_LIMIT_MAX,
};
use crate::types::{
    Consistency, KEY_BYTES_MAX, NODE_ID_TEXT_BYTES_MAX, PASSWORD_HASH_BYTES_MAX, REQUEST_ID_BYTES_MAX,
    USER_ID_BYTES_MAX,
};

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Bytes of UTF-8. Without a maximum, the size of the whole body is the limit.
    Text {
        min: usize,
        max: Option<usize>,
    },
    Flag {
        default: bool,
    },
    Number {
        min: u64,
        max: u64,
        /// What counts when it is left out, if that is a number.
        default: Option<u64>,
    },
    OneOf {
        names: &'static [&'static str],
        default: Option<&'static str>,
    },
    Object(&'static Shape),
    /// A list of operations.
    Operations {
        max: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Required,
    Optional,
    /// Required unless the request carries HTTP Basic credentials.
    UnlessBasic,
    /// Required in an operation with this `op`.
    ForOp(&'static str),
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub presence: Presence,
    pub kind: Kind,
    pub about: &'static str,
}

#[derive(Debug)]
pub struct Shape {
    /// Its name in `/openapi.json`.
    pub name: &'static str,
    pub fields: &'static [Field],
}

const fn field(name: &'static str, presence: Presence, kind: Kind, about: &'static str) -> Field {
    Field {
        name,
        presence,
        kind,
        about,
    }
}

use Presence::{ForOp, Optional, Required, UnlessBasic};

const KEY: Field = field(
    "key",
    Required,
    Kind::Text {
        min: 1,
        max: Some(KEY_BYTES_MAX),
    },
    "Names a list of values.",
);
const VALUE: Field = field(
    "value",
    Required,
    Kind::Text { min: 0, max: None },
    "The value, or a part of it.",
);
const FINISH_VALUE: Field = field(
    "finish_value",
    Optional,
    Kind::Flag { default: true },
    "False: this is a part; the next value that is finished begins with it. Parts belong to the key, not to who sends them: of two who send parts to \
     one key at a time, both come into one value.",
);
const REQUEST_ID: Field = field(
    "request_id",
    Optional,
    Kind::Text {
        min: 1,
        max: Some(REQUEST_ID_BYTES_MAX),
    },
    "However often an add or clear with this id is sent to this key, it counts once: while what it added is in the key, and for at least an hour after \
     it was cleared. The id belongs to that call, and to this user and key. Another call with it is 409, and changes nothing: one of another kind (a \
     part, an add that finishes a value, a clear), or with another `value`. That is found as long as what the first one did is kept: of what was \
     cleared, and of a clear, the id alone may be left, and any call with it counts as done already. Of different ones that are sent at the same time, one counts, though several may \
     be answered as done.",
);
const OFFSET: Field = field(
    "offset",
    Optional,
    Kind::Number {
        min: 0,
        max: u64::MAX,
        default: None,
    },
    "Values to skip.",
);
const LIMIT: Field = field(
    "limit",
    Optional,
    Kind::Number {
        min: 0,
        max: u64::MAX,
        default: None,
    },
    "Values to return at most.",
);
const COUNT_ONLY: Field = field(
    "count_only",
    Optional,
    Kind::Flag { default: false },
    "Answer with the length of the key's whole list instead of its values.",
);
const CONSISTENCY: Field = field(
    "consistency",
    Optional,
    Kind::OneOf {
        names: &Consistency::NAMES,
        default: Some(Consistency::NAMES[1]),
    },
    "How many of the key's replicas must have stored, or been asked for, the data before the answer. What cannot be reached in \
     time is 503. With one replica all are the same.",
);
const DEADLINE_MS: Field = field(
    "deadline_ms",
    Optional,
    Kind::Number {
        min: 1,
        max: DEADLINE_MS_MAX,
        default: Some(DEADLINE_MS_DEFAULT),
    },
    "Milliseconds that the nodes may take to reach them.",
);
/// In an operation of a batch those of the batch count when it has none.
const OPERATION_CONSISTENCY: Field = Field {
    kind: Kind::OneOf {
        names: &Consistency::NAMES,
        default: None,
    },
    about: "As in the body of the call; the batch's when left out.",
    ..CONSISTENCY
};
const OPERATION_DEADLINE_MS: Field = Field {
    kind: Kind::Number {
        min: 1,
        max: DEADLINE_MS_MAX,
        default: None,
    },
    about: "As in the body of the call, from when the operation is begun; the batch's when left out.",
    ..DEADLINE_MS
};
const USER_FIELD: Field = field(
    "user",
    UnlessBasic,
    Kind::Object(&USER),
    "Credentials; required unless they come as HTTP Basic. When both are given, these count.",
);
const NAME: Field = field(
    "name",
    Required,
    Kind::Text {
        min: 1,
        max: Some(USER_ID_BYTES_MAX),
    },
    "The user that this is about.",
);
const PASSWORD_HASH: Kind = Kind::Text {
    min: 1,
    max: Some(PASSWORD_HASH_BYTES_MAX),
};
const NODE_ID: Kind = Kind::Text {
    min: 1,
    max: Some(NODE_ID_TEXT_BYTES_MAX),
};

pub static USER: Shape = Shape {
    name: "User",
    fields: &[
        field(
            "user_id",
            Required,
            Kind::Text {
                min: 1,
                max: Some(USER_ID_BYTES_MAX),
            },
            "The user's name.",
        ),
        field(
            "password_hash",
            Required,
            PASSWORD_HASH,
            "An opaque secret; by custom the SHA-256 of the password in hexadecimal.",
        ),
    ],
};
pub static ADD_VALUE: Shape = Shape {
    name: "AddValue",
    fields: &[
        KEY,
        VALUE,
        FINISH_VALUE,
        REQUEST_ID,
        CONSISTENCY,
        DEADLINE_MS,
        USER_FIELD,
    ],
};
pub static GET_VALUE: Shape = Shape {
    name: "GetValue",
    fields: &[KEY, OFFSET, LIMIT, COUNT_ONLY, CONSISTENCY, DEADLINE_MS, USER_FIELD],
};
pub static CLEAR_KEY: Shape = Shape {
    name: "ClearKey",
    fields: &[KEY, REQUEST_ID, CONSISTENCY, DEADLINE_MS, USER_FIELD],
};
pub static LIST_KEYS: Shape = Shape {
    name: "ListKeys",
    fields: &[
        field(
            "prefix",
            Optional,
            Kind::Text {
                min: 0,
                max: Some(KEY_BYTES_MAX),
            },
            "Only keys that begin with this.",
        ),
        field(
            "limit",
            Optional,
            Kind::Number {
                min: 1,
                max: LIST_KEYS_LIMIT_MAX,
                default: Some(LIST_KEYS_LIMIT_DEFAULT),
            },
            "Keys to return at most. A page may hold fewer, also when more follow.",
        ),
        field(
            "after",
            Optional,
            Kind::Text {
                min: 0,
                max: Some(KEY_BYTES_MAX),
            },
            "Only keys after this one, in the order of their bytes: the `after` of the page before.",
        ),
        CONSISTENCY,
        DEADLINE_MS,
        USER_FIELD,
    ],
};
pub static BATCH: Shape = Shape {
    name: "Batch",
    fields: &[
        field(
            "operations",
            Required,
            Kind::Operations {
                max: BATCH_OPERATIONS_MAX,
            },
            "Those on one key are carried out in their order, and none after a write that failed (503, not carried out); those on different keys \
             at the same time. Adds to one key that follow each other go together: where one fails and may have taken effect, those behind it fail \
             too, and may have taken effect. Not atomic: each has a result of its own.",
        ),
        CONSISTENCY,
        Field {
            about: "Milliseconds that the nodes may take to reach them, for each operation.",
            ..DEADLINE_MS
        },
        USER_FIELD,
    ],
};
pub static OPERATION: Shape = Shape {
    name: "Operation",
    fields: &[
        field(
            "op",
            Required,
            Kind::OneOf {
                names: &OPS,
                default: None,
            },
            "The call to make; the other fields are those of its body.",
        ),
        KEY,
        Field {
            presence: ForOp(OPS[0]),
            ..VALUE
        },
        FINISH_VALUE,
        REQUEST_ID,
        OFFSET,
        LIMIT,
        COUNT_ONLY,
        OPERATION_CONSISTENCY,
        OPERATION_DEADLINE_MS,
    ],
};
/// `value` belongs to the first of them.
const OPS: [&str; 3] = ["add_value", "get_value", "clear_key"];
pub static USERS_LIST: Shape = Shape {
    name: "ListUsers",
    fields: &[USER_FIELD],
};
pub static USERS_ADD: Shape = Shape {
    name: "AddUser",
    fields: &[
        Field {
            about: "The new user's name. Without control characters, but for one under which something is stored already, with `keep_data`.",
            ..NAME
        },
        field("password_hash", Required, PASSWORD_HASH, "The new user's secret."),
        field(
            "admin",
            Optional,
            Kind::Flag { default: false },
            "Whether the new user may administer users and the nodes of the cluster.",
        ),
        field(
            "keep_data",
            Optional,
            Kind::Flag { default: false },
            "Whether what is stored under the name, though there is no such user, is the new user's. Otherwise such a name is refused.",
        ),
        USER_FIELD,
    ],
};
pub static USERS_REMOVE: Shape = Shape {
    name: "RemoveUser",
    fields: &[NAME, USER_FIELD],
};
pub static USERS_PASSWD: Shape = Shape {
    name: "SetPassword",
    fields: &[
        NAME,
        field("password_hash", Required, PASSWORD_HASH, "The user's new secret."),
        USER_FIELD,
    ],
};
pub static CLUSTER_STATUS: Shape = Shape {
    name: "AskClusterStatus",
    fields: &[USER_FIELD],
};
pub static CLUSTER_REMOVE: Shape = Shape {
    name: "RemoveNode",
    fields: &[
        field("node", Required, NODE_ID, "The member's id, 16 hexadecimal digits."),
        USER_FIELD,
    ],
};
pub static CLUSTER_REPLACE: Shape = Shape {
    name: "ReplaceNode",
    fields: &[
        field(
            "old",
            Required,
            NODE_ID,
            "The id of the member that is lost, 16 hexadecimal digits.",
        ),
        field(
            "new",
            Required,
            NODE_ID,
            "The id of the empty node that takes its place, likewise.",
        ),
        USER_FIELD,
    ],
};
