//! etcd's JSON gateway: `put` and `range`, keys and values in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kv_storage::bench::{Garbled, HttpAnswers, Operation, Payload, Protocol, Step};

/// What a `range` is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each benchmark has reads of its own")]
pub enum Reads {
    /// By a quorum: the default.
    Linearizable,
    /// By the member that is asked alone.
    Serializable,
}

impl Reads {
    /// What follows the key in a `range`.
    fn options(self) -> &'static str {
        match self {
            Self::Linearizable => "",
            Self::Serializable => ",\"serializable\":true",
        }
    }
}

pub struct Etcd {
    authority: String,
    reads: Reads,
    payload: Payload,
    key: Vec<u8>,
    answers: HttpAnswers,
}

impl Etcd {
    pub fn new(authority: String, payload: Payload, reads: Reads) -> Self {
        Self {
            authority,
            reads,
            payload,
            key: Vec::new(),
            answers: HttpAnswers::default(),
        }
    }
}

fn encoded_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + encoded_bytes(bytes.len()), 0);
    // The room was made for exactly this.
    let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
}

impl Protocol for Etcd {
    fn request(&mut self, operation: Operation, key: u64, random: u64, out: &mut Vec<u8>) {
        let key_bytes = encoded_bytes(self.payload.key_bytes());
        let (path, length) = match operation {
            Operation::Add => {
                let value_bytes = encoded_bytes(self.payload.value_bytes());
                ("put", key_bytes + value_bytes + "{\"key\":\"\",\"value\":\"\"}".len())
            }
            Operation::Get => ("range", key_bytes + "{\"key\":\"\"}".len() + self.reads.options().len()),
            Operation::Clear => ("deleterange", key_bytes + "{\"key\":\"\"}".len()),
        };
        let authority = &self.authority;
        // A Vec takes every write.
        let _ = std::io::Write::write_fmt(
            out,
            format_args!(
                "POST /v3/kv/{path} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {length}\r\n\r\n{{\"key\":\""
            ),
        );
        self.key.clear();
        self.payload.push_key(key, &mut self.key);
        push_base64(out, &self.key);
        if operation == Operation::Add {
            out.extend_from_slice(b"\",\"value\":\"");
            push_base64(out, self.payload.value(random));
        }
        out.push(b'"');
        if operation == Operation::Get {
            out.extend_from_slice(self.reads.options().as_bytes());
        }
        out.push(b'}');
    }

    fn advance(&mut self, input: &[u8]) -> Result<Step, Garbled> {
        self.answers.advance(input)
    }

    fn reset(&mut self) {
        self.answers.reset();
    }
}
