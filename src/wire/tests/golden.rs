//! What version 1 of the protocol sends, byte for byte, and how it takes what a newer node sends.

use super::*;

/// The name of the variant; and all names.
macro_rules! kinds {
    ($of:ident, $all:ident, $type:ident: $($kind:ident)*) => {
        const $all: &[&str] = &[$(stringify!($kind)),*];

        fn $of(value: &$type) -> &'static str {
            match value {
                $($type::$kind { .. } => stringify!($kind),)*
            }
        }
    };
}

kinds! { request_kind, REQUESTS, Request:
    Ping Ask Append Digest SyncKey Write Read ReadNext ReadEnd Count ListKeys Introduce Compare Clocks Pull PullNext HeldDots GiveUp Admit HasData
    Status Seen Dropped Table Unknown
}
kinds! { response_kind, RESPONSES, Response:
    Done Failed Asked Digest SyncedKey Written Page Count Keys OlderCopy Same Differ Clocks Pulled HeldDots GivenUp Admitted StartOver HasData
    Status Seen Dropped
}
kinds! { error_kind, ERRORS, WireError:
    Refused Overloaded DiskFull Unavailable ValueTooLong Damaged Disk Quorum Deadline ShuttingDown
}

const TERMS: WireTerms = WireTerms {
    level: 1,
    left_ms: 30_000,
};

fn text(text: &str) -> String {
    text.to_owned()
}

fn clock() -> WireClock {
    let mut clock = Clock::default();
    clock.insert_range(OriginId(3), 1, 9);
    clock.insert_range(OriginId(u64::MAX), 200, 70_000);
    WireClock::of(&clock)
}

fn clocks() -> WireClocks {
    let mut clocks = crate::core::clock::SlotClocks::default();
    clocks.insert_range(SlotId(1023), OriginId(3), 1, 9);
    WireClocks::of(&clocks)
}

fn ops() -> Vec<WireOp> {
    let seen = clock().into_clock();
    let mut ops: Vec<WireOp> = [
        Body::Part("part".into()),
        Body::Value("välue".into()),
        Body::Clear(seen),
        Body::Spent { cleared_at: WallMs(17) },
    ]
    .map(|body| WireOp::of(&op(body)))
    .into();
    let mut unnamed = op(Body::Value("".into()));
    unnamed.op.request_id = None;
    unnamed.user = UserId::system();
    ops.push(WireOp::of(&unnamed));
    ops
}

fn write(kind: ForwardedKind) -> Request {
    Request::Write(ForwardedWrite {
        user: text("user"),
        key: text("key"),
        kind,
        request_id: Some([5; 16]),
        is_first_try: true,
        terms: TERMS,
    })
}

fn requests() -> Vec<Request> {
    let (user, key) = (text("user"), text("key"));
    vec![
        Request::Ping,
        Request::Ask(Ask {
            slot: 9,
            request: None,
            clock: true,
            time: 13,
        }),
        Request::Ask(Ask {
            slot: 1024,
            request: Some((user.clone(), key.clone(), [5; 16])),
            clock: false,
            time: 13,
        }),
        Request::Append(ops()),
        Request::Digest { slot: 9 },
        Request::SyncKey {
            slot: 9,
            user: user.clone(),
            key: key.clone(),
            known: clock(),
        },
        write(ForwardedKind::Add {
            text: Bytes::from_static(b"text"),
            finish: true,
        }),
        write(ForwardedKind::Clear),
        write(ForwardedKind::ClearDots(clock())),
        Request::Read {
            reader: 1,
            user: user.clone(),
            key: key.clone(),
            offset: 2,
            limit: u64::MAX,
            terms: TERMS,
        },
        Request::ReadNext {
            reader: 1,
            budget_bytes: 1 << 20,
        },
        Request::ReadEnd { reader: 1 },
        Request::Count {
            user: user.clone(),
            key: key.clone(),
            terms: TERMS,
        },
        list(),
        Request::Introduce {
            starts: 3,
            life: 1 << 63,
        },
        Request::Compare { digest: u64::MAX },
        Request::Clocks {
            slots: vec![(9, clock())],
        },
        Request::Pull {
            pull: 4,
            wants: clocks(),
        },
        Request::PullNext {
            pull: 4,
            budget_bytes: 256 << 10,
        },
        Request::HeldDots { slot: 9 },
        Request::GiveUp {
            slot: 9,
            replicas: vec![1, 2],
            dots: clock(),
            lost: true,
        },
        Request::Admit(Admission {
            node: 7,
            peer: text("10.0.0.1:8100"),
            http: text("10.0.0.1:8000"),
            zone: text("z"),
            weight: 100,
            is_new: true,
        }),
        Request::HasData,
        Request::Status,
        Request::Seen {
            user,
            key,
            terms: TERMS,
        },
        Request::Dropped { slot: 9, dots: clock() },
        Request::Table,
    ]
}

fn list() -> Request {
    Request::ListKeys {
        user: text("user"),
        prefix: text("k"),
        after: Some(text("kex")),
        limit: 1000,
        all: false,
        left_ms: 30_000,
    }
}

fn responses() -> Vec<Response> {
    let maybe_applied = true;
    let errors = [
        WireError::Refused(text("why")),
        WireError::Overloaded { retry_after_s: 1 },
        WireError::DiskFull,
        WireError::Unavailable { maybe_applied },
        WireError::ValueTooLong { got: 3, max: 2 },
        WireError::Damaged(text("what")),
        WireError::Disk(text("why")),
        WireError::Quorum {
            needed: 2,
            answered: 1,
            maybe_applied,
        },
        WireError::Deadline { maybe_applied },
        WireError::ShuttingDown,
    ];
    let kinds: Vec<&str> = errors.iter().map(error_kind).collect();
    assert_eq!(kinds, ERRORS);
    let mut responses: Vec<Response> = errors.map(Response::Failed).into();
    responses.extend([
        Response::Done,
        Response::Asked {
            votes: true,
            time: 13,
            held: ops().pop(),
            clock: Some(clock()),
        },
        Response::Digest { votes: true, digest: 7 },
        Response::SyncedKey {
            votes: false,
            clock: clock(),
            ops: ops(),
            more: true,
        },
        Response::Written { repeated: true },
        Response::Page(vec![WireFragment {
            text: Bytes::from_static(b"text"),
            ends_value: true,
        }]),
        Response::Count(4),
        Response::Keys {
            keys: vec![text("key")],
            next_after: Some(text("key")),
        },
        Response::OlderCopy { starts: 3 },
        Response::Same,
        Response::Differ(vec![(9, 1 << 40), (NOT_NAMED, 0)]),
        Response::Clocks(vec![(9, clock(), WireClock::default())]),
        Response::Pulled {
            ops: Vec::new(),
            covered: Some(clocks()),
            times: vec![(1023, 13)],
        },
        Response::HeldDots {
            texts: clock(),
            covered: clock(),
        },
        Response::GivenUp { life: 1, dots: clock() },
        Response::Admitted {
            cluster: text("name"),
            records: vec![text("{}")],
        },
        Response::StartOver,
        Response::HasData(true),
        Response::Status(text("{}")),
        Response::Seen(clock()),
        Response::Dropped(clock()),
    ]);
    responses
}

/// Their names, and as they are sent.
pub(super) fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let mut messages = Vec::new();
    for (id, request) in (1..).zip(requests()) {
        let mut bytes = Vec::new();
        request.encode(id * 100, &mut bytes);
        messages.push((request_kind(&request), bytes));
    }
    for (id, response) in (1..).zip(responses()) {
        let mut bytes = Vec::new();
        response.encode(id * 100, &mut bytes);
        messages.push((response_kind(&response), bytes));
    }
    messages
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What it was read as, as this version sends it.
pub(super) fn again(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// Whoever changes one of these ends the connections of members that are not upgraded yet: what is new is added at the end, in the types, here and
/// in the file.
#[test]
fn what_version_1_sends_stays_as_it_is() {
    let known: Vec<&str> = include_str!("version1.txt").lines().collect();
    let now: Vec<String> = messages()
        .iter()
        .map(|(kind, bytes)| format!("{kind} {}", hex(bytes)))
        .collect();
    assert!(now == known, "{}", now.join("\n"));
    let kinds = |all: &[&'static str]| all.iter().copied().collect::<std::collections::BTreeSet<_>>();
    let requests: Vec<_> = requests().iter().map(request_kind).chain(["Unknown"]).collect();
    assert_eq!(kinds(&requests), kinds(REQUESTS));
    let responses: Vec<_> = responses().iter().map(response_kind).collect();
    assert_eq!(kinds(&responses), kinds(RESPONSES));
}

#[test]
fn what_is_sent_is_read_as_it_was_by_either_way() {
    for (kind, bytes) in messages() {
        let (mut one, mut other) = (&bytes[..], &bytes[..]);
        let usual = Message::deserialize(&mut rmp_serde::Deserializer::new(&mut one)).unwrap();
        let newer = newer::read(&mut other).unwrap();
        assert!(one.is_empty() && other.is_empty(), "{kind}");
        assert_eq!(hex(&again(&usual)), hex(&bytes), "{kind}");
        assert_eq!(hex(&again(&newer)), hex(&bytes), "{kind}");
        for cut in 0..bytes.len() {
            assert!(Message::decode(&mut &bytes[..cut]).is_err(), "{kind} {cut}");
        }
    }
}
