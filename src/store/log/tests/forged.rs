//! Records that a user makes up and stores as text.

use super::*;

/// A record as a user can make one who knows all but the secret.
fn forged(number: u64, offset: u64) -> Vec<u8> {
    let mut record = Vec::new();
    let place = Place {
        key: LogKey::without_secret(number),
        offset,
        group_back: 0,
        ordinal: 1,
    };
    let op = op(5);
    let (user, key) = ("admin", "k");
    put_record(&mut record, place, Record { user, key, op: &op });
    record
}

/// Records for these logs and this file, one behind the other, from `start` on.
fn forged_text(numbers: std::ops::Range<u64>, start: u64, end: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in numbers.cycle() {
        let record = forged(number, start + text.len() as u64);
        if start + (text.len() + record.len()) as u64 > end {
            return text;
        }
        text.extend(record);
    }
    text
}

#[test]
fn a_record_that_a_user_made_is_found_nowhere_behind_the_end() {
    let (new, _) = build(&[2], NUMBER);
    let start = new.len().next_multiple_of(8);
    let mut file = new;
    file.resize(start, 0);
    let text = forged_text(NUMBER..NUMBER + 1, start as u64, 64 << 10);
    file.extend(text);
    let former = scan(&file.clone().into(), &LogKey::without_secret(NUMBER), None);
    assert!(
        former.records.len() + former.damaged.len() > 0,
        "they are what a log without a secret takes"
    );
    let scan = scan(&file.into(), &key(), None);
    assert_eq!((seqs(&scan), scan.torn, scan.damaged.len()), (vec![1, 2], false, 0));
}

#[test]
fn a_record_in_the_body_of_another_is_none() {
    const TEXT_BYTES: usize = 4096;
    for (secret, header_is_torn) in [(Some(SECRET), false), (Some(SECRET), true), (None, false)] {
        let (mut file, _) = build_with(&[1], NUMBER, secret);
        let offset = file.len();
        let place = Place {
            key: LogHeader::decode(&file).unwrap().key(),
            offset: offset as u64,
            group_back: 0,
            ordinal: 1,
        };
        let op = Op {
            body: Body::Value("x".repeat(TEXT_BYTES).into()),
            request_id: None,
            ..op(2)
        };
        let (user, key) = ("attacker", "");
        put_record(&mut file, place, Record { user, key, op: &op });
        // The end of it never reached the disk; that what did is no text does not matter here.
        let text = offset + RECORD_HEADER_BYTES + user.len();
        let forged = forged_text(NUMBER..NUMBER + 1, text as u64, (text + TEXT_BYTES) as u64);
        file[text..text + forged.len()].copy_from_slice(&forged);
        file[offset + 10] ^= u8::from(header_is_torn);
        let scan = scan(&file.into(), &place.key, None);
        assert_eq!((seqs(&scan), scan.damaged), (vec![1], Vec::new()), "{secret:?}");
        assert_eq!(scan.torn, !header_is_torn);
    }
}
