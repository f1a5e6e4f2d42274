//! Ops as bytes: each is written against the one before it in the same key.
//!
//! ```text
//! tag            1        bits 0-1 kind (0 part, 1 value, 2 clear, 3 spent) | 2 has a request id | 3 zero
//!                         | 4 same origin as before | 5 has a counter | 6 the sequence after the one before | 7 zero
//! milliseconds   1 - 7    of the first op of a run: zigzag varint against the block's base; later: varint since the op before
//! counter        0 - 3    varint: the low 16 bits of the hybrid time, when not zero
//! origin         0 - 3    varint: its number in the segment, when it is not that of the op before (at first: 0)
//! sequence       0 - 10   zigzag varint against the op before (at first and after a change of origin: 0)
//! request id     0 or 16
//! body                    part, value: length (varint), UTF-8 | clear: clock | spent: varint, when it was cleared
//! ```
//!
//! Corrupt if: bit 3 or 7 is set; the milliseconds do not fit 48 bits or the counter 16; the block does not name the origin;
//! the sequence is 0; a text is no UTF-8; anything is cut short.

use bytes::Bytes;

use crate::core::op::{Body, Dot, Fragment, Op, Text};
use crate::core::slot::SlotId;
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::codec::{Cursor, Malformed, put_bytes, put_clock, put_varint};
use crate::types::{RequestId, WallMs};

const KIND: u8 = 0b11;
const HAS_REQUEST: u8 = 1 << 2;
const SAME_ORIGIN: u8 = 1 << 4;
const HAS_COUNTER: u8 = 1 << 5;
const NEXT_SEQUENCE: u8 = 1 << 6;
const UNUSED: u8 = 1 << 3 | 1 << 7;

const PART: u8 = 0;
const VALUE: u8 = 1;

const COUNTER_BITS: u32 = 16;
const MS_MAX: u64 = (1 << 48) - 1;

/// An origin's number within its segment.
pub type OriginIndex = u32;

/// What the next op is written against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    first: bool,
    ms: u64,
    origin: OriginIndex,
    seq: u64,
}

impl Before {
    /// At the start of a key's run of ops in a block.
    pub fn start(base_ms: u64) -> Self {
        Self {
            first: true,
            ms: base_ms,
            origin: 0,
            seq: 0,
        }
    }

    /// The origin of the last op.
    pub fn origin(&self) -> OriginIndex {
        self.origin
    }
}

fn zigzag(value: u64) -> u64 {
    (value << 1) ^ ((value as i64) >> 63) as u64
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// The milliseconds of a time, which all times of a segment are written against.
pub fn ms_of(time: HybridTime) -> u64 {
    time.0 >> COUNTER_BITS
}

pub fn put_op(out: &mut Vec<u8>, before: &mut Before, op: &Op, origin: OriginIndex) {
    let (ms, counter) = (ms_of(op.time), op.time.0 & ((1 << COUNTER_BITS) - 1));
    let same_origin = origin == before.origin;
    let seq_before = if same_origin { before.seq } else { 0 };
    let follows = op.dot.seq == seq_before.wrapping_add(1);
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    out.push(
        kind_of(&op.body)
            | flag(op.request_id.is_some(), HAS_REQUEST)
            | flag(same_origin, SAME_ORIGIN)
            | flag(counter != 0, HAS_COUNTER)
            | flag(follows, NEXT_SEQUENCE),
    );
    let since = ms.wrapping_sub(before.ms);
    put_varint(out, if before.first { zigzag(since) } else { since });
    if counter != 0 {
        put_varint(out, counter);
    }
    if !same_origin {
        put_varint(out, u64::from(origin));
    }
    if !follows {
        put_varint(out, zigzag(op.dot.seq.wrapping_sub(seq_before)));
    }
    if let Some(id) = &op.request_id {
        out.extend_from_slice(&id.0);
    }
    match &op.body {
        Body::Part(text) | Body::Value(text) => put_bytes(out, text.as_bytes()),
        Body::Clear(context) => put_clock(out, context),
        Body::Spent { cleared_at } => put_varint(out, cleared_at.0),
    }
    *before = Before {
        first: false,
        ms,
        origin,
        seq: op.dot.seq,
    };
}

fn kind_of(body: &Body) -> u8 {
    match body {
        Body::Part(_) => 0,
        Body::Value(_) => 1,
        Body::Clear(_) => 2,
        Body::Spent { .. } => 3,
    }
}

/// The next op at the cursor, which must read from `block`: texts are slices of it.
pub fn take_op(
    cursor: &mut Cursor<'_>,
    block: &Bytes,
    before: &mut Before,
    slot: SlotId,
    origin_of: impl FnOnce(OriginIndex) -> Option<OriginId>,
) -> Result<Op, Malformed> {
    let tag = cursor.u8()?;
    if tag & UNUSED != 0 {
        return Err(Malformed { what: "tag of an op" });
    }
    let (time, origin, seq) = take_name(cursor, tag, before)?;
    let request_id = if tag & HAS_REQUEST != 0 {
        Some(RequestId(cursor.array()?))
    } else {
        None
    };
    let body = match tag & KIND {
        0 => Body::Part(take_text(cursor, block)?),
        1 => Body::Value(take_text(cursor, block)?),
        2 => Body::Clear(cursor.clock()?),
        _ => Body::Spent {
            cleared_at: WallMs(cursor.varint()?),
        },
    };
    *before = Before {
        first: false,
        ms: ms_of(time),
        origin,
        seq,
    };
    let origin = origin_of(origin).ok_or(Malformed {
        what: "origin of an op",
    })?;
    Ok(Op {
        dot: Dot { origin, slot, seq },
        time,
        request_id,
        body,
    })
}

/// An op that is a part or a value.
pub struct PlainText {
    pub time: HybridTime,
    pub request_id: Option<RequestId>,
    pub fragment: Fragment,
}

/// The next op at the cursor, as `take_op` takes it, if it is a plain text; its origin is that of `before` then. None is no error: `take_op`
/// says what it is.
#[inline]
pub fn take_plain_text(
    cursor: &mut Cursor<'_>,
    block: &Bytes,
    before: &mut Before,
) -> Result<Option<PlainText>, Malformed> {
    let tag = cursor.u8()?;
    let ends_value = match tag & !(HAS_REQUEST | HAS_COUNTER | NEXT_SEQUENCE | SAME_ORIGIN) {
        PART => false,
        VALUE => true,
        _ => return Ok(None),
    };
    let (time, origin, seq) = take_name(cursor, tag, before)?;
    let request_id = if tag & HAS_REQUEST != 0 {
        Some(RequestId(cursor.array()?))
    } else {
        None
    };
    let text = take_text(cursor, block)?;
    *before = Before {
        first: false,
        ms: ms_of(time),
        origin,
        seq,
    };
    Ok(Some(PlainText {
        time,
        request_id,
        fragment: Fragment { text, ends_value },
    }))
}

/// Time, origin and sequence: what follows the tag of every op.
#[inline]
fn take_name(
    cursor: &mut Cursor<'_>,
    tag: u8,
    before: &mut Before,
) -> Result<(HybridTime, OriginIndex, u64), Malformed> {
    let time = take_time(cursor, tag, before)?;
    let origin = if tag & SAME_ORIGIN != 0 {
        before.origin
    } else {
        before.seq = 0;
        OriginIndex::try_from(cursor.varint()?).map_err(|_| Malformed {
            what: "origin of an op",
        })?
    };
    let seq = if tag & NEXT_SEQUENCE != 0 {
        before.seq.wrapping_add(1)
    } else {
        before.seq.wrapping_add(unzigzag(cursor.varint()?))
    };
    if seq == 0 {
        return Err(Malformed {
            what: "sequence of an op",
        });
    }
    Ok((time, origin, seq))
}

fn take_time(cursor: &mut Cursor<'_>, tag: u8, before: &Before) -> Result<HybridTime, Malformed> {
    let wrong = Malformed { what: "time of an op" };
    let since = cursor.varint()?;
    let ms = if before.first {
        before.ms.wrapping_add(unzigzag(since))
    } else {
        before.ms.checked_add(since).ok_or(wrong)?
    };
    let counter = if tag & HAS_COUNTER != 0 { cursor.varint()? } else { 0 };
    if ms > MS_MAX || counter >> COUNTER_BITS != 0 {
        return Err(wrong);
    }
    Ok(HybridTime(ms << COUNTER_BITS | counter))
}

fn take_text(cursor: &mut Cursor<'_>, block: &Bytes) -> Result<Text, Malformed> {
    let text = cursor.bytes()?;
    Text::from_utf8(block.slice_ref(text)).map_err(|_| Malformed {
        what: "UTF-8 of a text",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn zigzag_comes_back(value in any::<u64>()) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn small_steps_either_way_are_short(step in 0u64..64) {
            prop_assert!(zigzag(step) < 128 && zigzag(step.wrapping_neg()) < 128);
        }

        #[test]
        fn garbage_is_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..60), first in any::<bool>()) {
            let block = Bytes::from(bytes);
            let mut before = Before { first, ms: 5, origin: 0, seq: 1 };
            let _ = take_op(&mut Cursor::new(&block), &block, &mut before, SlotId(1), |_| Some(OriginId(1)));
        }
    }

    #[test]
    fn each_rule_of_an_op_is_kept() {
        let what = |bytes: &[u8]| {
            let block = Bytes::copy_from_slice(bytes);
            let mut before = Before::start(0);
            let known = |index| (index == 0).then_some(OriginId(7));
            let op = take_op(&mut Cursor::new(&block), &block, &mut before, SlotId(1), known);
            op.map_err(|error| error.what)
        };
        let plain = 1 | SAME_ORIGIN | NEXT_SEQUENCE;
        assert!(what(&[plain, 2, 1, b'x']).is_ok());
        assert_eq!(what(&[plain | UNUSED, 2, 1, b'x']), Err("tag of an op"));
        assert_eq!(what(&[plain, 1, 1, b'x']), Err("time of an op"));
        assert_eq!(
            what(&[plain | HAS_COUNTER, 2, 0x80, 0x80, 4, 1, b'x']),
            Err("time of an op")
        );
        assert_eq!(what(&[1 | NEXT_SEQUENCE, 2, 9, 1, b'x']), Err("origin of an op"));
        assert_eq!(what(&[1 | SAME_ORIGIN, 2, 0, 1, b'x']), Err("sequence of an op"));
        assert_eq!(what(&[plain, 2, 1, 0xff]), Err("UTF-8 of a text"));
        assert_eq!(what(&[plain, 2, 2, b'x']), Err("count"));
        assert_eq!(what(&[plain | HAS_REQUEST, 2, 2, b'x']), Err("length"));
    }
}
