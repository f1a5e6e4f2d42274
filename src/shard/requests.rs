//! Whether a request id was taken, and for what: asked for a write, or from outside of the shard.

use super::published::those_of_key;
use super::write::{GroupNumber, Submitted, Write, WriteKind, WriteRefused};
use super::{Shard, ShardReader};
use crate::core::op::{Body, KeyedOp};
use crate::core::slot::{KeyHash, SlotId};
use crate::store::export::op_as_left;
use crate::store::filter::request_tag;
use crate::store::memtable::{MemoryOps, Memtable, SharedMemtable};
use crate::store::order::rank_of;
use crate::store::segment::ReadError;
use crate::store::source::KeySource;
use crate::types::{Key, RequestId, UserId, WallMs};

/// What is known of a request id without a look at the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestHeld {
    No,
    /// A memtable holds it; its op may not be durable yet.
    Memory,
    /// A filter says so, which is wrong for 1 id in 256.
    MayBeOnDisk,
}

impl WriteKind {
    /// Whether it may be what was done under its request id, sent again. Of what was cleared the id alone is left.
    pub fn may_have_done(&self, done: &Body) -> bool {
        match (self, done) {
            (_, Body::Spent { .. }) => true,
            (Self::Add { text, finish: true }, Body::Value(done)) => text == done,
            (Self::Add { text, finish: false }, Body::Part(done)) => text == done,
            (Self::Clear | Self::ClearDots(_), Body::Clear(_)) => true,
            _ => false,
        }
    }
}

/// What is answered to a write whose request id was taken.
pub(super) fn repeated(write: &Write, group: Option<GroupNumber>, done: &Body) -> Result<Submitted, WriteRefused> {
    match write.kind.may_have_done(done) {
        true => Ok(Submitted::Repeated(group)),
        false => Err(WriteRefused::OtherRequest),
    }
}

impl Shard {
    /// `Some` if a memtable holds the request id for the key: the group to wait for, if it is not durable yet, and what was done.
    pub(super) fn taken_in_memory(&self, write: &Write, id: RequestId) -> Option<(Option<GroupNumber>, Body)> {
        let held = |memtable: &SharedMemtable| memtable.read().request(&write.user, &write.key, id);
        if let Some((group, done)) = self.logs.active().and_then(|active| held(active.memtable())) {
            return Some((self.logs.not_durable(group), done));
        }
        let (_, done) = self.logs.frozen().find_map(held)?;
        Some((None, done))
    }
}

impl ShardReader {
    pub fn request(&self, (slot, hash): (SlotId, KeyHash), user: &UserId, key: &Key, id: RequestId) -> RequestHeld {
        let readable = self.readable.load();
        let in_memory = |memtable: &Memtable| memtable.group_of_request(user, key, id).is_some();
        if readable.memtables.iter().any(|memtable| in_memory(&memtable.read())) {
            return RequestHeld::Memory;
        }
        let tag = request_tag(hash, id);
        match readable.segments.iter().any(|segment| segment.may_hold(slot, tag)) {
            true => RequestHeld::MayBeOnDisk,
            false => RequestHeld::No,
        }
    }

    /// The op that took the request id, be it durable or not; where a clear removed it, what is left of it. Blocks on the disk.
    pub fn op_of_request(
        &self,
        slot: SlotId,
        hash: KeyHash,
        user: &UserId,
        key: &Key,
        id: RequestId,
        now: WallMs,
    ) -> Result<Option<KeyedOp>, ReadError> {
        let readable = self.readable.load_full();
        let keyed = |op| KeyedOp {
            user: user.clone(),
            key: key.clone(),
            op,
        };
        // Also if it is in an open group: whether that becomes durable is the caller's concern.
        let memory = MemoryOps::of(&readable.memtables, (user, key), |memtable| {
            memtable.closed_groups() + 1
        });
        let mut taken: Vec<_> = memory.iter().filter(|op| op.request_id == Some(id)).collect();
        let tag = request_tag(hash, id);
        for segment in readable.segments.iter().filter(|segment| segment.may_hold(slot, tag)) {
            // Of a long list a few blocks: it may be asked for again and again.
            let mut ops = segment.ops_of(slot, user.as_str(), key.as_str());
            while let Some(op) = ops.next_of_request(tag, id)? {
                taken.push(op);
            }
        }
        // The first one counts; of its copies, what a clear left of it.
        let Some(first) = taken.into_iter().min_by_key(rank_of) else {
            return Ok(None);
        };
        // Only durable clears: one that may still fail has removed nothing.
        let all = KeySource {
            slot,
            user: user.clone(),
            key: key.clone(),
            memory: readable.memory_ops(user, key),
            segments: those_of_key(&readable.segments, slot, hash),
        };
        Ok(op_as_left(&all, first, now)?.map(keyed))
    }
}
