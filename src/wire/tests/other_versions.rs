//! How this version takes what a newer node sends, and an older one.

use super::golden::{again, hex, messages};
use super::*;

/// The array that begins with this byte, and is the last thing in the message, has one value more.
fn with_a_field_more(mut bytes: Vec<u8>, behind: &[u8], array: u8) -> Vec<u8> {
    let place = bytes.windows(behind.len()).rposition(|part| part == behind).unwrap() + behind.len();
    assert_eq!(bytes[place], array);
    bytes[place] += 1;
    // A map with something of each kind.
    bytes.extend(b"\x82\xa1a\x95\xc0\xc3\xd1\xff\x00\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xc7\x01\x05x\x2a\xc4\x02xy");
    bytes
}

#[test]
fn fields_that_a_newer_node_adds_are_passed_over() {
    let sent = |of: &str| messages().into_iter().rfind(|(kind, _)| *kind == of).unwrap().1;
    let cases = [
        ("ListKeys", &b"ListKeys"[..], 0x96),
        ("Ask", b"Ask", 0x94),
        // The terms, which stand at its end.
        ("Write", b"\xc3", 0x92),
        ("Keys", b"Keys", 0x92),
        ("Pulled", b"Pulled", 0x93),
    ];
    for (kind, behind, array) in cases {
        let before = sent(kind);
        let mut bytes = with_a_field_more(before.clone(), behind, array);
        Request::Ping.encode(9, &mut bytes);
        let mut rest = &bytes[..];
        let read = Message::decode(&mut rest).unwrap();
        assert_eq!(hex(&again(&read)), hex(&before), "{kind}");
        assert!(matches!(
            Message::decode(&mut rest),
            Ok(Message::Request(9, Request::Ping))
        ));
        assert!(rest.is_empty());
    }
}

#[test]
fn fields_that_an_older_node_does_not_send_are_nothing() {
    let cases = [
        ("Ask", &b"Ask"[..], 0x94, &b"\x0d"[..]),
        ("Pulled", b"Pulled", 0x93, b"\x91\x92\xcd\x03\xff\x0d"),
    ];
    for (kind, behind, array, last) in cases {
        let (_, now) = messages().into_iter().rfind(|(of, _)| *of == kind).unwrap();
        let mut before = now.strip_suffix(last).unwrap().to_vec();
        let place = before.windows(behind.len()).rposition(|part| part == behind).unwrap() + behind.len();
        assert_eq!(before[place], array);
        before[place] -= 1;
        let nothing = if last.len() == 1 { b"\x00" } else { b"\x90" };
        let read = Message::decode(&mut &before[..]).unwrap();
        let expected = [now.strip_suffix(last).unwrap(), &nothing[..]].concat();
        assert_eq!(hex(&again(&read)), hex(&expected), "{kind}");
    }
}

#[test]
fn what_only_a_newer_node_knows_costs_no_other_message() {
    let bodies: [&[u8]; 4] = [
        b"\xa5Later",
        b"\x81\xa5Later\x92\x01\x02",
        // A kind of write.
        b"\x81\xa5Write\x96\xa4user\xa3key\xa5Later\xc0\xc3\x92\x01\x02",
        // A name that is too long.
        &[
            &b"\x81\xa6Append\x91\x98\xda\x01\x01"[..],
            &[b'x'; 257],
            b"\xa1k\x01\x01\x01\x01\xc0\x81\xa5Spent\x01",
        ]
        .concat(),
    ];
    for body in bodies {
        let mut bytes = [b"\x81\xa7Request\x92\x07", body, b"\x81\xa8Response\x92\x08", body].concat();
        Request::Ping.encode(9, &mut bytes);
        let mut rest = &bytes[..];
        let mut next = || Message::decode(&mut rest).unwrap();
        assert!(matches!(next(), Message::Request(7, Request::Unknown(_))));
        let unknown = WireError::Unavailable { maybe_applied: true };
        assert!(matches!(next(), Message::Response(8, Response::Failed(error)) if error == unknown));
        assert!(matches!(next(), Message::Request(9, Request::Ping)));
    }
    for garbage in [
        &b"\x81\xa5Later\x92\x07\xa4Ping"[..],
        b"\x81\xa7Request\x92\xa1x\xa4Ping",
        b"\xc1",
        b"\x81\xa7Request\x92\x07\xdd\xff\xff\xff\xff\x01",
    ] {
        assert!(Message::decode(&mut &*garbage).is_err());
    }
}

proptest! {
    #[test]
    fn garbage_from_a_newer_node_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..2) {
        let head: &[u8] = [&b"\x81\xa7Request\x92\x07"[..], b"\x81\xa8Response\x92\x08"][kind as usize];
        let bytes = [head, &bytes].concat();
        let mut rest = &bytes[..];
        while Message::decode(&mut rest).is_ok() {}
    }
}
