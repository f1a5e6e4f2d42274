//! Reading one key of a segment.

use std::sync::Arc;

use super::block::RunOps;
use super::block_builder::PlainRun;
use super::error::ReadError;
use super::index::BlockRef;
use super::{Malformed, Segment};
use crate::core::op::Op;
use crate::core::slot::SlotId;
use crate::store::filter::request_tag_in_block;
use crate::types::RequestId;

/// Blocks of one key that are kept in the cache, a quarter of a mebibyte. What a longer list has beyond them would drive everything else
/// out, to be read once.
const KEPT_BLOCKS_MAX: u32 = 32;

/// What becomes of a block that had to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    InCache,
    No,
}

/// The ops of one key in the order of their stamps, block by block as they are asked for.
///
/// The texts it gives are slices of a cached block: they keep the whole block in memory for as long as they are held.
pub struct OpCursor {
    segment: Arc<Segment>,
    place: Vec<u8>,
    slot: SlotId,
    /// Ordinal of the first block that can hold the key.
    first: u32,
    /// Ops were found: every further block is one that the index says goes on with the key.
    has_begun: bool,
    state: State,
    /// The block of the op that was given last, if it is the first that the block has of the key.
    began: Option<BlockRef>,
}

enum State {
    /// The next op is to be looked for in this block, which is not read yet.
    At(BlockRef),
    In {
        block: BlockRef,
        ops: RunOps,
        /// None of them was given yet.
        is_new: bool,
        /// The key may go on in the block behind this one.
        reaches_end: bool,
    },
    Done,
}

impl OpCursor {
    pub(super) fn new(segment: Arc<Segment>, place: Vec<u8>, slot: SlotId, start: Option<BlockRef>) -> Self {
        Self {
            segment,
            place,
            slot,
            first: start.map_or(0, |block| block.ordinal),
            has_begun: false,
            state: start.map_or(State::Done, State::At),
            began: None,
        }
    }

    /// After an error the same error comes again: what is behind the damage could be out of context.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error is not an item: reading stops there"
    )]
    pub fn next(&mut self) -> Result<Option<Op>, ReadError> {
        loop {
            match &mut self.state {
                State::Done => return Ok(None),
                State::At(block) => {
                    let block = *block;
                    self.enter(block)?;
                }
                State::In {
                    block,
                    ops,
                    is_new,
                    reaches_end,
                } => {
                    let next = ops.next().map_err(|error| self.segment.damaged(block, error))?;
                    self.began = std::mem::take(is_new).then_some(*block);
                    if ops.is_done() {
                        let (block, reaches_end) = (*block, *reaches_end);
                        // Said now, not at the next call, so that a plain block that follows shows.
                        self.state = self.behind(&block, reaches_end);
                    }
                    if next.is_some() {
                        return Ok(next);
                    }
                }
            }
        }
    }

    /// Lets go of the block that the last op was given from, and gives that op once more. False, and nothing done, unless it was the first
    /// that the block has of the key, as one is whose text is longer than blocks are.
    pub fn step_back(&mut self) -> bool {
        let Some(block) = self.began.take() else {
            return false;
        };
        self.state = State::At(block);
        true
    }

    /// When all that the next block holds is plain values of this key: what is known of them without reading it.
    pub fn plain_run(&self) -> Option<PlainRun> {
        match &self.state {
            State::At(block) => block.plain,
            State::In { .. } | State::Done => None,
        }
    }

    /// Leaves out the block that `plain_run` spoke of.
    pub fn skip_plain_run(&mut self) {
        if let State::At(block) = &self.state
            && block.plain.is_some()
        {
            self.state = self.behind(block, true);
        }
    }

    /// The next op that has the request id, whose tag is `tag` (see `filter`). Blocks that the filter rules out, or that are known to hold no request id, are not read.
    pub fn next_of_request(&mut self, tag: u64, id: RequestId) -> Result<Option<Op>, ReadError> {
        loop {
            while let State::At(block) = self.state
                && !self.may_hold_request(&block, tag)
            {
                let next = self.segment.behind(&block, &self.place);
                self.state = next.map_or(State::Done, State::At);
                self.has_begun = true;
            }
            match self.next()? {
                Some(op) if op.request_id == Some(id) => return Ok(Some(op)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn may_hold_request(&self, block: &BlockRef, tag: u64) -> bool {
        if block.plain.is_some_and(|run| !run.has_request_ids) {
            return false;
        }
        let ordinal = block.ordinal - self.first;
        // Only a key in more than one block has tags by block.
        let has_tags = self.segment.has_block_tags() && (ordinal > 0 || self.segment.goes_on(block, &self.place));
        !has_tags || self.segment.may_hold(self.slot, request_tag_in_block(tag, ordinal))
    }

    /// What follows a block: the next one when the key goes on there.
    fn behind(&self, block: &BlockRef, reaches_end: bool) -> State {
        let next = self.segment.footer.index.after(block);
        match next.filter(|next| reaches_end && next.continues) {
            Some(next) => State::At(next),
            None => State::Done,
        }
    }

    /// Whether the next call of `next` does no I/O.
    pub fn is_cached(&self) -> bool {
        match &self.state {
            State::At(block) => self.segment.cache.holds(self.segment.key_of(block)),
            State::In { .. } | State::Done => true,
        }
    }

    fn enter(&mut self, block: BlockRef) -> Result<(), ReadError> {
        let far = block.ordinal.saturating_sub(self.first) >= KEPT_BLOCKS_MAX;
        let loaded = self
            .segment
            .load_with(&block, if far { Keep::No } else { Keep::InCache })?;
        let damaged = |error| self.segment.damaged(&block, error);
        let run = loaded.find(&self.place).map_err(damaged)?;
        self.state = match run {
            Some(run) => State::In {
                ops: loaded.ops(&run, self.slot),
                is_new: true,
                reaches_end: run.is_last,
                block,
            },
            None if self.has_begun => return Err(damaged(Malformed { what: "continued key" })),
            None => State::Done,
        };
        self.has_begun = true;
        Ok(())
    }
}
