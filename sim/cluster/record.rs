//! Between clients and history: bodies of calls, what answers mean, and the texts that tell ops apart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kv_storage::api::DEADLINE_MS_DEFAULT;
use serde_json::{Value as Json, json};

use super::client::Reply;
use super::history::{
    Answer, Call, History, Level, Loss, LostDisk, OpId, Outcome, Place, TextId, Trouble, Value, What,
};
use super::listing::Listing;
use super::os;
use super::trace::Trace;

/// Clones write to the same history.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
}

#[derive(Default)]
struct Inner {
    history: History,
    /// By their ids.
    texts: Vec<String>,
    next_op: OpId,
    /// How many request ids each place has had.
    requests: std::collections::BTreeMap<Place, u64>,
    statuses: std::collections::BTreeMap<u16, u64>,
    acknowledged: bool,
}

/// A call that is under way.
#[derive(Debug, Clone)]
pub struct Asked {
    pub op: OpId,
    pub client: u8,
    pub node: u8,
    pub place: Place,
    pub what: What,
    pub level: Level,
    pub batch: Option<(u64, usize)>,
    pub deadline_ms: u64,
    /// The request carries an id.
    pub with_id: bool,
    pub is_last: bool,
}

pub fn key_name(key: u8) -> String {
    format!("key-{key}")
}

pub fn key_of(name: &str) -> Option<u8> {
    name.strip_prefix("key-")?.parse().ok()
}

pub fn user_name(user: u8) -> String {
    format!("user-{user}")
}

impl Recorder {
    pub fn new(trace: Trace) -> Self {
        Self {
            inner: Arc::default(),
            trace,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often an hour has passed.
    pub fn hours(&self) -> usize {
        self.inner().history.hours_us.len()
    }

    /// From when on nothing that was sent so far can have an effect that it did not have yet.
    pub fn settled_us(&self) -> u64 {
        self.inner().history.settled_us()
    }

    pub fn take_history(&self) -> History {
        std::mem::take(&mut self.inner().history)
    }

    pub fn change(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.inner().history);
    }

    /// Whether a client heard something since the last call that must be durable now.
    pub fn take_acknowledged(&self) -> bool {
        std::mem::take(&mut self.inner().acknowledged)
    }

    /// How many calls were answered with which status.
    pub fn statuses(&self) -> std::collections::BTreeMap<u16, u64> {
        self.inner().statuses.clone()
    }

    pub fn trouble(&self, trouble: Trouble) {
        self.inner().history.troubles.push(trouble);
    }

    pub fn lost_disk(&self, node: u8, loss: Loss) {
        let at_us = os::now_us();
        let lost = LostDisk { node, at_us, loss };
        self.inner().history.lost_disks.push(lost);
    }

    pub fn new_op(&self) -> OpId {
        let mut inner = self.inner();
        inner.next_op += 1;
        inner.next_op
    }

    /// The id that all attempts at this op carry; no other op of its place has it, and those of many other places do.
    pub fn request_id(&self, asked: &Asked) -> String {
        let inner = &mut *self.inner();
        if !inner.history.numbers.contains_key(&asked.op) {
            let number = inner.requests.entry(asked.place).or_default();
            *number += 1;
            inner.history.numbers.insert(asked.op, *number);
        }
        inner.history.request_id(asked.op)
    }

    /// A text that no other is part of: its id in brackets, with a filler.
    pub fn new_text(&self, filler_bytes: u64) -> TextId {
        let mut inner = self.inner();
        let id = inner.texts.len() as TextId;
        let letter = ["x", "é", "\"", "\n"][id as usize % 4];
        inner.texts.push(format!(
            "<{id}:{}>",
            letter.repeat(filler_bytes as usize / letter.len())
        ));
        id
    }

    /// The same with exactly so many bytes.
    pub fn new_text_of(&self, bytes: usize) -> TextId {
        let mut inner = self.inner();
        let id = inner.texts.len() as TextId;
        let head = format!("<{id}:");
        let letter = ["x", "\""][id as usize % 2];
        let filler = letter.repeat(bytes.saturating_sub(head.len() + 1));
        inner.texts.push(format!("{head}{filler}>"));
        id
    }

    pub fn text(&self, id: TextId) -> String {
        self.inner().texts.get(id as usize).cloned().unwrap_or_default()
    }

    /// Notes how a call ended that began at `began_us`.
    pub fn end(&self, asked: Asked, began_us: u64, outcome: Outcome) {
        let is_done = matches!(outcome, Outcome::Answered(_));
        let numbers = [
            asked.op,
            asked.client.into(),
            asked.node.into(),
            asked.place.user.into(),
            asked.place.key.into(),
            began_us,
        ];
        self.trace.note("call", &numbers, || {
            format!("{:?} at {} -> {outcome:?}", asked.what, asked.level.name())
        });
        let promises = asked.what.is_write() || asked.level >= Level::Quorum || asked.what == What::Get;
        self.inner().acknowledged |= is_done && promises;
        self.inner().history.calls.push(Call {
            op: asked.op,
            client: asked.client,
            node: asked.node,
            place: asked.place,
            what: asked.what,
            level: asked.level,
            batch: asked.batch,
            deadline_ms: asked.deadline_ms,
            with_id: asked.with_id,
            began_us,
            ended_us: os::now_us(),
            outcome,
            is_last: asked.is_last,
        });
    }

    /// What a reply to a call means.
    pub fn outcome(&self, what: &What, reply: &Reply) -> Outcome {
        match reply {
            Reply::NotSent(why) => Outcome::Refused(why.clone()),
            Reply::NoAnswer(why) => Outcome::Unknown(why.clone()),
            Reply::Status(status, body) => {
                *self.inner().statuses.entry(*status).or_default() += 1;
                self.answer(what, *status, body)
            }
        }
    }

    /// What a status and body mean, be it a call's own or one in the results of a batch.
    pub fn answer(&self, what: &What, status: u16, body: &Json) -> Outcome {
        if let What::Forged(_) = what {
            return match status {
                401 => Outcome::Answered(Answer::Ok),
                500 | 503 => Outcome::Unknown(body.to_string()),
                _ => {
                    let told = format!("status {status} with another user's password: {body}");
                    Outcome::Answered(Answer::Garbled(told))
                }
            };
        }
        if status == 200 {
            return Outcome::Answered(
                self.read(what, body)
                    .unwrap_or_else(|| Answer::Garbled(body.to_string())),
            );
        }
        let detail = body["detail"].as_str().unwrap_or_default().to_owned();
        match status {
            // Nothing was changed: the words of the API for it.
            503 if ["nothing was changed", "overloaded", "too many"]
                .iter()
                .any(|words| detail.contains(words)) =>
            {
                Outcome::Refused(detail)
            }
            413 => Outcome::Refused(detail),
            // A full disk keeps reading.
            507 if what.is_write() => Outcome::Refused(detail),
            500 | 503 => Outcome::Unknown(detail),
            // A right request of a user that exists.
            _ => Outcome::Answered(Answer::Garbled(format!("status {status}: {body}"))),
        }
    }

    fn read(&self, what: &What, body: &Json) -> Option<Answer> {
        match what {
            What::Add { finish, .. } => {
                let expected = if *finish { "OK" } else { "IN_PROGRESS" };
                (body["status"] == expected).then_some(Answer::Ok)
            }
            What::Clear => (body["status"] == "OK").then_some(Answer::Ok),
            What::Forged(_) => None,
            What::Count => body["count"].as_u64().map(Answer::Count),
            What::Get | What::Page { .. } => {
                let values = body["value"]
                    .as_array()?
                    .iter()
                    .map(|value| self.parse(value.as_str()?));
                values.collect::<Option<_>>().map(Answer::Values)
            }
            What::List(_) => {
                let keys = body["keys"].as_array()?.iter().map(|key| key_of(key.as_str()?));
                let next = match &body["after"] {
                    Json::Null => None,
                    after => Some(key_of(after.as_str()?)?),
                };
                keys.collect::<Option<_>>().map(|keys| Answer::Keys { keys, next })
            }
        }
    }

    /// The texts that a value is made of; `None` if it is made of anything else.
    pub fn parse(&self, value: &str) -> Option<Value> {
        let inner = self.inner();
        let (mut texts, mut rest) = (Vec::new(), value);
        while !rest.is_empty() {
            let (id, _) = rest.strip_prefix('<')?.split_once(':')?;
            let id: TextId = id.parse().ok()?;
            rest = rest.strip_prefix(inner.texts.get(id as usize)?.as_str())?;
            texts.push(id);
        }
        Some(texts)
    }

    /// Path and body of a call, without the user; the body is also that of an operation in a batch.
    pub fn request(&self, asked: &Asked) -> (&'static str, Json) {
        let (path, mut body) = operation(&asked.what, key_name(asked.place.key), |text| self.text(text));
        if asked.with_id {
            body["request_id"] = self.request_id(asked).into();
        }
        body["consistency"] = asked.level.name().into();
        if asked.deadline_ms != DEADLINE_MS_DEFAULT {
            body["deadline_ms"] = asked.deadline_ms.into();
        }
        (path, body)
    }
}

/// Path and body of an operation, with nothing of how it is to be carried out.
fn operation(what: &What, key: String, text_of: impl Fn(TextId) -> String) -> (&'static str, Json) {
    match what {
        What::Add { text, finish } => (
            "/add_value",
            json!({"key": key, "value": text_of(*text), "finish_value": finish}),
        ),
        What::Clear => ("/clear_key", json!({"key": key})),
        What::Get => ("/get_value", json!({"key": key})),
        What::Page { offset, limit } => ("/get_value", json!({"key": key, "offset": offset, "limit": limit})),
        What::Count => ("/get_value", json!({"key": key, "count_only": true})),
        What::List(Listing { prefix, after, limit }) => {
            let mut body = json!({});
            if let Some(prefix) = prefix {
                body["prefix"] = key_name(*prefix).into();
            }
            if let Some(after) = after {
                body["after"] = key_name(*after).into();
            }
            if let Some(limit) = limit {
                body["limit"] = (*limit).into();
            }
            ("/list_keys", body)
        }
        What::Forged(forged) => operation(forged, key, text_of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_apart_into_their_texts_and_nothing_else_is_accepted() {
        let recorder = Recorder::new(Trace::new(false));
        let (one, two) = (recorder.new_text(5), recorder.new_text(5));
        let (a, b) = (recorder.text(one), recorder.text(two));
        assert_eq!(recorder.parse(&format!("{a}{b}{a}")), Some(vec![one, two, one]));
        assert_eq!(recorder.parse(&a[1..]), None);
        assert_eq!(recorder.parse(&a[..a.len() - 1]), None);
        assert_eq!(recorder.parse("<9:>"), None);
    }

    #[test]
    fn a_refusal_counts_as_one_only_if_it_says_that_nothing_was_changed() {
        let recorder = Recorder::new(Trace::new(false));
        let outcome = |status, detail: &str| recorder.answer(&What::Clear, status, &json!({"detail": detail}));
        let refused = |status, detail| matches!(outcome(status, detail), Outcome::Refused(_));
        assert!(refused(503, "the shard is gone: nothing was changed"));
        assert!(refused(507, "disk full"));
        let read = recorder.answer(&What::Get, 507, &json!({"detail": "disk full"}));
        assert!(matches!(read, Outcome::Answered(Answer::Garbled(_))));
        assert!(!refused(503, "the request may have taken effect"));
        assert!(!refused(500, "the disk failed"));
        assert!(matches!(outcome(401, "no"), Outcome::Answered(Answer::Garbled(_))));
    }

    #[test]
    fn another_users_password_opens_nothing() {
        let recorder = Recorder::new(Trace::new(false));
        for forged in [What::Get, What::Clear, What::Add { text: 0, finish: true }] {
            let what = What::Forged(Box::new(forged));
            let outcome = |status| recorder.answer(&what, status, &json!({"value": [], "status": "OK"}));
            assert_eq!(outcome(401), Outcome::Answered(Answer::Ok));
            assert!(matches!(outcome(503), Outcome::Unknown(_)));
            assert!(matches!(outcome(200), Outcome::Answered(Answer::Garbled(_))));
        }
    }
}
