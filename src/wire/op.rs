//! Ops and clocks as messages carry them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::WireRefused;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Dot, KeyedOp, Op, Text};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::core::stamp::{HybridTime, OriginId};
use crate::types::{Key, RequestId, UserId, WallMs};

/// One op with its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireOp {
    #[serde(with = "user")]
    user: UserId,
    #[serde(with = "key")]
    key: Key,
    slot: u16,
    origin: u64,
    seq: u64,
    time: u64,
    request_id: Option<[u8; 16]>,
    body: WireBody,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum WireBody {
    Part(#[serde(with = "text")] Bytes),
    Value(#[serde(with = "text")] Bytes),
    Clear(WireClock),
    Spent(u64),
}

/// Per origin, inclusive ranges of sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireClock(Vec<(u64, Vec<(u64, u64)>)>);

/// The clocks of many slots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireClocks(Vec<(u16, WireClock)>);

/// Text as MessagePack's binary: it is not looked at on the way.
pub(super) mod text {
    use bytes::Bytes;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }
        }
        from.deserialize_byte_buf(Visitor)
    }
}

/// A name goes from the message into its place at once: most messages carry one op, and each costs.
mod user {
    use serde::{Deserializer, Serializer};

    use super::UserId;

    pub fn serialize<S: Serializer>(user: &UserId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(user.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UserId, D::Error> {
        from.deserialize_str(super::Name(super::user_of))
    }
}

mod key {
    use serde::{Deserializer, Serializer};

    use super::Key;

    pub fn serialize<S: Serializer>(key: &Key, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(key.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Key, D::Error> {
        from.deserialize_str(super::Name(super::key_of))
    }
}

/// Reads a text that has to be the name of something.
struct Name<T>(fn(&str) -> Result<T, WireRefused>);

impl<T> serde::de::Visitor<'_> for Name<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name within its limit")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

/// A user's name as it travels: the system's is the empty one.
pub(crate) fn user_of(text: &str) -> Result<UserId, WireRefused> {
    if text.is_empty() {
        return Ok(UserId::system());
    }
    UserId::new(text).map_err(|_| WireRefused::Limit { what: "a user" })
}

pub(crate) fn key_of(text: &str) -> Result<Key, WireRefused> {
    Key::new(text).map_err(|_| WireRefused::Limit { what: "a key" })
}

/// A slot as it travels.
pub(crate) fn slot_of(slot: u16) -> Result<SlotId, WireRefused> {
    (slot <= SYSTEM_SLOT.0)
        .then_some(SlotId(slot))
        .ok_or(WireRefused::Limit { what: "a slot" })
}

impl WireOp {
    pub fn dot(&self) -> Dot {
        Dot {
            origin: OriginId(self.origin),
            slot: SlotId(self.slot),
            seq: self.seq,
        }
    }

    pub fn of(op: &KeyedOp) -> Self {
        Self {
            user: op.user.clone(),
            key: op.key.clone(),
            slot: op.op.dot.slot.0,
            origin: op.op.dot.origin.0,
            seq: op.op.dot.seq,
            time: op.op.time.0,
            request_id: op.op.request_id.map(|id| id.0),
            body: match &op.op.body {
                Body::Part(text) => WireBody::Part(text.bytes()),
                Body::Value(text) => WireBody::Value(text.bytes()),
                Body::Clear(seen) => WireBody::Clear(WireClock::of(seen)),
                Body::Spent { cleared_at } => WireBody::Spent(cleared_at.0),
            },
        }
    }

    pub fn into_op(self) -> Result<KeyedOp, WireRefused> {
        let text = |bytes| {
            Text::from_utf8(bytes).map_err(|_| WireRefused::Limit {
                what: "text beyond UTF-8",
            })
        };
        if self.seq == 0 || self.origin == 0 {
            return Err(WireRefused::Limit { what: "a dot" });
        }
        Ok(KeyedOp {
            user: self.user,
            key: self.key,
            op: Op {
                dot: Dot {
                    origin: OriginId(self.origin),
                    slot: slot_of(self.slot)?,
                    seq: self.seq,
                },
                time: HybridTime(self.time),
                request_id: self.request_id.map(RequestId),
                body: match self.body {
                    WireBody::Part(bytes) => Body::Part(text(bytes)?),
                    WireBody::Value(bytes) => Body::Value(text(bytes)?),
                    WireBody::Clear(seen) => Body::Clear(seen.into_clock()),
                    WireBody::Spent(cleared_at) => Body::Spent {
                        cleared_at: WallMs(cleared_at),
                    },
                },
            },
        })
    }

    /// About what it takes in a message, bytes.
    pub fn cost(&self) -> usize {
        let body = match &self.body {
            WireBody::Part(text) | WireBody::Value(text) => text.len(),
            WireBody::Clear(clock) => clock.0.iter().map(|(_, ranges)| 9 + ranges.len() * 18).sum(),
            WireBody::Spent(_) => 9,
        };
        64 + self.user.as_str().len() + self.key.as_str().len() + body
    }
}

impl WireClock {
    pub fn of(clock: &Clock) -> Self {
        let origins = clock.origins().map(|(origin, set)| (origin.0, set.ranges().to_vec()));
        Self(origins.collect())
    }

    pub fn into_clock(self) -> Clock {
        let mut clock = Clock::default();
        for (origin, ranges) in self.0 {
            for (first, last) in ranges {
                clock.insert_range(OriginId(origin), first.max(1), last);
            }
        }
        clock
    }
}

impl WireClocks {
    pub fn of(clocks: &SlotClocks) -> Self {
        Self(
            clocks
                .slots()
                .map(|(slot, clock)| (slot.0, WireClock::of(clock)))
                .collect(),
        )
    }

    pub fn into_clocks(self) -> SlotClocks {
        let mut clocks = SlotClocks::default();
        for (slot, clock) in self.0 {
            clocks.join_slot(SlotId(slot), &clock.into_clock());
        }
        clocks
    }
}
