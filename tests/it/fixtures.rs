//! Images of shards, sound and damaged, as they lie on real disks: `fixtures/README.md` says what is wrong with each and what must
//! happen. They stay as they are when the format changes, so that what was once written can always be read.
//!
//! With `KV_WRITE_FIXTURES=DIR` set, the images of the present format are written into `DIR`: for a new version of the format.

mod copy;
mod flips;
mod write;

use std::fs;
use std::path::Path;

use kv_storage::core::clock::SlotClocks;
use kv_storage::core::slot::slot_of;
use kv_storage::core::stamp::OriginId;
use kv_storage::node::{Node, NodeConfig, StartError, Terms};
use kv_storage::os;
use kv_storage::shard::Shard;
use kv_storage::store::recover::{RecoverError, recover};
use kv_storage::types::WallMs;

use copy::{Copy, add, add_with, files, fixtures, get, names};

const USER: &str = "u";
/// Its values are `one`, `two`, `three`.
const EAST: &str = "east";
/// Its value is `only`. Its slot lies in the other half of them than that of `east`.
const WEST: &str = "west";
/// Of the ops in the images.
const ORIGIN: u64 = 0xfeed;
/// Of those that another replica sent.
const OTHER_ORIGIN: u64 = 0xf00d;
/// The request id of a cleared value.
const SPENT_REQUEST: &str = "request spent";
/// Slots of a shard that owns all.
const SLOTS: u64 = 1024;
const NOW: WallMs = WallMs(1_000_000);

/// More than one block is meant to hold, and compresses well.
fn long(word: &str) -> String {
    word.repeat(20_000 / word.len())
}

/// Ops of the long list.
const LONG_LIST_VALUES: u64 = 120;

fn long_list_text(value: u64) -> String {
    format!("{value} {}", "value ".repeat(100))
}

fn long_list_request(value: u64) -> String {
    format!("request {value}")
}

/// Values that do not compress, two of which take nearly two pages.
fn noise() -> Vec<String> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + ((state >> 16) % 95) as u8)
    };
    (0..9).map(|_| (0..4_000).map(|_| next()).collect()).collect()
}

/// What opening an image must give.
#[derive(Default)]
struct Expected {
    torn_logs: u64,
    damage: usize,
    lost_ops: u64,
    /// `None`: refused, because something of their slot is lost.
    east: Option<&'static [&'static str]>,
    west: Option<&'static [&'static str]>,
    /// Files that are set aside by the time the shard is at rest.
    set_aside: &'static [&'static str],
    /// Of `east`, once the loss is accepted.
    east_after_loss: &'static [&'static str],
}

const SOUND: Expected = Expected {
    torn_logs: 0,
    damage: 0,
    lost_ops: 0,
    east: Some(&["one", "two", "three"]),
    west: Some(&["only"]),
    set_aside: &[],
    east_after_loss: &["one", "two", "three"],
};

fn assert_reads(shard: &Shard, expected: &Expected) {
    for (key, values) in [(EAST, expected.east), (WEST, expected.west)] {
        let values = values.map(|values| values.iter().map(|&value| value.to_owned()).collect());
        assert_eq!(get(shard, key), values, "{key}");
    }
    assert_eq!(shard.stats().lost_ops, expected.lost_ops);
}

/// Opens the image, lets the shard come to rest, opens it again, adds to it and accepts what is lost: at every step it must
/// give what is expected.
fn check(name: &str, expected: &Expected) {
    check_version(1, name, expected);
}

fn check_version(version: u16, name: &str, expected: &Expected) {
    let copy = Copy::of_version(version, name);
    let (mut shard, report) = copy.open();
    assert_eq!(report.torn_logs, expected.torn_logs);
    assert_eq!(report.damage.len(), expected.damage, "{:?}", report.damage);
    assert_reads(&shard, expected);
    shard.settle(NOW);
    assert_reads(&shard, expected);
    for name in expected.set_aside {
        copy.assert_set_aside(name);
    }
    drop(shard);

    let (mut shard, report) = copy.open();
    assert_eq!((report.torn_logs, report.damage), (0, Vec::new()), "it was told once");
    assert_reads(&shard, expected);
    // As the node does after damage: what the origin of old gave out may be lost.
    shard.set_origin(OriginId(0xbeef));
    add(&mut shard, EAST, "new");
    assert_reads_after_add(&shard, expected);
    drop(shard);

    let (mut shard, _) = copy.open();
    assert_reads_after_add(&shard, expected);
    assert_eq!(shard.accept_loss().unwrap(), expected.lost_ops);
    for mut shard in [shard, copy.open().0] {
        let east = [expected.east_after_loss, &["new"]].concat();
        assert_eq!(get(&shard, EAST).unwrap(), east);
        assert!(get(&shard, WEST).is_some());
        assert_eq!(shard.stats().lost_ops, 0);
        shard.settle(NOW);
    }
}

fn assert_reads_after_add(shard: &Shard, expected: &Expected) {
    let east = expected.east.map(|values| [values, &["new"]].concat());
    let east = east.map(|values| values.into_iter().map(str::to_owned).collect());
    assert_eq!(get(shard, EAST), east);
    assert_eq!(get(shard, WEST).is_some(), expected.west.is_some());
    assert_eq!(shard.stats().lost_ops, expected.lost_ops);
}

const LOG_1: &str = "log-0000000000000001.kvl";
const SEGMENT_2: &str = "segment-0000000000000002.kvs";

#[test]
fn a_sound_log_and_a_sound_segment_are_read() {
    check("sound-log", &SOUND);
    check_version(4, "sound-log", &SOUND);
    check("sound-segment", &SOUND);
    check_version(2, "sound-segment", &SOUND);
    check_version(4, "sound-segment", &SOUND);
    check_version(5, "sound-segment", &SOUND);
}

#[test]
fn a_padded_block_is_read() {
    let copy = Copy::of_version(5, "segment-padded");
    let (mut shard, report) = copy.open();
    assert!(report.damage.is_empty());
    for _ in 0..2 {
        assert_eq!(get(&shard, EAST), Some(noise()));
        shard.settle(NOW);
        add(&mut shard, WEST, "more");
        shard.settle(NOW);
        drop(shard);
        shard = copy.open().0;
    }
    let west = ["only", "more", "more"].map(str::to_owned);
    assert_eq!(get(&shard, WEST), Some(west.to_vec()));
}

#[test]
fn ops_of_other_replicas_are_read_in_order_and_a_spent_request_id_is_remembered() {
    for version in [3, 4] {
        check_version(version, "log-of-replica", &SOUND);
        let copy = Copy::of_version(version, "log-of-replica");
        for _ in 0..2 {
            let (mut shard, _) = copy.open();
            assert!(!add_with(&mut shard, EAST, "again", Some(SPENT_REQUEST)));
            shard.settle(NOW);
            assert!(!add_with(&mut shard, EAST, "again", Some(SPENT_REQUEST)));
            assert_reads(&shard, &SOUND);
        }
    }
}

const SECRET: &str = "log-secret";

#[test]
fn every_folder_has_a_secret_once_it_has_a_log_and_keeps_it() {
    for (version, name) in [(1, "sound-log"), (1, "sound-segment"), (4, "sound-log")] {
        let copy = Copy::of_version(version, name);
        copy.open().0.settle(NOW);
        let secret = files(&copy.dir())[SECRET].clone();
        if version == 4 {
            assert_eq!(secret, files(&copy.image)[SECRET]);
        }
        copy.open().0.settle(NOW);
        assert_eq!(files(&copy.dir())[SECRET], secret);
    }
}

#[test]
fn a_secret_that_is_missing_or_damaged_is_known_from_the_logs_and_written_anew() {
    let expected = Expected {
        west: Some(&["only", "more"]),
        ..SOUND
    };
    for (name, expected) in [
        ("secret-missing", &SOUND),
        ("secret-damaged", &SOUND),
        ("secret-and-one-header-damaged", &expected),
    ] {
        check_version(4, name, expected);
        let copy = Copy::of_version(4, name);
        copy.open().0.settle(NOW);
        assert_eq!(
            files(&copy.dir())[SECRET],
            files(&fixtures().join("v4/sound-log"))[SECRET]
        );
    }
}

#[test]
fn a_log_that_nothing_is_left_to_read_with_is_a_loss() {
    let expected = Expected {
        damage: 1,
        lost_ops: SLOTS,
        east: None,
        west: None,
        set_aside: &[LOG_1],
        east_after_loss: &[],
        ..SOUND
    };
    check_version(4, "secret-and-header-damaged", &expected);
}

#[test]
fn what_a_user_made_to_look_like_a_record_is_none() {
    check_version(4, "log-forged", &SOUND);
}

#[test]
fn a_long_list_remembers_its_request_ids_whatever_its_filter_tells() {
    for version in [1, 2, 4] {
        let copy = Copy::of_version(version, "segment-long-list");
        let (mut shard, _) = copy.open();
        for _ in 0..2 {
            let values = get(&shard, EAST).unwrap();
            assert_eq!(values.len() as u64, LONG_LIST_VALUES * 3 / 4);
            for value in 1..=LONG_LIST_VALUES {
                let request = long_list_request(value);
                assert!(
                    !add_with(&mut shard, EAST, &long_list_text(value), Some(&request)),
                    "v{version}, {request}"
                );
            }
            assert_eq!(get(&shard, EAST).unwrap(), values);
            drop(shard);
            shard = copy.open().0;
            shard.settle(NOW);
        }
        assert!(add_with(&mut shard, EAST, "new", Some("request new")));
    }
}

/// In the slot of `east`: the first two ops of the other origin.
fn collected() -> SlotClocks {
    let (user, _, hash) = names(EAST);
    let mut clocks = SlotClocks::default();
    clocks.insert_range(slot_of(&user, hash), OriginId(OTHER_ORIGIN), 1, 2);
    clocks
}

#[test]
fn what_was_collected_is_known_and_stays_so() {
    check_version(3, "sound-segment", &SOUND);
    check_version(3, "segment-collected", &SOUND);
    let copy = Copy::of_version(3, "segment-collected");
    for _ in 0..2 {
        let found = recover(&copy.place()).unwrap();
        assert_eq!(found.collected, collected());
        let (mut shard, _) = copy.open();
        add(&mut shard, WEST, "more");
    }
    for version in 1..=5 {
        let found = recover(&Copy::of_version(version, "sound-segment").place()).unwrap();
        assert!(found.collected.is_empty());
    }
}

#[test]
fn a_torn_tail_is_cut_and_is_no_loss() {
    let values: &[&str] = &["one", "two"];
    let expected = Expected {
        torn_logs: 1,
        east: Some(values),
        east_after_loss: values,
        ..SOUND
    };
    check("log-torn-tail", &expected);
    check_version(4, "log-torn-tail", &expected);
}

#[test]
fn a_damaged_record_is_told_and_its_slot_refused() {
    let expected = Expected {
        damage: 1,
        lost_ops: 1,
        east: None,
        set_aside: &[LOG_1],
        east_after_loss: &["one", "three"],
        ..SOUND
    };
    for version in [1, 4] {
        check_version(version, "log-damaged-middle", &expected);
        check_version(version, "log-damaged-record-header", &expected);
    }
}

#[test]
fn a_damaged_header_of_a_log_loses_nothing() {
    check("log-damaged-header", &SOUND);
    check_version(4, "log-damaged-header", &SOUND);
}

#[test]
fn a_damaged_end_that_the_next_log_proves_is_a_loss() {
    let expected = Expected {
        damage: 1,
        lost_ops: 1,
        east: None,
        west: Some(&["only", "more"]),
        set_aside: &[LOG_1],
        east_after_loss: &["one", "two"],
        ..SOUND
    };
    check("log-damaged-end", &expected);
    check_version(4, "log-damaged-end", &expected);
}

#[test]
fn a_loss_that_nothing_names_concerns_the_whole_shard() {
    let expected = Expected {
        damage: 1,
        lost_ops: SLOTS,
        east: None,
        west: None,
        set_aside: &[LOG_1],
        east_after_loss: &["one", "two"],
        ..SOUND
    };
    check("log-damaged-end-unnamed", &expected);
    check_version(4, "log-damaged-end-unnamed", &expected);
}

#[test]
fn a_segment_without_its_footer_is_salvaged() {
    let expected = Expected {
        damage: 1,
        set_aside: &[SEGMENT_2],
        ..SOUND
    };
    check("segment-damaged-footer", &expected);
}

#[test]
fn a_segment_that_is_cut_short_may_have_held_anything() {
    let expected = Expected {
        damage: 1,
        lost_ops: SLOTS,
        east: None,
        west: None,
        set_aside: &[SEGMENT_2],
        ..SOUND
    };
    check("segment-cut-short", &expected);
}

#[test]
fn a_file_that_was_never_finished_is_removed() {
    check("leftover-tmp", &SOUND);
    let copy = Copy::of("leftover-tmp");
    let leftovers = || {
        files(&copy.dir())
            .into_keys()
            .filter(|name| name.ends_with(".tmp"))
            .count()
    };
    assert_eq!(leftovers(), 1);
    drop(copy.open());
    assert_eq!(leftovers(), 0);
}

#[test]
fn a_log_that_became_a_segment_does_not_bring_back_what_was_cleared() {
    let expected = Expected {
        east: Some(&[]),
        east_after_loss: &[],
        ..SOUND
    };
    check("segment-and-its-log", &expected);
}

#[test]
fn a_damaged_block_is_met_by_the_read_told_and_set_aside() {
    let copy = Copy::of("segment-damaged-block");
    let (mut shard, report) = copy.open();
    assert!(report.damage.is_empty(), "blocks are not read at the start");
    let is_lost = |shard: &Shard| {
        assert_eq!(get(shard, EAST), None, "never \"not found\"");
        assert_eq!(get(shard, WEST), Some(vec![long("west")]));
    };
    is_lost(&shard);
    // As the node does when a read fails.
    shard.report_damage(2);
    shard.settle(NOW);
    is_lost(&shard);
    assert_eq!((shard.stats().lost_ops, shard.stats().quarantined_files), (1, 1));
    copy.assert_set_aside(SEGMENT_2);
    drop(shard);

    let (mut shard, _) = copy.open();
    is_lost(&shard);
    assert_eq!(shard.stats().lost_ops, 1);
    assert_eq!(shard.accept_loss().unwrap(), 1);
    assert_eq!(get(&shard, EAST), Some(Vec::new()));
    assert_eq!(get(&shard, WEST), Some(vec![long("west")]));
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    for (version, name, known_of_it) in [
        (1, "log-newer-version", 3),
        (4, "log-newer-version", 3),
        (1, "segment-newer-version", 5),
    ] {
        let copy = Copy::of_version(version, name);
        let before = files(&copy.dir());
        let refused = copy.try_open().err().unwrap();
        assert!(matches!(
            refused,
            RecoverError::NewerVersion {
                found: 200,
                known,
                ..
            } if known == known_of_it
        ));
        let text = refused.to_string();
        assert!(
            text.contains("version 200") && text.contains(&format!("versions up to {known_of_it}:")),
            "{text}"
        );
        assert!(files(&copy.dir()) == before, "{name} was touched");
    }
}

fn two_shards_are_in(dir: &Path) -> NodeConfig {
    NodeConfig {
        // Whatever is asked for: the folder was made with two.
        shards: 5,
        ..NodeConfig::new(dir.to_owned())
    }
}

async fn node_get(node: &Node, key: &str) -> Vec<String> {
    let (user, key, _) = names(key);
    let mut reader = node.get(&user, &key, 0, u64::MAX, Terms::usual()).await.unwrap();
    let mut values = Vec::new();
    loop {
        let batch = reader.next(1 << 20).await.unwrap();
        if batch.is_empty() {
            return values;
        }
        // Every value of these images is one fragment.
        values.extend(batch.iter().map(|fragment| fragment.text.as_ref().to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_identity_is_set_aside_and_drawn_anew() {
    let copy = Copy::of("node-json-damaged");
    let mut identities = Vec::new();
    for _ in 0..2 {
        let node = Node::start(os::env(), two_shards_are_in(&copy.dir())).await.unwrap();
        assert!(!node.local().life().is_fresh);
        assert_eq!(node_get(&node, EAST).await, ["one", "two", "three"]);
        assert_eq!(node_get(&node, WEST).await, ["only"]);
        node.stop().await;
        let identity = fs::read(copy.dir().join("node.json")).unwrap();
        identities.push(serde_json::from_slice::<serde_json::Value>(&identity).unwrap());
    }
    assert_eq!(identities[0], identities[1], "drawn once");
    assert_eq!(identities[0]["shards"], 2);
    assert_ne!(identities[0]["origin"], format!("{ORIGIN:016x}"));
    let kept = fs::read(copy.dir().join("quarantine-node.json")).unwrap();
    assert_eq!(kept, fs::read(copy.image.join("node.json")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_of_a_newer_version_is_refused_and_left_alone() {
    let copy = Copy::of("node-json-newer-version");
    let refused = Node::start(os::env(), two_shards_are_in(&copy.dir()))
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, StartError::Identity(_)));
    let text = refused.to_string();
    assert!(
        text.contains("version 200") && text.contains("versions up to 2:"),
        "{text}"
    );
    let identity = fs::read(copy.dir().join("node.json")).unwrap();
    assert_eq!(identity, fs::read(copy.image.join("node.json")).unwrap());
}

#[test]
fn every_image_has_its_line_and_its_check() {
    let readme = fs::read_to_string(fixtures().join("README.md")).unwrap();
    let checks = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file!())).unwrap();
    let mut images = 0;
    let versions = [1, 2, 3, 4, 5].map(|version| fs::read_dir(fixtures().join(format!("v{version}"))).unwrap());
    for image in versions.into_iter().flatten() {
        let name = image.unwrap().file_name().into_string().unwrap();
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in README.md");
        assert!(checks.contains(&format!("\"{name}\"")), "nothing checks {name}");
        images += 1;
    }
    assert_eq!(
        readme.matches("\n| `").count(),
        images,
        "README.md has an image that is not there"
    );
}

/// Does nothing unless `KV_WRITE_FIXTURES` names a folder.
#[test]
fn images_are_written_when_asked_for() {
    if let Some(dir) = std::env::var_os("KV_WRITE_FIXTURES") {
        write::write_images(Path::new(&dir));
    }
}
