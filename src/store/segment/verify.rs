//! Checking a segment whole: more than any read does, since a read checks only what it touches.
//!
//! On top of the rules of each format, a block is damaged if: it does not begin where the index says that it does; places or stamps
//! do not ascend, within the block and from the one before; it does not hold as many ops as the index says, or is not the
//! run of plain values that the index says.

use super::Segment;
use super::block::{Block, Groups};
use super::block_builder::PlainRun;
use super::error::{DamagedBlock, ReadError};
use super::index::BlockRef;
use super::place::parse_place;
use super::stored::UNREADABLE;
use crate::core::stamp::Stamp;
use crate::store::codec::Malformed;

/// Where the block before ended. None when that is not known.
type Last = Option<(Vec<u8>, Stamp)>;

const ORDER: Malformed = Malformed { what: "order of ops" };

pub(super) fn damaged_blocks(segment: &Segment) -> Vec<DamagedBlock> {
    let mut damaged = Vec::new();
    let mut last = None;
    let mut next = segment.footer.index.first();
    while let Some(block) = next {
        if let Some(damage) = check(segment, &block, &mut last) {
            damaged.push(damage);
            last = None;
        }
        next = segment.footer.index.after(&block);
    }
    damaged
}

fn check(segment: &Segment, block: &BlockRef, last: &mut Last) -> Option<DamagedBlock> {
    let bytes = match segment.read_block(block) {
        Ok(bytes) => bytes,
        Err(ReadError::Damaged(damage)) => return Some(damage),
        Err(ReadError::Io { .. }) => return Some(segment.damage(block, UNREADABLE)),
    };
    let result = Block::parse(bytes).and_then(|parsed| check_block(segment, block, &parsed.groups(), last));
    result.err().map(|error| segment.damage(block, error.what))
}

fn check_block(segment: &Segment, block: &BlockRef, groups: &Groups, last: &mut Last) -> Result<(), Malformed> {
    let mut groups = groups.clone();
    let separator = segment.footer.index.separator(block.ordinal).unwrap_or_default();
    let (mut ops, mut keys, mut plain) = (0, 0, None);
    while let Some(run) = groups.next()? {
        let (slot, _, _) = parse_place(groups.place())?;
        let continues_key = keys == 0 && block.continues;
        check_place(groups.place(), &separator, last, keys == 0, continues_key)?;
        let mut stamp = last.take().filter(|_| continues_key).map(|(_, stamp)| stamp);
        let mut run_ops = groups.ops(&run, slot);
        let mut run_plain: Option<PlainRun> = None;
        while let Some(op) = run_ops.next()? {
            if stamp.is_some_and(|stamp| op.stamp() <= stamp) {
                return Err(ORDER);
            }
            stamp = Some(op.stamp());
            let next = PlainRun::of(&op);
            run_plain = match run_plain {
                None => next,
                Some(run) => next.and_then(|next| run.with(next)),
            };
            ops += 1;
        }
        keys += 1;
        plain = run_plain;
        *last = stamp.map(|stamp| (groups.place().to_vec(), stamp));
    }
    let plain_is_right = block.plain.is_none_or(|said| keys == 1 && plain == Some(said));
    if ops != block.ops || !plain_is_right {
        return Err(Malformed { what: "block index" });
    }
    Ok(())
}

/// `last` is what came before this place.
fn check_place(
    place: &[u8],
    separator: &[u8],
    last: &Last,
    is_first_of_block: bool,
    continues_key: bool,
) -> Result<(), Malformed> {
    if is_first_of_block && (place < separator || (continues_key && place != separator)) {
        return Err(Malformed { what: "block index" });
    }
    let Some((before, _)) = last else { return Ok(()) };
    let ascends = if continues_key {
        place == before
    } else {
        place > before.as_slice()
    };
    // The separator has to keep apart what it stands between.
    if is_first_of_block && !continues_key && before.as_slice() >= separator {
        return Err(Malformed { what: "block index" });
    }
    if ascends { Ok(()) } else { Err(ORDER) }
}
