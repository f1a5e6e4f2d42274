//! What the clients did and were told: all that the checks know.

mod members;

use std::collections::BTreeMap;

use kv_storage::api::DEADLINE_MS_DEFAULT;
use kv_storage::core::clock::SlotClocks;
use kv_storage::core::op::Dot;
use kv_storage::core::stamp::HybridTime;
use kv_storage::types::RequestId;

use super::listing::Listing;
use super::plan::{Bounds, SECOND_US};

pub use members::{Change, Table};

/// How long, while nothing is in the way, a request and what follows from it may be on their way between machines and in queues, besides
/// the time that the nodes have for it.
const TRAVEL_US_MAX: u64 = 2 * SECOND_US;

/// A text that a client added; each is sent by one op only, so it can be told where it went.
pub type TextId = u64;
/// One op of a client, however often it is sent.
pub type OpId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    One,
    Quorum,
    All,
}

impl Level {
    /// How many of so many replicas it asks for.
    pub fn needed(self, replicas: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Quorum => replicas / 2 + 1,
            Self::All => replicas,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Quorum => "quorum",
            Self::All => "all",
        }
    }
}

/// A key of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub user: u8,
    pub key: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Add {
        text: TextId,
        finish: bool,
    },
    Clear,
    /// The whole list.
    Get,
    /// Any of the others with the password of another user: nothing of it may be done.
    Forged(Box<What>),
    /// A part of the list.
    Page {
        offset: u64,
        limit: u64,
    },
    Count,
    /// The user's keys; `Place::key` says nothing.
    List(Listing),
}

impl What {
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Add { .. } | Self::Clear)
    }
}

/// A value, as the texts that it is made of.
pub type Value = Vec<TextId>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Values(Vec<Value>),
    Count(u64),
    /// And the one that the next page begins behind, if there is another page.
    Keys {
        keys: Vec<u8>,
        next: Option<u8>,
    },
    /// Something that cannot be: what nobody added, or an answer of the wrong form.
    Garbled(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Answered(Answer),
    /// Told, or certain, to have changed nothing.
    Refused(String),
    /// It may or may not have taken effect, perhaps later.
    Unknown(String),
}

/// In place of a node: the product's own client, which asks those it will, and perhaps several.
pub const ANY_NODE: u8 = u8::MAX;

/// One attempt at an op.
#[derive(Debug, Clone)]
pub struct Call {
    pub op: OpId,
    pub client: u8,
    pub node: u8,
    pub place: Place,
    pub what: What,
    pub level: Level,
    /// Which batch it was in, and at which place there.
    pub batch: Option<(u64, usize)>,
    /// How long the nodes have for it.
    pub deadline_ms: u64,
    /// It carried the request id of its op ([`History::request_id`]).
    pub with_id: bool,
    pub began_us: u64,
    /// When the answer was there, or nobody waited any more.
    pub ended_us: u64,
    pub outcome: Outcome,
    /// One of those reads that compare the replicas, or ways to read, when all is over.
    pub is_last: bool,
}

/// What all attempts at an op carry, by its number among those of its place: of two keys, or users, many have the same.
pub fn request_id(number: u64) -> String {
    format!("request-{number}")
}

impl Call {
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// The list that it gave, if that is what it asked for.
    pub fn list(&self) -> Option<&[Value]> {
        match (&self.what, self.answer()) {
            (What::Get, Some(Answer::Values(values))) => Some(values),
            _ => None,
        }
    }

    /// The values that it gave, be they the list or a part of it.
    pub fn values(&self) -> &[Value] {
        match self.answer() {
            Some(Answer::Values(values)) => values,
            _ => &[],
        }
    }

    /// For how long the nodes may work on it while nothing is in the way. In a batch, each op of the same key that comes before has its own
    /// time, and so has the check of the password.
    fn work_us_max(&self) -> u64 {
        let before = self.batch.map_or(0, |(_, at)| at as u64 + 1);
        (self.deadline_ms + before * DEADLINE_MS_DEFAULT) * 1000 + TRAVEL_US_MAX
    }

    /// Whether it promises what holds at quorum.
    pub fn is_quorum(&self) -> bool {
        self.level >= Level::Quorum
    }
}

/// A time in which something kept a node or a client from working; the calls that it touched may end as they like.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// `None`: everybody.
    pub node: Option<u8>,
    pub from_us: u64,
    pub to_us: u64,
}

/// What a node says of its queues and memory.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub at_us: u64,
    pub node: u8,
    /// Nobody has asked anything for a while.
    pub idle: bool,
    /// By the names of its metrics; of several with one name, the highest.
    pub values: BTreeMap<String, u64>,
}

/// A disk that lost what was durable.
#[derive(Debug, Clone, Copy)]
pub struct LostDisk {
    pub node: u8,
    pub at_us: u64,
    pub loss: Loss,
}

/// What is gone of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    All,
    /// What is newer than some moment.
    Newer,
    /// Bits were flipped in what lay there, or a sector became unreadable.
    Bits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldKind {
    Part,
    Value,
    Clear,
    /// All that is left of an op that was cleared: its request id.
    Spent,
}

/// One op on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOp {
    /// Of user and key.
    pub name: u64,
    pub place: Option<Place>,
    pub dot: Dot,
    pub time: HybridTime,
    pub request: Option<RequestId>,
    pub kind: HeldKind,
    /// Of the text, or of what a clear saw.
    pub digest: u64,
    /// If a client sent it.
    pub text: Option<TextId>,
    /// No clear on this disk removes it.
    pub stands: bool,
}

/// What one node's disk would hold if the power went, whatever had luck and whatever had not.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    pub at_us: u64,
    pub node: u8,
    pub ops: Vec<HeldOp>,
    /// What the disk holds or knows to be dropped.
    pub clocks: SlotClocks,
    /// What the reader of the disk took for damage.
    pub damage: Vec<String>,
    /// By its own record the node has what the others hold, and votes.
    pub is_whole: bool,
    pub log_bytes: u64,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    /// In the order in which they ended.
    pub calls: Vec<Call>,
    /// Of each op that has a request id, its number among those of its place.
    pub numbers: BTreeMap<OpId, u64>,
    pub troubles: Vec<Trouble>,
    /// Nodes whose disk lost what was durable.
    pub lost_disks: Vec<LostDisk>,
    /// In the order of their times; those of one time are of all nodes.
    pub surveys: Vec<Survey>,
    /// When more than an hour passed by all clocks.
    pub hours_us: Vec<u64>,
    /// When connections were cut, which alone is no trouble.
    pub cuts_us: Vec<u64>,
    pub retried_syncs: Vec<(u8, std::path::PathBuf)>,
    pub figures: Vec<Figures>,
    /// How much a node lets wait.
    pub bounds: Bounds,
    /// How long the clients wait for an answer.
    pub timeout_ms: u64,
    /// Some calls gave the nodes too little time on purpose.
    pub in_haste: bool,
    /// The nodes know of each other.
    pub have_peers: bool,
    /// What the logs of one node may take on its disk, bytes.
    pub log_bytes_max: u64,
    /// From here on no write of a client could change anything, until the end's own.
    pub settled_us: Option<u64>,
    /// From here on nothing of any key may lie on any disk, as all were cleared long before.
    pub reclaimed_us: Option<u64>,
    /// And from here on no request id, as an hour has passed since.
    pub forgotten_us: Option<u64>,
    /// How many replicas hold a key.
    pub replicas: usize,
    pub nodes: usize,
    /// What an operator asked for, and saw, in the order of their times.
    pub changes: Vec<Change>,
    pub tables: Vec<Table>,
}

/// What all attempts at one write amount to.
#[derive(Debug, Clone)]
pub struct Write {
    pub op: OpId,
    pub place: Place,
    /// `None` is a clear.
    pub text: Option<TextId>,
    pub finish: bool,
    pub level: Level,
    pub began_us: u64,
    /// When it was first acknowledged.
    pub acked_us: Option<u64>,
    /// Whether it can have happened, now or later.
    pub possible: bool,
    /// From here on it can no longer happen: all attempts have ended, and those whose outcome is unknown can have no effect any more.
    pub over_us: u64,
    pub batch: Option<(u64, usize)>,
    /// All attempts carried a request id.
    pub with_id: bool,
    /// How many attempts there were that may have done something.
    pub tries: u32,
    /// When the last of them may have begun that a client made by itself; else the first.
    pub tried_until_us: u64,
    /// It was acknowledged, and an attempt that came again was on its way while an hour passed: that one may count as new, so nothing is known of it.
    pub is_forgotten: bool,
}

impl Write {
    /// Of a write that was acknowledged at quorum, an attempt that began later does nothing: its request id is known. (At one, nobody asks who knows it.)
    fn is_done_before(&self, call: &Call) -> bool {
        self.with_id
            && self
                .acked_at_quorum_us()
                .is_some_and(|acked_us| acked_us <= call.began_us)
    }

    pub fn acked_at_quorum_us(&self) -> Option<u64> {
        self.acked_us.filter(|_| self.level >= Level::Quorum)
    }
}

impl History {
    pub fn request_id(&self, op: OpId) -> String {
        request_id(self.numbers.get(&op).copied().unwrap_or(op))
    }

    /// Whether a request id may have been forgotten between these moments.
    pub fn has_hour_passed(&self, from_us: u64, to_us: u64) -> bool {
        self.hours_us.iter().any(|hour_us| (from_us..=to_us).contains(hour_us))
    }

    /// From when on nothing that a client sent so far can have an effect that it did not have yet.
    pub fn settled_us(&self) -> u64 {
        let writes = self.writes();
        let possible = writes.values().flatten().filter(|write| write.possible);
        possible.map(|write| write.over_us).max().unwrap_or_default()
    }

    /// The writes of each place, in the order in which they began.
    pub fn writes(&self) -> BTreeMap<Place, Vec<Write>> {
        let quiet = Quiet::new(&self.troubles);
        let mut writes: BTreeMap<OpId, Write> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| call.what.is_write()) {
            let (text, finish) = match call.what {
                What::Add { text, finish } => (Some(text), finish),
                _ => (None, false),
            };
            let write = writes.entry(call.op).or_insert_with(|| Write {
                op: call.op,
                place: call.place,
                text,
                finish,
                level: call.level,
                began_us: call.began_us,
                acked_us: None,
                possible: false,
                over_us: 0,
                batch: call.batch,
                with_id: call.with_id,
                tries: 0,
                tried_until_us: call.began_us,
                is_forgotten: false,
            });
            let over_us = match &call.outcome {
                Outcome::Answered(_) | Outcome::Refused(_) => call.ended_us,
                Outcome::Unknown(_) => quiet.after(call.ended_us, call.work_us_max()),
            };
            let is_repeated = write.is_done_before(call);
            if is_repeated && !self.has_hour_passed(write.began_us, over_us) {
                continue;
            }
            // One that is on its way while an hour passes may be taken anew, whatever became of it before.
            write.is_forgotten |= is_repeated;
            write.with_id &= call.with_id;
            write.tries += 1;
            if call.node == ANY_NODE {
                // How often it was sent, and when, only that client knows.
                write.tries += 1;
                write.tried_until_us = write.tried_until_us.max(call.ended_us);
            }
            write.began_us = write.began_us.min(call.began_us);
            if let Outcome::Answered(_) = call.outcome {
                write.acked_us = Some(write.acked_us.map_or(call.ended_us, |acked| acked.min(call.ended_us)));
            }
            write.possible |= !matches!(call.outcome, Outcome::Refused(_));
            write.over_us = write.over_us.max(over_us);
        }
        let mut places: BTreeMap<Place, Vec<Write>> = BTreeMap::new();
        for mut write in writes.into_values() {
            write.acked_us.take_if(|_| write.is_forgotten);
            places.entry(write.place).or_default().push(write);
        }
        for writes in places.values_mut() {
            writes.sort_by_key(|write| (write.began_us, write.op));
        }
        places
    }
}

/// The times in which nothing was in the way anywhere. In all others a request may be held up: a node that is paused counts no seconds, and a
/// packet that is blocked comes later.
struct Quiet {
    /// In their order; none touches another.
    troubles: Vec<(u64, u64)>,
}

impl Quiet {
    fn new(troubles: &[Trouble]) -> Self {
        let mut all: Vec<_> = troubles
            .iter()
            .map(|trouble| (trouble.from_us, trouble.to_us))
            .collect();
        all.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from_us, to_us) in all {
            match merged.last_mut() {
                Some((_, until_us)) if from_us <= *until_us => *until_us = to_us.max(*until_us),
                _ => merged.push((from_us, to_us)),
            }
        }
        Self { troubles: merged }
    }

    /// When so much of such time has passed since `from_us`.
    fn after(&self, from_us: u64, mut quiet_us: u64) -> u64 {
        let mut at_us = from_us;
        for (from_us, to_us) in &self.troubles {
            let before_us = from_us.saturating_sub(at_us);
            if before_us >= quiet_us {
                break;
            }
            quiet_us -= before_us;
            at_us = at_us.max(*to_us);
        }
        at_us + quiet_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quiet_time_counts_and_troubles_may_overlap() {
        let trouble = |from_us, to_us| Trouble {
            node: None,
            from_us,
            to_us,
        };
        let quiet = Quiet::new(&[trouble(50, 60), trouble(10, 20), trouble(15, 30), trouble(12, 13)]);
        assert_eq!(quiet.after(0, 10), 10);
        assert_eq!(quiet.after(0, 11), 31);
        assert_eq!(quiet.after(12, 5), 35);
        assert_eq!(quiet.after(12, 21), 61);
        assert_eq!(quiet.after(70, 5), 75);
    }
}
