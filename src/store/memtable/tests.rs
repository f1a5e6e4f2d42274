//! Keys that were chosen so that their `KeyHash` is one: they cost no more than any others.

use std::cell::Cell;

use super::*;
use crate::core::op::{Body, Dot};
use crate::core::slot::same_hash::{USER, keys_of_one_hash};
use crate::core::slot::{KeyHash, slot_of};
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::log::{HEADER_BYTES, scan};

thread_local! {
    static COMPARISONS: Cell<usize> = const { Cell::new(0) };
    static OPS_MADE: Cell<u64> = const { Cell::new(0) };
}

/// What is asked for was held against one entry of a table.
pub(super) fn note_comparison() {
    COMPARISONS.set(COMPARISONS.get() + 1);
}

/// An op was made of its record.
pub(super) fn note_op() {
    OPS_MADE.set(OPS_MADE.get() + 1);
}

/// How many were.
pub(super) fn ops_made() -> u64 {
    OPS_MADE.get()
}

fn request_id() -> RequestId {
    RequestId::new("the same for all").unwrap()
}

/// One op with the same request id for each key.
fn filled(user: &UserId, keys: &[Key]) -> Memtable {
    let mut memtable = Memtable::new(LogKey::without_secret(1), NameKey::new([1; 16]));
    for (key, seq) in keys.iter().zip(1..) {
        let op = Op {
            dot: Dot {
                origin: OriginId(1),
                slot: slot_of(user, KeyHash::of(user, key)),
                seq,
            },
            time: HybridTime(seq),
            request_id: Some(request_id()),
            body: Body::Value("v".into()),
        };
        memtable.append(user, key, &op);
    }
    memtable
}

/// Every key and every request is found, each with about one comparison.
fn check_finding(memtable: &Memtable, user: &UserId, keys: &[Key]) {
    COMPARISONS.set(0);
    for key in keys {
        assert!(memtable.version_of(user, key).is_some());
        assert!(memtable.group_of_request(user, key, request_id()).is_some());
    }
    assert!(COMPARISONS.get() <= 3 * keys.len(), "{} to find", COMPARISONS.get());
}

#[test]
fn keys_of_one_hash_are_not_compared_with_each_other() {
    let (user, keys) = (UserId::new(USER).unwrap(), keys_of_one_hash(USER));
    COMPARISONS.set(0);
    let memtable = filled(&user, &keys);
    assert!(COMPARISONS.get() <= keys.len(), "{} to append", COMPARISONS.get());
    check_finding(&memtable, &user, &keys);
}

#[test]
fn keys_of_one_hash_are_not_compared_with_each_other_when_a_log_is_read_back() {
    let (user, keys) = (UserId::new(USER).unwrap(), keys_of_one_hash(USER));
    let group = filled(&user, &keys).close_group().unwrap();
    let file = Bytes::from([&[0; HEADER_BYTES], &group.bytes[..]].concat());
    let key = LogKey::without_secret(1);
    let found = scan(&file, &key, None);
    assert_eq!(found.records.len(), keys.len());
    COMPARISONS.set(0);
    let memtable = Memtable::recovered(key, NameKey::new([1; 16]), file, &found.records, found.end);
    assert!(COMPARISONS.get() <= keys.len(), "{} to read back", COMPARISONS.get());
    check_finding(&memtable, &user, &keys);
}
