//! Ops that a test makes itself.

use super::*;
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::stamp::{HybridTime, OriginId};
use crate::env::WallClock;

/// Ops of one key, which are held where and when the test wants it.
pub struct Ops {
    pub name: String,
    start: HybridTime,
}

impl Ops {
    pub fn of(name: String) -> Self {
        let start = HybridTime::from_wall(crate::os::SystemClock.now());
        Self { name, start }
    }

    /// The one with this place in the order of all.
    pub fn op(&self, place: u64, body: Body) -> KeyedOp {
        let (slot, _) = crate::node::replica::place_of(&user(), &key(&self.name));
        KeyedOp {
            user: user(),
            key: key(&self.name),
            op: Op {
                dot: Dot {
                    origin: self.origin(place),
                    slot,
                    seq: 1,
                },
                time: HybridTime(self.start.0 + place),
                request_id: None,
                body,
            },
        }
    }

    /// One for each key and place: keys that share a slot do not share dots.
    fn origin(&self, place: u64) -> OriginId {
        let of_key = xxhash_rust::xxh3::xxh3_64(self.name.as_bytes());
        OriginId(of_key & !0xffff | place)
    }

    pub fn value(&self, place: u64) -> KeyedOp {
        self.op(place, Body::Value(format!("v{place}").into()))
    }

    pub fn part(&self, place: u64) -> KeyedOp {
        self.op(place, Body::Part(format!("p{place}").into()))
    }
}

pub async fn hold(node: &Node, op: KeyedOp) {
    node.local().apply(vec![op]).await.unwrap();
}
