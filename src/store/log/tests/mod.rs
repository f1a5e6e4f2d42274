//! The rules of recovery, one test each.

mod forged;
mod header;

use proptest::prelude::*;

use bytes::Bytes;

use super::record::RECORD_HEADER_BYTES;
use super::*;
use crate::core::clock::Clock;
use crate::core::op::{Body, Dot, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::{HybridTime, OriginId};
use crate::types::{RequestId, WallMs};

const NUMBER: u64 = 5;
const SECRET: LogSecret = LogSecret::new(*b"sixteen random b");

fn key() -> LogKey {
    LogKey::new(NUMBER, SECRET)
}

fn op(seq: u64) -> Op {
    let body = match seq % 4 {
        0 => Body::Part(format!("part {seq}").into()),
        3 => Body::Spent {
            cleared_at: WallMs(seq),
        },
        1 => Body::Value("x".repeat(seq as usize * 3).into()),
        _ => {
            let mut context = Clock::default();
            context.insert_range(OriginId(3), 1, seq);
            Body::Clear(context)
        }
    };
    Op {
        dot: Dot {
            origin: OriginId(3),
            slot: SlotId(9),
            seq,
        },
        time: HybridTime(seq * 10),
        request_id: seq.is_multiple_of(2).then_some(RequestId([seq as u8; 16])),
        body,
    }
}

/// A log with groups of the given sizes; returns the file and the offset of each record.
fn build(groups: &[usize], number: u64) -> (Vec<u8>, Vec<u64>) {
    build_with(groups, number, Some(SECRET))
}

fn build_with(groups: &[usize], number: u64, secret: Option<LogSecret>) -> (Vec<u8>, Vec<u64>) {
    let header = LogHeader {
        shard: 1,
        number,
        previous: Previous::default(),
        secret,
    };
    let mut file = header.encode().to_vec();
    let mut offsets = Vec::new();
    for &size in groups {
        let group = file.len() as u64;
        for _ in 0..size {
            let offset = file.len() as u64;
            let seq = offsets.len() as u64 + 1;
            let place = Place {
                key: header.key(),
                offset,
                group_back: (offset - group) as u32,
                ordinal: offsets.len() as u32,
            };
            let op = op(seq);
            put_record(
                &mut file,
                place,
                Record {
                    user: "u",
                    key: "k",
                    op: &op,
                },
            );
            assert_eq!(file.len() as u64 - offset, record_bytes("u", "k", &op) as u64);
            offsets.push(offset);
        }
    }
    (file, offsets)
}

fn seqs(scan: &Scan) -> Vec<u64> {
    scan.records.iter().map(|found| found.header.dot.seq).collect()
}

#[test]
fn a_name_is_one_of_a_log_in_its_one_spelling_only() {
    assert_eq!(parse_file_name(&file_name(0xa)), Some(0xa));
    for name in [
        "log-000000000000000A.kvl",
        "log-+00000000000000a.kvl",
        "log-a.kvl",
        "log-0000000000000000a.kvl",
        "log-000000000000000a.kvl.tmp",
        "log-ffffffffffffffff.kvl",
        "segment-000000000000000a.kvs",
    ] {
        assert_eq!(parse_file_name(name), None, "{name}");
    }
}

#[test]
fn records_come_back_as_they_were_written() {
    let (mut file, offsets) = build(&[1, 3, 2], NUMBER);
    file.resize(file.len() + 4096, 0);
    let bytes = Bytes::from(file);
    let scan = scan(&bytes, &key(), None);
    assert_eq!(seqs(&scan), [1, 2, 3, 4, 5, 6]);
    assert!(!scan.torn && scan.damaged.is_empty());
    for (found, offset) in scan.records.iter().zip(offsets) {
        let record = bytes.slice(offset as usize..);
        assert_eq!(found.header.op(&record), Some(op(found.header.dot.seq)));
        assert_eq!(
            (found.header.user(&record), found.header.key(&record)),
            (&b"u"[..], &b"k"[..])
        );
    }
}

#[test]
fn a_torn_tail_is_cut() {
    let (file, offsets) = build(&[2, 3], NUMBER);
    for cut in offsets[2] as usize + 1..file.len() {
        let mut torn = file.clone();
        torn[cut..].fill(0);
        torn.resize(torn.len() + 4096, 0);
        let scan = scan(&torn.into(), &key(), None);
        let kept = offsets.iter().filter(|&&start| (start as usize) < cut).count();
        assert!(seqs(&scan).len() >= kept - 1 && seqs(&scan).len() >= 2);
        assert!(scan.damaged.is_empty());
    }
}

#[test]
fn a_group_that_was_written_in_part_and_out_of_order_is_torn_not_damaged() {
    let (mut file, offsets) = build(&[2, 3], NUMBER);
    file[offsets[2] as usize..offsets[3] as usize].fill(0);
    let scan = scan(&file.into(), &key(), None);
    assert_eq!(seqs(&scan), [1, 2]);
    assert!(scan.torn && scan.damaged.is_empty() && scan.lost_records == 0);
}

#[test]
fn damage_before_a_later_group_is_told_from_a_torn_tail_and_the_rest_is_kept() {
    let (mut file, offsets) = build(&[2, 3, 1], NUMBER);
    file[offsets[2] as usize + RECORD_HEADER_BYTES] ^= 1;
    let scan = scan(&file.into(), &key(), None);
    assert_eq!(seqs(&scan), [1, 2, 4, 5, 6]);
    assert_eq!(scan.damaged, [(offsets[2], offsets[3])]);
    assert_eq!((scan.lost_records, scan.lost_dots.len()), (1, 1));
    assert_eq!(scan.lost_dots[0].seq, 3);
}

#[test]
fn damage_at_the_end_shows_when_the_next_log_names_the_end() {
    let (mut file, offsets) = build(&[2, 2], NUMBER);
    let end = file.len() as u64;
    file[offsets[3] as usize..].fill(0);
    let torn = scan(&file.clone().into(), &key(), None);
    assert!(torn.damaged.is_empty());
    let damaged = scan(&file.into(), &key(), Some(end));
    assert_eq!(seqs(&damaged), [1, 2, 3]);
    assert_eq!(damaged.damaged, [(offsets[3], end)]);
    assert_eq!(damaged.lost_records, 1);
}

#[test]
fn a_log_whose_file_was_cut_short_is_damaged_not_torn() {
    let (mut file, mut offsets) = build(&[1, 1, 1, 3, 2], NUMBER);
    let end = file.len();
    offsets.push(end as u64);
    file.resize(end + 4096, 0);
    for len in 1..=file.len() {
        let bytes = Bytes::from(file[..len].to_vec());
        let kept = offsets[1..].iter().take_while(|&&end| end <= len as u64).count();
        let sound_end = offsets[kept] as usize;
        // Behind a clear, and what is left of one, the filled part may end.
        let may_end = kept > 0 && matches!((kept as u64) % 4, 2 | 3);
        let in_header = len < sound_end + RECORD_HEADER_BYTES;
        let is_cut = if in_header { !may_end } else { len < end };
        let first = scan(&bytes, &key(), None);
        assert_eq!((seqs(&first).len(), first.torn), (kept, false), "{len}");
        assert_eq!(
            (first.damaged.len(), first.lost_uncounted),
            (usize::from(is_cut), is_cut),
            "{len}"
        );
        // The next log's header says where this one went to.
        let second = scan(&bytes, &key(), Some(first.end));
        assert_eq!(
            (second.damaged, second.lost_uncounted),
            (first.damaged, is_cut),
            "{len}"
        );
        assert_eq!(second.end, first.end);
    }
}

#[test]
fn a_file_that_no_log_was_begun_in_may_end_anywhere() {
    let (former, _) = build(&[1, 1], NUMBER - 1);
    for bytes in [
        vec![],
        vec![0; 100],
        vec![0; HEADER_BYTES],
        former[..HEADER_BYTES].to_vec(),
    ] {
        let scan = scan(&bytes.into(), &key(), None);
        assert_eq!((scan.damaged.len(), scan.lost_uncounted, scan.torn), (0, false, false));
    }
}

#[test]
fn a_log_that_ends_where_the_next_one_says_is_neither_torn_nor_damaged() {
    let (file, _) = build(&[2, 2], NUMBER);
    let end = file.len() as u64;
    let scan = scan(&file.into(), &key(), Some(end));
    assert_eq!(
        (seqs(&scan), scan.torn, scan.damaged),
        (vec![1, 2, 3, 4], false, Vec::new())
    );
}

#[test]
fn damage_at_the_end_that_leaves_one_header_does_not_hide_that_more_is_lost() {
    let (mut file, offsets) = build(&[2, 2, 1], NUMBER);
    let end = file.len() as u64;
    file[offsets[3] as usize + RECORD_HEADER_BYTES] ^= 1;
    file[offsets[4] as usize..].fill(0);
    let scan = scan(&file.into(), &key(), Some(end));
    assert_eq!(seqs(&scan), [1, 2, 3]);
    assert_eq!(scan.lost_dots.len(), 1);
    assert_eq!(scan.lost_records, 2, "more than can be named");
}

#[test]
fn records_of_a_former_life_of_the_file_never_pass() {
    let (old, _) = build(&[1, 1, 1, 1, 1, 1], NUMBER - 1);
    let (new, _) = build(&[2], NUMBER);
    let mut file = old;
    file[..new.len()].copy_from_slice(&new);
    let scan = scan(&file.into(), &key(), None);
    assert_eq!(seqs(&scan), [1, 2]);
    assert!(!scan.torn && scan.damaged.is_empty());
}

proptest! {
    #[test]
    fn one_flipped_bit_never_yields_a_record_that_was_not_written(groups in proptest::collection::vec(1usize..4, 1..5), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut file, _) = build(&groups, NUMBER);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        let bytes = Bytes::from(file);
        let scan = scan(&bytes, &key(), None);
        for found in &scan.records {
            let record = bytes.slice(found.offset as usize..);
            prop_assert_eq!(found.header.op(&record), Some(op(found.header.dot.seq)));
        }
        let total = groups.iter().sum::<usize>();
        let last_group = *groups.last().unwrap_or(&0);
        prop_assert!(scan.records.len() + 1 >= total || scan.records.len() >= total - last_group);
    }

    #[test]
    fn garbage_is_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(scan(&bytes.clone().into(), &key(), None).records.is_empty());
        let _ = LogHeader::decode(&bytes);
    }
}
