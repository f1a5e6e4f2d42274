//! What a memtable knows of values that are being assembled from parts.

use super::Memtable;
use crate::types::{Key, UserId};

/// What a key's ops in this memtable say of the value being assembled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenParts {
    /// A value or a clear is here, and this many bytes of parts after it.
    Known(u64),
    /// Only parts are here, so many bytes; what was before them decides.
    Unfinished(u64),
    /// Ops of several origins, or not in the order of their stamps: a value may have come before the parts that it finishes, and a
    /// clear need not have seen what came before it. Only the fold can tell.
    Unclear { has_parts: bool },
}

impl Memtable {
    /// What is being assembled under the key, as far as this memtable knows; `None` if it has no op of the key.
    ///
    /// What is known for certain is so of the ops in memtables. A value or clear that another origin wrote, without having seen parts that
    /// lie elsewhere, counts as if it had: the limit of a value is not exact to the byte when several nodes write parts of it at once.
    pub fn open_parts(&self, user: &UserId, key: &Key) -> Option<OpenParts> {
        let held = self.find(user, key)?;
        if !held.in_order || !held.one_origin {
            let has_parts = held.has_parts;
            return Some(OpenParts::Unclear { has_parts });
        }
        let mut bytes = 0;
        for entry in self.chain(Some(held.last)) {
            let (_, header, _) = self.record(entry)?;
            if header.is_part() {
                bytes += header.content_bytes() as u64;
            } else if !header.is_spent() {
                return Some(OpenParts::Known(bytes));
            }
        }
        Some(OpenParts::Unfinished(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::Clock;
    use crate::core::op::{Body, Dot, Op};
    use crate::core::slot::SlotId;
    use crate::core::stamp::{HybridTime, OriginId};
    use crate::store::log::LogKey;
    use crate::store::names::NameKey;
    use crate::types::WallMs;

    fn part() -> Body {
        Body::Part("12345".into())
    }

    fn value() -> Body {
        Body::Value("v".into())
    }

    fn spent() -> Body {
        Body::Spent { cleared_at: WallMs(1) }
    }

    /// Ops of one key, each of (origin, time), in the order they are appended.
    fn open_parts(ops: &[(u64, u64, Body)]) -> Option<OpenParts> {
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        let mut memtable = Memtable::new(LogKey::without_secret(1), NameKey::new([1; 16]));
        // Of other keys between them.
        let other = Key::new("other").unwrap();
        for (index, (origin, time, body)) in ops.iter().enumerate() {
            let dot = Dot {
                origin: OriginId(*origin),
                slot: SlotId(1),
                seq: index as u64 + 1,
            };
            let op = Op {
                dot,
                time: HybridTime(*time),
                request_id: None,
                body: body.clone(),
            };
            memtable.append(&user, &key, &op);
            memtable.append(&user, &other, &op);
            if index % 2 == 0 {
                memtable.close_group();
            }
        }
        memtable.open_parts(&user, &key)
    }

    #[test]
    fn what_one_origin_wrote_in_order_is_plain_to_see() {
        use OpenParts::{Known, Unfinished};
        let clear = || Body::Clear(Clock::default());
        assert_eq!(open_parts(&[]), None);
        assert_eq!(open_parts(&[(1, 1, part()), (1, 2, part())]), Some(Unfinished(10)));
        assert_eq!(
            open_parts(&[(1, 1, part()), (1, 2, value()), (1, 3, part())]),
            Some(Known(5))
        );
        assert_eq!(open_parts(&[(1, 1, part()), (1, 2, clear())]), Some(Known(0)));
        // What is left of a cleared op is no part, and finishes none.
        assert_eq!(
            open_parts(&[(1, 1, part()), (1, 2, spent()), (1, 3, part())]),
            Some(Unfinished(10))
        );
        assert_eq!(open_parts(&[(1, 1, value()), (1, 2, spent())]), Some(Known(0)));
        assert_eq!(open_parts(&[(1, 1, spent())]), Some(Unfinished(0)));
    }

    #[test]
    fn what_came_from_several_origins_or_late_is_for_the_fold() {
        let unclear = |has_parts| Some(OpenParts::Unclear { has_parts });
        assert_eq!(open_parts(&[(1, 1, value()), (2, 2, value())]), unclear(false));
        assert_eq!(open_parts(&[(1, 1, value()), (2, 2, part())]), unclear(true));
        assert_eq!(
            open_parts(&[(1, 1, part()), (2, 2, value()), (1, 3, value())]),
            unclear(true)
        );
        // The value is later than the part that came behind it.
        assert_eq!(open_parts(&[(1, 2, value()), (1, 1, part())]), unclear(true));
        assert_eq!(open_parts(&[(1, 2, value()), (1, 2, value())]), unclear(false));
    }
}
