//! The messages between nodes, as MessagePack. Pure data: `net` carries the bytes, `node` gives them meaning.
//!
//! A frame on a connection is one or more messages, one behind the other. A *request* names itself by an id that the sender chose; its
//! *response* carries that id. Responses come in any order.
//!
//! Compatibility, while members are upgraded one after the other: what stands in `wire/tests/version1.txt` is version 1 of the protocol (see `net`) and
//! stays. A newer node may add fields at the end, with `#[serde(default)]`, for an older one does not send them; and variants. An older one passes
//! the fields over, refuses the requests, and takes a response that it does not know for none (`newer`). What has to be understood, and must not
//! merely be refused, takes a higher version, and is sent on connections alone on which both agreed on that.
//!
//! Invariant: whatever was decoded is within the limits of `types`, or the message is refused as a whole.

mod newer;
mod op;
mod terms;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use op::{WireClock, WireClocks, WireOp};
pub(crate) use op::{key_of, slot_of, user_of};
pub use terms::{WireError, WireTerms};

/// Largest encoded message: one op with a text of the largest size, and room for its names. Senders batch well below it.
pub const MESSAGE_BYTES_MAX: usize = crate::types::BODY_BYTES_MAX + (64 << 10);

/// A slot number that does not exist. In an answer to `Compare` it means: my member table does not name you. Older
/// nodes ignore it, like any slot that they do not share.
pub const NOT_NAMED: u16 = u16::MAX;

#[derive(Debug, thiserror::Error)]
pub enum WireRefused {
    #[error("not a message of this protocol: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("a message names {what} beyond its limit")]
    Limit { what: &'static str },
}

/// One message. Field order is the encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    Request(u64, Request),
    Response(u64, Response),
}

/// What one node asks of another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// "Are you there": answered with `Done`.
    Ping,
    /// Before a write is stamped: what do you know that it has to come after?
    Ask(Ask),
    /// Hold these ops. Answered with `Done` when they are durable.
    Append(Vec<WireOp>),
    /// The digest of your durable clock of this slot.
    Digest {
        slot: u16,
    },
    /// What you hold of this key and I lack, by my clock of its slot, and your clock.
    SyncKey {
        slot: u16,
        user: String,
        key: String,
        known: WireClock,
    },
    /// Carry this write out, as its coordinator.
    Write(ForwardedWrite),
    /// Begin to read a key, as its coordinator. The reader gets the given number, which later `ReadNext` name.
    Read {
        reader: u64,
        user: String,
        key: String,
        offset: u64,
        limit: u64,
        terms: WireTerms,
    },
    ReadNext {
        reader: u64,
        budget_bytes: u32,
    },
    /// Forget the reader; not answered with more than `Done`.
    ReadEnd {
        reader: u64,
    },
    Count {
        user: String,
        key: String,
        terms: WireTerms,
    },
    /// Keys that you hold, by your own disk alone.
    ListKeys {
        user: String,
        prefix: String,
        after: Option<String>,
        limit: u32,
        all: bool,
        /// For so long somebody waits, milliseconds; 0: nobody says.
        #[serde(default)]
        left_ms: u32,
    },
    /// First on every connection: this is my so-many-th start, in the life that this origin names. Answered with `Done`, or with
    /// `OlderCopy` if the peer has met a later life of this node: then its disk is an older copy of itself.
    Introduce {
        starts: u64,
        life: u64,
    },
    /// Compare the clocks of all slots that we share: the digest of mine.
    Compare {
        digest: u64,
    },
    /// Exchange the clocks of these slots: mine, for yours. An empty list ends the exchange for this life; the answer
    /// is `OlderCopy` if the previous life had reported more.
    Clocks {
        slots: Vec<(u16, WireClock)>,
    },
    /// Begin to send me the ops with these dots. The pull gets the given number, which `PullNext` names.
    Pull {
        pull: u64,
        wants: WireClocks,
    },
    PullNext {
        pull: u64,
        budget_bytes: u32,
    },
    /// The dots of the texts that you hold in this slot. Refused where they take too much: then `Dropped` is asked for.
    HeldDots {
        slot: u16,
    },
    /// Take none of these ops from here on, from whomever, and say which of them you do not hold.
    GiveUp {
        slot: u16,
        /// Who holds the slot, by the member table of who asks.
        replicas: Vec<u64>,
        dots: WireClock,
        /// Damage took them from who asks: say so even if your own word does not count.
        #[serde(default)]
        lost: bool,
    },
    /// Let this node into the cluster.
    Admit(Admission),
    /// Does your disk hold any user's data?
    HasData,
    /// Figures of yourself, as JSON, for an admin's eyes.
    Status,
    /// The clock of the key's slot, as you learn it as a coordinator. Answered with `Seen`.
    Seen {
        user: String,
        key: String,
        terms: WireTerms,
    },
    /// Which of these dots do you cover, and hold no text of? Asked for in as many pieces as it takes.
    Dropped {
        slot: u16,
        dots: WireClock,
    },
    /// The member table that you go by, if you belong to a cluster. Answered with `Admitted`; nothing changes by it.
    Table,
    /// One that came and that this node does not know, or with a name beyond its limit; and why. Never sent, and answered with a refusal.
    #[serde(skip)]
    Unknown(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    pub slot: u16,
    /// The key and the request id that may have been taken.
    pub request: Option<(String, String, [u8; 16])>,
    /// For a clear: the clock of the slot is asked for.
    pub clock: bool,
    /// The replica must stamp everything from now on later than this. The write itself gets this time if nobody knows
    /// a higher one; so of two tries of one request, made one after the other, the second never gets an earlier
    /// stamp, whatever the clocks say.
    #[serde(default)]
    pub time: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admission {
    /// 16 hex digits.
    pub node: u64,
    pub peer: String,
    pub http: String,
    pub zone: String,
    pub weight: u32,
    /// It claims to hold nothing: its word counts only when it has copied what the others hold.
    pub is_new: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForwardedWrite {
    pub user: String,
    pub key: String,
    pub kind: ForwardedKind,
    pub request_id: Option<[u8; 16]>,
    /// The request id was made by the front for this one try: nobody can have taken it before.
    pub is_first_try: bool,
    pub terms: WireTerms,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ForwardedKind {
    Add {
        #[serde(with = "op::text")]
        text: Bytes,
        finish: bool,
    },
    Clear,
    /// Removes exactly these ops of the key.
    ClearDots(WireClock),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Response {
    Done,
    Failed(WireError),
    /// The answer to `Ask`.
    Asked {
        /// Whether this replica's word counts for the slot; if not, the rest says nothing.
        votes: bool,
        /// The highest time it knows.
        time: u64,
        /// The op that took the request id.
        held: Option<WireOp>,
        clock: Option<WireClock>,
    },
    Digest {
        votes: bool,
        digest: u64,
    },
    SyncedKey {
        votes: bool,
        clock: WireClock,
        ops: Vec<WireOp>,
        /// There are more: ask again with the clock that these ops lead to.
        more: bool,
    },
    /// The answer to `Write`: whether the request id had been taken before.
    Written {
        repeated: bool,
    },
    /// Fragments of values: text, and whether it ends its value. None left: the end.
    Page(Vec<WireFragment>),
    Count(u64),
    Keys {
        keys: Vec<String>,
        next_after: Option<String>,
    },
    /// The answer to `Introduce`, or to `Clocks` of no slot: so many starts were seen already.
    OlderCopy {
        starts: u64,
    },
    /// The answer to `Compare` where the digests are equal.
    Same,
    /// The answer to `Compare` where they are not: the digest of each slot that is not empty. With `NOT_NAMED` among them, of all slots,
    /// none of which looks equal.
    Differ(Vec<(u16, u64)>),
    /// Clocks, and of each slot what was collected.
    Clocks(Vec<(u16, WireClock, WireClock)>),
    /// The next ops of a pull. `covered` comes with the last: of the wanted dots, those that are known here; what was not sent of them was
    /// cleared.
    Pulled {
        ops: Vec<WireOp>,
        covered: Option<WireClocks>,
        /// Of each slot of `covered`, the highest time that is known here.
        #[serde(default)]
        times: Vec<(u16, u64)>,
    },
    HeldDots {
        texts: WireClock,
        /// All that is held or known to be dropped.
        covered: WireClock,
    },
    GivenUp {
        /// The life of who promises.
        life: u64,
        dots: WireClock,
    },
    /// The answer to `Admit` and `Table`. The member table: one record each, as JSON.
    Admitted {
        cluster: String,
        records: Vec<String>,
    },
    /// The answer to `Admit` of a node that is no member and does not know that it is new: it has to start over as one.
    StartOver,
    HasData(bool),
    Status(String),
    Seen(WireClock),
    Dropped(WireClock),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireFragment {
    #[serde(with = "op::text")]
    pub text: Bytes,
    pub ends_value: bool,
}

/// A message as it is written, whose content somebody else owns: one request may go to several peers.
#[derive(Serialize)]
#[serde(rename = "Message")]
enum Borrowed<'a> {
    Request(u64, &'a Request),
    Response(u64, &'a Response),
}

/// Writing to memory fails only where a type cannot be written at all, which a test would see.
fn write(message: &impl Serialize, out: &mut Vec<u8>) {
    if let Err(error) = rmp_serde::encode::write(out, message) {
        debug_assert!(false, "a message that cannot be encoded: {error}");
    }
}

impl Request {
    /// Appends the message that makes this request under the name `id`.
    pub fn encode(&self, id: u64, out: &mut Vec<u8>) {
        write(&Borrowed::Request(id, self), out);
    }
}

impl Response {
    /// Appends the message that answers the request named `id`.
    pub fn encode(&self, id: u64, out: &mut Vec<u8>) {
        write(&Borrowed::Response(id, self), out);
    }
}

impl Message {
    /// Appends the encoded message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    /// Takes the first message off `bytes`, also one of a newer node.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, WireRefused> {
        let all = *bytes;
        let mut decoder = rmp_serde::Deserializer::new(&mut *bytes);
        Self::deserialize(&mut decoder).or_else(|error| {
            *bytes = all;
            newer::read(bytes).ok_or(error.into())
        })
    }
}

#[cfg(test)]
mod tests;
