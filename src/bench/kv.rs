//! Requests of the JSON API over HTTP/1.1, byte for byte those of any other client.

use super::answer::HttpAnswers;
use super::mix::Operation;
use super::payload::{Payload, key_digits};
use super::protocol::{Garbled, Protocol, Step};
use crate::api::{AddValue, ClearKey, GetValue, User, path};
use crate::types::Consistency;

/// Stand in for a key's digits and a value while a request is rendered.
const KEY_MARK: &str = "@KEY@";
const VALUE_MARK: &str = "@VALUE@";

/// Whom to speak to, and as whom.
#[derive(Debug, Clone)]
pub struct KvTarget {
    /// Host and port, for the `Host` header.
    pub authority: String,
    /// Before the paths of the API; empty unless the node is behind a proxy.
    pub base_path: String,
    pub user_id: String,
    pub password_hash: String,
    pub consistency: Option<Consistency>,
}

/// A request with gaps for the key's digits and the value.
#[derive(Debug, Clone)]
struct Template {
    before_key: Vec<u8>,
    after_key: Vec<u8>,
    /// None when there is no value.
    after_value: Option<Vec<u8>>,
}

/// Speaks the API on one connection.
#[derive(Debug, Clone)]
pub struct KvProtocol {
    templates: [Template; Operation::ALL.len()],
    payload: Payload,
    answers: HttpAnswers,
}

impl KvProtocol {
    pub fn new(target: &KvTarget, payload: Payload) -> Result<Self, serde_json::Error> {
        let key = || format!("{}{KEY_MARK}", payload.key_prefix()).into();
        let user = || {
            Some(User {
                user_id: target.user_id.as_str().into(),
                password_hash: target.password_hash.as_str().into(),
            })
        };
        let add = serde_json::to_string(&AddValue {
            key: key(),
            value: VALUE_MARK.into(),
            finish_value: true,
            request_id: None,
            consistency: target.consistency,
            deadline_ms: None,
            user: user(),
        })?;
        let get = serde_json::to_string(&GetValue {
            key: key(),
            offset: None,
            limit: None,
            count_only: false,
            consistency: target.consistency,
            deadline_ms: None,
            user: user(),
        })?;
        let clear = serde_json::to_string(&ClearKey {
            key: key(),
            request_id: None,
            consistency: target.consistency,
            deadline_ms: None,
            user: user(),
        })?;
        let templates = [
            template(target, path::ADD_VALUE, &add, &payload),
            template(target, path::GET_VALUE, &get, &payload),
            template(target, path::CLEAR_KEY, &clear, &payload),
        ];
        Ok(Self {
            templates,
            payload,
            answers: HttpAnswers::default(),
        })
    }
}

/// The marks come in the order of the fields: the key's first, then the value's, and the user's name after both. The prefix of the keys may
/// hold what looks like one.
fn template(target: &KvTarget, path: &str, body: &str, payload: &Payload) -> Template {
    let quoted = serde_json::Value::from(payload.key_prefix()).to_string();
    let prefix = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    let key = body.find(&format!("{prefix}{KEY_MARK}")).map(|at| at + prefix.len());
    let (before_key, after_key) = key.map_or((body, ""), |at| (&body[..at], &body[at + KEY_MARK.len()..]));
    let (after_key, after_value) = match after_key.split_once(VALUE_MARK) {
        Some((after_key, after_value)) if path == self::path::ADD_VALUE => (after_key, Some(after_value)),
        _ => (after_key, None),
    };
    let length = before_key.len()
        + super::payload::KEY_DIGITS
        + after_key.len()
        + after_value.map_or(0, |text| text.len() + payload.value_bytes());
    let before_key = format!(
        "POST {}{path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{before_key}",
        target.base_path, target.authority,
    );
    Template {
        before_key: before_key.into(),
        after_key: after_key.into(),
        after_value: after_value.map(Into::into),
    }
}

impl Protocol for KvProtocol {
    fn request(&mut self, operation: Operation, key: u64, random: u64, out: &mut Vec<u8>) {
        let template = &self.templates[operation as usize];
        out.extend_from_slice(&template.before_key);
        out.extend_from_slice(&key_digits(key));
        out.extend_from_slice(&template.after_key);
        if let Some(after_value) = &template.after_value {
            out.extend_from_slice(self.payload.value(random));
            out.extend_from_slice(after_value);
        }
    }

    fn advance(&mut self, input: &[u8]) -> Result<Step, Garbled> {
        self.answers.advance(input)
    }

    fn reset(&mut self) {
        self.answers.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a request, after its length was checked.
    fn body(operation: Operation, user_id: &str, key_prefix: &str) -> String {
        let target = KvTarget {
            authority: "node:8000".to_owned(),
            base_path: "/kv".to_owned(),
            user_id: user_id.to_owned(),
            password_hash: "hash".to_owned(),
            consistency: None,
        };
        let mut protocol = KvProtocol::new(&target, Payload::new(key_prefix, 100, 1)).unwrap();
        let mut out = Vec::new();
        protocol.request(operation, 42, 9, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!(
            "POST /kv/{} HTTP/1.1\r\nhost: node:8000\r\n",
            operation.name()
        )));
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        body.to_owned()
    }

    #[test]
    fn requests_are_those_of_the_api() {
        let names = ["demo", "a\"b", KEY_MARK, VALUE_MARK];
        let prefixes = ["b\"\\-", "", KEY_MARK, "@KEY@@KEY@", VALUE_MARK, "\""];
        for (user_id, prefix) in names
            .into_iter()
            .flat_map(|user_id| prefixes.map(|prefix| (user_id, prefix)))
        {
            let key = format!("{prefix}000000000042");
            let text = body(Operation::Add, user_id, prefix);
            let add: AddValue<'_> = crate::api::read(text.as_bytes()).unwrap();
            assert_eq!(add.key, key);
            assert_eq!((add.value.len(), add.finish_value), (100, true));
            assert_eq!(add.user.unwrap().user_id, user_id);
            let text = body(Operation::Get, user_id, prefix);
            let get: GetValue<'_> = crate::api::read(text.as_bytes()).unwrap();
            assert_eq!((get.key.as_ref(), get.count_only), (key.as_str(), false));
            assert_eq!(get.user.unwrap().user_id, user_id);
            let text = body(Operation::Clear, user_id, prefix);
            let clear: ClearKey<'_> = crate::api::read(text.as_bytes()).unwrap();
            assert_eq!(clear.user.unwrap().password_hash, "hash");
        }
    }
}
