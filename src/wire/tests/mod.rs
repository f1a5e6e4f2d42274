mod golden;
mod other_versions;

use proptest::prelude::*;

use super::*;
use crate::core::clock::Clock;
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::{HybridTime, OriginId};
use crate::types::{Key, RequestId, UserId, WallMs};

fn op(body: Body) -> KeyedOp {
    KeyedOp {
        user: UserId::new("user").unwrap(),
        key: Key::new("key").unwrap(),
        op: Op {
            dot: Dot {
                origin: OriginId(7),
                slot: SlotId(9),
                seq: 11,
            },
            time: HybridTime(13),
            request_id: Some(RequestId([5; 16])),
            body,
        },
    }
}

#[test]
fn every_kind_of_op_comes_back_as_it_was() {
    let mut seen = Clock::default();
    seen.insert_range(OriginId(3), 1, 9);
    seen.insert_range(OriginId(3), 20, 22);
    let bodies = [
        Body::Part("part".into()),
        Body::Value("välue".into()),
        Body::Clear(seen),
        Body::Spent { cleared_at: WallMs(17) },
    ];
    for body in bodies {
        let sent = op(body);
        let mut bytes = Vec::new();
        Message::Request(1, Request::Append(vec![WireOp::of(&sent)])).encode(&mut bytes);
        let mut rest = &bytes[..];
        let Ok(Message::Request(1, Request::Append(mut ops))) = Message::decode(&mut rest) else {
            panic!("another message");
        };
        assert!(rest.is_empty());
        assert_eq!(ops.remove(0).into_op().unwrap(), sent);
    }
}

#[test]
fn messages_stand_one_behind_the_other() {
    let mut bytes = Vec::new();
    for id in 0..3 {
        Message::Request(id, Request::Ping).encode(&mut bytes);
    }
    Message::Response(9, Response::Count(4)).encode(&mut bytes);
    let mut rest = &bytes[..];
    for expected in 0..3 {
        assert!(matches!(Message::decode(&mut rest), Ok(Message::Request(id, Request::Ping)) if id == expected));
    }
    assert!(matches!(
        Message::decode(&mut rest),
        Ok(Message::Response(9, Response::Count(4)))
    ));
    assert!(rest.is_empty());
}

#[test]
fn a_message_is_written_alike_whoever_owns_its_content() {
    let request = Request::Append(vec![WireOp::of(&op(Body::Value("value".into())))]);
    let response = Response::Keys {
        keys: vec!["key".to_owned()],
        next_after: None,
    };
    let (mut borrowed, mut owned) = (Vec::new(), Vec::new());
    request.encode(300, &mut borrowed);
    response.encode(7, &mut borrowed);
    Message::Request(300, request).encode(&mut owned);
    Message::Response(7, response).encode(&mut owned);
    assert_eq!(borrowed, owned);
}

#[test]
fn names_beyond_their_limits_are_refused() {
    let mut long = op(Body::Value("x".into()));
    long.op.dot.seq = 0;
    assert!(WireOp::of(&long).into_op().is_err());
    long.op.dot.seq = 1;
    long.op.dot.slot = SlotId(1025);
    assert!(WireOp::of(&long).into_op().is_err());
    assert!(op::key_of(&"k".repeat(1025)).is_err());
    assert!(op::user_of(&"u".repeat(257)).is_err());
}

proptest! {
    #[test]
    fn garbage_is_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut rest = &bytes[..];
        while let Ok(Message::Request(_, Request::Append(ops))) = Message::decode(&mut rest) {
            ops.into_iter().for_each(|op| { let _ = op.into_op(); });
        }
    }
}
