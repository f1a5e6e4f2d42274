//! Writing a segment: ops in order in, one finished file out.
//!
//! Invariant: under its final name a segment is whole and durable. Until `finish` returned Ok there is only a temporary file, which
//! the next start throws away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block_builder::RunBuilder;
use super::block_stream::BlockStream;
use super::error::WriteError;
use super::footer::{FooterParts, SegmentStats};
use super::format::{BLOCK_BYTES_TARGET, FORMAT_VERSION, Header};
use super::ops::{OriginIndex, ms_of};
use super::place::put_place;
use super::slot_filters::SlotFiltersBuilder;
use super::{Segment, SegmentMeta, file_name, temporary_name};
use crate::core::clock::SlotClocks;
use crate::core::op::{Body, Op};
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::{HybridTime, OriginId, Stamp};
use crate::planted::{Bug, planted};
use crate::store::cache::BlockCache;
use crate::store::disk::{Disk, OpenMode, sync_dir_anew};
use crate::store::filter::{key_tag, parts_tag, request_tag, request_tag_in_block};

/// One op in sorted order.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    pub slot: SlotId,
    pub user: &'a str,
    pub key: &'a str,
    pub op: &'a Op,
}

/// Memory: one block, a megabyte on its way to the disk, the index, and the filters, each while it is built (see `slot_filters` for
/// what a tag takes): a slot of very many tags is held until its end.
pub struct SegmentWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    meta: SegmentMeta,
    block_bytes_target: usize,
    blocks: BlockStream,
    run: RunBuilder,
    current: Option<CurrentKey>,
    /// The place of the op that is coming in; kept for its buffer.
    incoming: Vec<u8>,
    /// Milliseconds of the first op: what all times of the segment are written against.
    base_ms: Option<u64>,
    origins: BTreeMap<OriginId, OriginIndex>,
    /// The origin of the last op: mostly the next one's too.
    last_origin: Option<(OriginId, OriginIndex)>,
    filters: SlotFiltersBuilder,
    /// The tags of the request ids in `run`.
    request_tags: Vec<u64>,
    stats: SegmentStats,
    collected: SlotClocks,
}

/// The key whose ops are coming in.
struct CurrentKey {
    place: Vec<u8>,
    slot: SlotId,
    hash: KeyHash,
    stamp: Stamp,
    has_parts: bool,
    /// That hold its ops so far.
    blocks: u32,
}

impl SegmentWriter {
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, meta: SegmentMeta) -> Result<Self, WriteError> {
        Self::with_block_bytes(disk, dir, meta, BLOCK_BYTES_TARGET)
    }

    /// Cuts blocks at about `block_bytes_target`.
    pub fn with_block_bytes(
        disk: Arc<dyn Disk>,
        dir: &Path,
        meta: SegmentMeta,
        block_bytes_target: usize,
    ) -> Result<Self, WriteError> {
        let path = dir.join(temporary_name(meta.number));
        let io = |error| WriteError::Io {
            number: meta.number,
            error,
        };
        // Left by an earlier try at this number.
        if disk.exists(&path).map_err(io)? {
            disk.remove_file(&path).map_err(io)?;
        }
        let file = disk.open(&path, OpenMode::CreateNew).map_err(io)?;
        let header = Header {
            version: FORMAT_VERSION,
            shard: meta.shard,
            number: meta.number,
        };
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            meta,
            block_bytes_target,
            blocks: BlockStream::new(file, header, block_bytes_target),
            run: RunBuilder::default(),
            current: None,
            incoming: Vec::new(),
            base_ms: None,
            origins: BTreeMap::new(),
            last_origin: None,
            filters: SlotFiltersBuilder::default(),
            request_tags: Vec::new(),
            stats: SegmentStats::default(),
            collected: SlotClocks::default(),
        })
    }

    /// Takes the next op: strictly ascending by slot, user, key and stamp.
    pub fn push(&mut self, entry: EntryRef<'_>) -> Result<(), WriteError> {
        self.incoming.clear();
        put_place(&mut self.incoming, entry.slot, entry.user, entry.key);
        let stamp = entry.op.stamp();
        let is_new_key = self.current.as_ref().is_none_or(|key| key.place != self.incoming);
        let in_order = match &self.current {
            Some(key) if is_new_key => self.incoming > key.place,
            Some(key) => stamp > key.stamp,
            None => true,
        };
        let is_right = in_order && entry.op.dot.slot == entry.slot && entry.op.dot.seq > 0;
        debug_assert!(is_right, "out of order, or of another slot: {entry:?}");
        if !is_right {
            return Err(WriteError::OutOfOrder);
        }
        if is_new_key {
            self.end_run(false)?;
            self.start_key(&entry);
        }
        self.count(entry.op);
        self.add_op(entry.op)
    }

    /// Bytes of the file so far, about.
    pub fn written_bytes(&self) -> u64 {
        self.blocks.bytes() + self.run.bytes() as u64
    }

    fn start_key(&mut self, entry: &EntryRef<'_>) {
        let hash = KeyHash::of_bytes(entry.user.as_bytes(), entry.key.as_bytes());
        let mut place = self.current.take().map(|key| key.place).unwrap_or_default();
        std::mem::swap(&mut place, &mut self.incoming);
        self.current = Some(CurrentKey {
            place,
            slot: entry.slot,
            hash,
            stamp: entry.op.stamp(),
            has_parts: false,
            blocks: 0,
        });
        self.filters.go_on_in(entry.slot);
        self.filters.add(key_tag(hash));
        self.stats.keys += 1;
    }

    /// Stats and filter.
    fn count(&mut self, op: &Op) {
        self.stats.add(op);
        let Some(key) = &mut self.current else { return };
        key.stamp = op.stamp();
        if matches!(op.body, Body::Part(_)) && !key.has_parts {
            key.has_parts = true;
            self.filters.add(parts_tag(key.hash));
        }
    }

    fn number_of(&mut self, origin: OriginId) -> OriginIndex {
        if let Some((last, number)) = self.last_origin
            && last == origin
        {
            return number;
        }
        let next = self.origins.len() as OriginIndex;
        let number = *self.origins.entry(origin).or_insert(next);
        self.last_origin = Some((origin, number));
        number
    }

    fn add_op(&mut self, op: &Op) -> Result<(), WriteError> {
        let origin = self.number_of(op.dot.origin);
        if self.base_ms.is_none() {
            let base_ms = ms_of(op.time);
            self.base_ms = Some(base_ms);
            self.blocks.set_base(base_ms);
            self.run.reset(base_ms);
        }
        let text_bytes = match &op.body {
            Body::Part(text) | Body::Value(text) => text.len(),
            Body::Clear(_) | Body::Spent { .. } => 0,
        };
        // A run as long as a block is cut, and so is one that the next op would make too long.
        if !self.run.is_empty() && self.run.bytes() + text_bytes >= self.block_bytes_target {
            self.cut_run()?;
        }
        self.run.push(op, origin);
        if let (Some(request), Some(key)) = (op.request_id, &self.current) {
            self.request_tags.push(request_tag(key.hash, request));
        }
        if self.run.bytes() >= self.block_bytes_target {
            self.cut_run()?;
        }
        Ok(())
    }

    /// The key goes on in another block.
    fn cut_run(&mut self) -> Result<(), WriteError> {
        self.end_run(true)?;
        self.blocks.seal()
    }

    /// Puts the run into a block. `is_cut`: the key may go on in another one.
    fn end_run(&mut self, is_cut: bool) -> Result<(), WriteError> {
        if let Some(key) = &mut self.current
            && !self.run.is_empty()
        {
            self.blocks.add_run(&key.place, &self.run)?;
            self.run.reset(self.base_ms.unwrap_or_default());
            // Of a key in one block, that one is read: a second tag would not be worth its memory.
            if is_cut || key.blocks > 0 {
                for &tag in &self.request_tags {
                    self.filters.add(request_tag_in_block(tag, key.blocks));
                }
            }
            self.request_tags.drain(..).for_each(|tag| self.filters.add(tag));
            key.blocks += 1;
        }
        Ok(())
    }

    /// The segment says that there was a time as high as this.
    pub fn note_time(&mut self, time: HybridTime) {
        self.stats.max_time = self.stats.max_time.max(time);
    }

    /// More of what was collected (see `Segment::collected`).
    pub fn add_collected(&mut self, clocks: &SlotClocks) {
        self.collected.join(clocks);
    }

    /// Ends the file, gives it its name, and opens it. Durable on Ok; on Err it may or may not survive, whole.
    ///
    /// `covered` are the dots that are held here or known to be dropped; `lost` those that are known to exist and that this
    /// replica lost.
    pub fn finish(
        mut self,
        covered: SlotClocks,
        lost: SlotClocks,
        cache: &Arc<BlockCache>,
    ) -> Result<Segment, WriteError> {
        self.end_run(false)?;
        let done = self.blocks.finish_blocks()?;
        let filters = std::mem::take(&mut self.filters).finish();
        let footer = FooterParts {
            replaces: &self.meta.replaces,
            stats: &self.stats,
            last_slot: self.current.as_ref().map_or(SlotId(0), |key| key.slot),
            raw_bytes_max: done.raw_bytes_max,
            covered: &covered,
            lost: &lost,
            collected: &self.collected,
            block_count: done.block_count,
            index: &done.index,
            filters: &filters,
        };
        self.blocks.finish_file(&footer.pieces())?;
        // What is opened has its own.
        drop((done, filters));
        let SegmentMeta { shard, number, .. } = self.meta;
        let io = |error| WriteError::Io { number, error };
        let (from, to) = (self.dir.join(temporary_name(number)), self.dir.join(file_name(number)));
        let renamed = self.disk.rename(&from, &to);
        if planted(Bug::RenameIgnored) && renamed.is_err() {
            return Ok(Segment::open_path(&self.disk, &from, &file_name(number), cache)?);
        }
        renamed.map_err(io)?;
        // A rename is not durable without it. Another job's sync that failed since may have dropped it; the name of before is free.
        sync_dir_anew(&*self.disk, &self.dir, &temporary_name(number)).map_err(io)?;
        Ok(Segment::open(&self.disk, &self.dir, shard, number, cache)?)
    }

    /// Removes the temporary file.
    pub fn abandon(self) {
        let Self {
            disk,
            dir,
            meta,
            blocks,
            ..
        } = self;
        drop(blocks);
        // If this fails too, the next start throws the file away by its name.
        let _ = disk.remove_file(&dir.join(temporary_name(meta.number)));
    }
}
