//! Ops: the immutable facts of which a key is the set.

use bytes::Bytes;

use super::clock::Clock;
use super::slot::SlotId;
use super::stamp::{HybridTime, OriginId, Stamp};
use crate::types::{Key, RequestId, UserId, WallMs};

/// The name of one op.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dot {
    pub origin: OriginId,
    pub slot: SlotId,
    pub seq: u64,
}

/// UTF-8 text in a shared buffer: cloning and slicing copy nothing.
#[derive(Clone, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        // Most text is ASCII, which is seen in a fraction of the time.
        if !bytes.is_ascii() {
            std::str::from_utf8(&bytes)?;
        }
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same buffer.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Byte length.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        // A `Text` is only ever made from checked UTF-8; a second check keeps `unsafe` out of this crate.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_ref())
    }
}

/// A piece of a value. A value is one or more fragments, the last of which says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    pub text: Text,
    pub ends_value: bool,
}

/// What an op says of its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// One piece of a value that is not finished yet.
    Part(Text),
    /// The last piece of a value: with the parts before it, it becomes one value of the list.
    Value(Text),
    /// Removes exactly the ops of the key that this clock (of the key's slot) covers.
    Clear(Clock),
    /// What is left of a cleared op that carried a request id, so that a late retry still counts as done. `cleared_at` is when
    /// it was cleared, from which the time to remember it runs.
    Spent { cleared_at: WallMs },
}

impl Body {
    /// Bytes of its text.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Part(text) | Self::Value(text) => text.len(),
            Self::Clear(_) | Self::Spent { .. } => 0,
        }
    }
}

/// One op of a key that is known from the context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    pub dot: Dot,
    pub time: HybridTime,
    pub request_id: Option<RequestId>,
    pub body: Body,
}

impl Op {
    pub fn stamp(&self) -> Stamp {
        Stamp {
            time: self.time,
            origin: self.dot.origin,
        }
    }
}

/// An op with the key it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyedOp {
    pub user: UserId,
    pub key: Key,
    pub op: Op,
}
