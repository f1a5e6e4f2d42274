//! Two users whose keys were chosen so that their `KeyHash` is one: neither learns of the other (guarantee G9).

use super::*;
use crate::core::slot::same_hash::{OTHER_USER, USER, keys_of_one_hash};

const MAX: usize = 4 << 10;

fn rig() -> Rig {
    Rig::new(ShardConfig {
        value_bytes_max: MAX as u64,
        ..small()
    })
}

/// A key of each.
fn keys() -> (Key, Key) {
    (
        keys_of_one_hash(USER).swap_remove(7),
        keys_of_one_hash(OTHER_USER).swap_remove(11),
    )
}

fn add(bytes: usize, finish: bool) -> WriteKind {
    let text = Text::from("x".repeat(bytes));
    WriteKind::Add { text, finish }
}

#[test]
fn parts_of_one_user_leave_another_user_the_whole_length_of_a_value() {
    let mut rig = rig();
    let (key, other) = keys();
    assert_eq!(
        rig.write(OTHER_USER, other.as_str(), add(MAX - 1, false), None),
        Ok(true)
    );
    assert_eq!(rig.write(USER, key.as_str(), add(MAX, true), None), Ok(true));
}

#[test]
fn what_one_user_finishes_or_clears_leaves_the_parts_of_another_counted() {
    for kind in [add(5, true), WriteKind::Clear] {
        let mut rig = rig();
        let (key, other) = keys();
        assert_eq!(
            rig.write(OTHER_USER, other.as_str(), add(MAX - 10, false), None),
            Ok(true)
        );
        assert_eq!(rig.write(USER, key.as_str(), kind, None), Ok(true));
        let added = rig.write(OTHER_USER, other.as_str(), add(11, true), None);
        assert!(matches!(added, Err(WriteRefused::ValueTooLong { .. })), "{added:?}");
    }
}
