//! Writing: from a request to a record in the open group.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Shard;
use super::open_parts::OpenBytes;
use super::published::those_of_key;
use super::requests::repeated;
use crate::core::clock::Clock;
use crate::core::op::{Body, KeyedOp, Op, Text};
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::HybridTime;
use crate::planted::{Bug, planted, takes_retries};
use crate::store::filter::{parts_tag, request_tag};
use crate::store::log::record_bytes;
use crate::store::memtable::{MemoryOps, OpenParts};
use crate::store::reader::{self, KeyPast};
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::store::segment::{ReadError, Segment};
use crate::store::source::KeySource;
use crate::types::{Key, RequestId, UserId, WallMs};

/// The group of a log in which an op is written, counted over the shard's life in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GroupNumber(pub u64);

#[derive(Debug, Clone)]
pub enum WriteKind {
    /// A piece of a value, the last one when `finish`.
    Add { text: Text, finish: bool },
    /// Removes all that `WriteContext::seen` covers.
    Clear,
    /// Removes exactly the ops of the key with these dots.
    ClearDots(Clock),
}

impl WriteKind {
    /// The length of the text that it brings.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Add { text, .. } => text.len(),
            Self::Clear | Self::ClearDots(_) => 0,
        }
    }
}

/// What other replicas know that a write has to come after.
#[derive(Debug, Clone, Default)]
pub struct WriteContext {
    /// It is stamped later than this.
    pub after: HybridTime,
    /// The wall clock when the others were asked; they were told that the write is stamped by it.
    pub asked_at: Option<WallMs>,
    /// What a clear removes, as a quorum reported it; if absent, all that this replica holds when the clear is appended.
    ///
    /// A clear may be tried twice, succeed with its second try, and be appended by its first one only after others have added something: it
    /// must not remove what came after it was asked for.
    pub seen: Option<Clock>,
}

/// One write to one key of the shard.
#[derive(Debug, Clone)]
pub struct Write {
    pub slot: SlotId,
    pub hash: KeyHash,
    pub user: UserId,
    pub key: Key,
    pub kind: WriteKind,
    pub request_id: Option<RequestId>,
    pub context: WriteContext,
}

impl Write {
    /// Whether it is let through where only what frees space is.
    fn is_clear(&self) -> bool {
        !matches!(self.kind, WriteKind::Add { .. })
    }

    /// After `next_op`, when the write has to wait.
    fn take_text_back(&mut self, op: Op) {
        if let (WriteKind::Add { text, .. }, Body::Value(taken) | Body::Part(taken)) = (&mut self.kind, op.body) {
            *text = taken;
        }
    }
}

/// What became of a write that was not refused.
pub enum Submitted {
    /// This op came of it, durable once this group is.
    InGroup(GroupNumber, KeyedOp),
    /// Its request id was taken before; durable once that group is, or already.
    Repeated(Option<GroupNumber>),
    /// The log has no room right now: submit it again when a job was done. Writes after it have to wait behind it.
    NeedsSpace(Write),
    /// The key's past has to be looked up on disk first: run it, and submit the write again with the result.
    NeedsPast(Write, Box<PastLookup>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    #[error("a value assembled from parts is limited to {max} bytes; this one would have {got}")]
    ValueTooLong { got: u64, max: u64 },
    #[error("the request id was used for something else")]
    OtherRequest,
    #[error("the disk is full")]
    DiskFull,
    #[error("the shard has stopped")]
    Stopped,
    #[error("a log of which parts could not be read is not sealed yet")]
    Unsealed,
}

/// A look into a key's past, and what it is based on.
pub struct PastLookup {
    source: KeySource,
    request_id: Option<RequestId>,
    /// Nothing is asked but whether the request id was taken; the source holds only what may tell.
    only_request: bool,
    /// The key's newest op in each memtable, where the whole past is asked for.
    versions: Vec<Option<(u64, u32)>>,
    /// All that there were: what they and the memtables hold of the request id is known once it was run.
    segments: BTreeSet<u64>,
    found: KeyPast,
}

impl PastLookup {
    /// Blocks on the disk.
    pub fn run(&mut self) -> Result<(), ReadError> {
        match self.request_id {
            Some(id) if self.only_request => self.found.taken = reader::taken(&self.source, id)?,
            id => self.found = reader::past(&self.source, id)?,
        }
        Ok(())
    }
}

impl Shard {
    /// Takes a write: stamps it and puts it into the open group. `past` is the result of the look-up that an earlier call asked for.
    pub fn submit(&mut self, write: Write, past: Option<&PastLookup>, now: WallMs) -> Result<Submitted, WriteRefused> {
        if self.failed.is_some() {
            return Err(WriteRefused::Stopped);
        }
        // Until such a log is sealed, what could not be read of it is lost by the word of memory alone. A clear would not name it, and a later start that
        // can read it would bring back what is cleared.
        if write.is_clear() && self.place.is_alone() && self.logs.has_unread() {
            return Err(WriteRefused::Unsealed);
        }
        if let Some(id) = write.request_id
            && !takes_retries()
            && !(planted(Bug::ClearTakenAnew) && write.is_clear())
            && let Some((group, done)) = self.taken_in_memory(&write, id)
        {
            return repeated(&write, group, &done);
        }
        // What was taken stays taken, whatever happened to the key since.
        if let Some(done) = past.and_then(|past| past.found.taken.as_ref())
            && !takes_retries()
        {
            return repeated(&write, None, done);
        }
        self.learn(&write, past);
        if self.may_be_repeated_on_disk(&write, past) {
            let open_is_known = write.is_clear() || self.open_bytes(&write).is_some();
            let lookup = self.look_up(&write, past, open_is_known);
            return Ok(Submitted::NeedsPast(write, lookup));
        }
        let Some(open) = self.assembled(&write, past)? else {
            let lookup = self.look_up(&write, past, false);
            return Ok(Submitted::NeedsPast(write, lookup));
        };
        self.append(write, open, now)
    }

    /// Keeps what was looked up for a write. What was appended since is not counted, and what was sealed or merged since is the same in
    /// other places: if either called for another look-up, a busy key, or a long one in a busy shard, would never be done.
    pub fn learn(&mut self, write: &Write, past: Option<&PastLookup>) {
        if let Some(past) = past.filter(|past| !past.only_request)
            && let Some(bytes) = past.found.open_parts_bytes
        {
            let is_exact = self.unseen(Some(past)).next().is_none() && self.versions(write) == past.versions;
            self.open_parts.learn(&write.user, &write.key, bytes, is_exact);
        }
    }

    /// Bytes of the value that the write would finish or go on with, if that is not too long; `None` if the past has to be looked up.
    fn assembled(&mut self, write: &Write, past: Option<&PastLookup>) -> Result<Option<OpenBytes>, WriteRefused> {
        let WriteKind::Add { text, .. } = &write.kind else {
            return Ok(Some(OpenBytes::exactly(0)));
        };
        let looked_up = past.and_then(|past| past.found.open_parts_bytes);
        let Some(mut open) = self.open_bytes(write) else {
            return Ok(None);
        };
        let max = self.config.value_bytes_max;
        let text_bytes = text.len() as u64;
        let got = open.bytes + text_bytes;
        if got > max {
            // It may be less, and only what was looked up can tell that a value is too long.
            match looked_up {
                None if !open.is_exact => return Ok(None),
                Some(bytes) if bytes + text_bytes <= max => {}
                _ => return Err(WriteRefused::ValueTooLong { got, max }),
            }
        }
        open.bytes = got;
        Ok(Some(open))
    }

    fn append(&mut self, mut write: Write, open: OpenBytes, now: WallMs) -> Result<Submitted, WriteRefused> {
        let op = self.next_op(&mut write, now);
        let bytes = record_bytes(write.user.as_str(), write.key.as_str(), &op) as u64;
        let clear = write.is_clear();
        let has_room = self.make_room(bytes, clear)?;
        if !has_room {
            write.take_text_back(op);
            return Ok(Submitted::NeedsSpace(write));
        }
        let clears_all = self.clears_all(&op);
        self.put_own(&write, &op, now);
        if planted(Bug::PartTwice) && matches!(op.body, Body::Part(_)) {
            let mut twice = op.clone();
            twice.dot.seq += 1;
            twice.time.0 += 1;
            self.put_own(&write, &twice, now);
        }
        match write.kind {
            WriteKind::Add { finish: false, .. } => self.open_parts.remember(&write.user, &write.key, open),
            // It comes after all that is here.
            WriteKind::Add { finish: true, .. } => self.open_parts.end(&write.user, &write.key),
            _ if clears_all => self.open_parts.end(&write.user, &write.key),
            _ => self.open_parts.forget(&write.user, &write.key),
        }
        let Write { user, key, .. } = write;
        Ok(Submitted::InGroup(self.logs.open_group(), KeyedOp { user, key, op }))
    }

    fn put_own(&mut self, write: &Write, op: &Op, now: WallMs) {
        self.put(write.hash, &write.user, &write.key, op, now);
        self.dots.cover(op.dot);
        self.naming.use_dot(op.dot.slot);
    }

    /// Puts the op into the open group of the active memtable, which has room for it. That it is covered now is for the caller to note.
    pub(super) fn put(&mut self, hash: KeyHash, user: &UserId, key: &Key, op: &Op, now: WallMs) {
        let Some(active) = self.logs.active() else {
            debug_assert!(false, "no room was made");
            return;
        };
        active.memtable().write().append(user, key, op);
        self.naming.observe(op.time);
        self.published.tell_time(op.time);
        self.dots.put(op.dot);
        self.last_write = Some(now);
        if matches!(op.body, Body::Clear(_)) {
            self.note_clear(op.dot.slot, hash, (user, key));
        }
    }

    /// The op that the write becomes if it is appended now. Changes nothing but that the text is moved out of the write.
    fn next_op(&self, write: &mut Write, now: WallMs) -> Op {
        let dot = self.naming.next_dot(write.slot);
        let body = match &mut write.kind {
            WriteKind::Add { text, finish: true } => Body::Value(std::mem::take(text)),
            WriteKind::Add { text, finish: false } => Body::Part(std::mem::take(text)),
            WriteKind::Clear => {
                let held = || {
                    let mut held = self.dots.covered().get(write.slot).cloned().unwrap_or_default();
                    held.insert_range(dot.origin, 1, dot.seq - 1);
                    held
                };
                let mut seen = write.context.seen.clone().unwrap_or_else(held);
                // A loss that nobody could name is no op, and no other replica ever covers it.
                seen.remove_origin(UNKNOWN_ORIGIN);
                Body::Clear(seen)
            }
            WriteKind::ClearDots(dots) => Body::Clear(dots.clone()),
        };
        let after = write.context.after.max(self.published.highest_time());
        Op {
            dot,
            time: self.naming.next_time(after, write.context.asked_at.unwrap_or(now)),
            request_id: write.request_id,
            body,
        }
    }

    /// Whether the op is a clear of all that is here.
    fn clears_all(&self, op: &Op) -> bool {
        let Body::Clear(seen) = &op.body else { return false };
        let held = self.dots.covered().get(op.dot.slot);
        held.is_none_or(|held| seen.covers(held))
    }

    fn may_be_repeated_on_disk(&self, write: &Write, past: Option<&PastLookup>) -> bool {
        write.request_id.is_some_and(|id| {
            let tag = request_tag(write.hash, id);
            self.unseen(past).any(|segment| segment.may_hold(write.slot, tag))
        })
    }

    /// Segments that came since the look-up began. All that they hold was appended since then, or seen by it in another segment or a memtable.
    fn unseen(&self, past: Option<&PastLookup>) -> impl Iterator<Item = &Arc<Segment>> {
        let is_seen = move |number| past.is_some_and(|past| past.segments.contains(&number));
        let segments = self.segments.all().iter();
        segments.filter(move |segment| !is_seen(segment.number()))
    }

    /// Bytes of the parts that the write would finish or follow; `None` if only the disk knows.
    fn open_bytes(&self, write: &Write) -> Option<OpenBytes> {
        let remembered = self.open_parts.get(&write.user, &write.key);
        remembered.or_else(|| self.open_bytes_in_memory(write).map(OpenBytes::exactly))
    }

    fn open_bytes_in_memory(&self, write: &Write) -> Option<u64> {
        // Where nobody sends parts, no key has to be looked up.
        let in_memory = self.logs.memtables().any(|memtable| memtable.read().has_parts());
        if !in_memory && self.segments.all().iter().all(|segment| segment.stats().parts == 0) {
            return Some(0);
        }
        let mut unfinished = 0;
        let mut unclear = false;
        for memtable in self.logs.memtables().rev() {
            match memtable.read().open_parts(&write.user, &write.key) {
                Some(OpenParts::Known(bytes)) => {
                    let open = unfinished + bytes;
                    return (!unclear || open == 0).then_some(open);
                }
                Some(OpenParts::Unfinished(bytes)) => unfinished += bytes,
                Some(OpenParts::Unclear { has_parts: true }) => return None,
                Some(OpenParts::Unclear { has_parts: false }) => unclear = true,
                None => {}
            }
        }
        let tag = parts_tag(write.hash);
        let on_disk = self
            .segments
            .all()
            .iter()
            .any(|segment| segment.stats().parts > 0 && segment.may_hold(write.slot, tag));
        (!on_disk && (!unclear || unfinished == 0)).then_some(unfinished)
    }

    /// What is to be looked up yet, `past` having been.
    fn look_up(&self, write: &Write, past: Option<&PastLookup>, open_is_known: bool) -> Box<PastLookup> {
        let (source, only_request) = match write.request_id {
            // A filter errs for 1 id in 256: on a busy shard there is a look-up under way all the time.
            Some(id) if open_is_known => (self.request_source(write, past, id), true),
            _ => (self.past_source(write), false),
        };
        Box::new(PastLookup {
            request_id: write.request_id,
            only_request,
            versions: self.versions(write),
            segments: self.segments.all().iter().map(|segment| segment.number()).collect(),
            source,
            found: past.map(|past| past.found.clone()).unwrap_or_default(),
        })
    }

    /// The segments that may hold the request id and were not looked into; memtables were asked before.
    fn request_source(&self, write: &Write, past: Option<&PastLookup>, id: RequestId) -> KeySource {
        let tag = request_tag(write.hash, id);
        let may_hold = |segment: &&Arc<Segment>| segment.may_hold(write.slot, tag);
        KeySource {
            slot: write.slot,
            user: write.user.clone(),
            key: write.key.clone(),
            memory: MemoryOps::default(),
            segments: self.unseen(past).filter(may_hold).cloned().collect(),
        }
    }

    fn past_source(&self, write: &Write) -> KeySource {
        // Ops that are not durable yet count too, even those of the open group: they come before this write in the log, so where they are
        // lost, it is lost as well.
        let name = (&write.user, &write.key);
        let memory = MemoryOps::of(self.logs.memtables(), name, |memtable| memtable.closed_groups() + 1);
        KeySource {
            slot: write.slot,
            user: write.user.clone(),
            key: write.key.clone(),
            memory,
            segments: those_of_key(self.segments.all(), write.slot, write.hash),
        }
    }

    fn versions(&self, write: &Write) -> Vec<Option<(u64, u32)>> {
        self.logs
            .memtables()
            .map(|memtable| memtable.read().version_of(&write.user, &write.key))
            .filter(Option::is_some)
            .collect()
    }
}
