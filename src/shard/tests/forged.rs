//! A user whose values look like records of other logs, and of other users.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::core::op::{Body, Dot, Op};
use crate::core::stamp::HybridTime;
use crate::store::log::{self, LogKey, LogSecret, Record, StoredSecret, load_secret, put_record};

const DIR: &str = "/data/shard";
/// Logs that the file of the first one may be used for again.
const NUMBERS: std::ops::Range<u64> = 2..12;

/// A record of a value of `victim`, as one of this log at this offset: all that a user does not know is the secret. It is text.
fn forged(number: u64, offset: u64) -> Vec<u8> {
    // One in some hundred has checksums that are text, and a slot.
    for guess in 1000..10_000u64 {
        let (user, key) = ("victim", format!("k{guess}"));
        let id = UserId::new(user).unwrap();
        let op = Op {
            dot: Dot {
                origin: OriginId(1),
                slot: slot_of(&id, KeyHash::of(&id, &Key::new(&key).unwrap())),
                seq: 1,
            },
            time: HybridTime(1),
            request_id: None,
            body: Body::Value("forged!".into()),
        };
        let place = log::Place {
            key: LogKey::without_secret(number),
            offset,
            group_back: 0,
            ordinal: 1,
        };
        let (mut record, key) = (Vec::new(), &key);
        put_record(&mut record, place, Record { user, key, op: &op });
        if record.is_ascii() {
            return record;
        }
    }
    panic!("none is text");
}

fn secret(rig: &Rig) -> Option<LogSecret> {
    match load_secret(&*rig.disk, Path::new(DIR)).unwrap() {
        StoredSecret::Sound(secret) => Some(secret),
        _ => None,
    }
}

fn log_files(rig: &Rig) -> Vec<(u64, Vec<u8>)> {
    let names = crate::store::disk::Disk::list(&*rig.disk, Path::new(DIR)).unwrap();
    let numbers = names.iter().filter_map(|entry| log::parse_file_name(&entry.name));
    let content = |number| rig.disk.content(&Path::new(DIR).join(log::file_name(number))).unwrap();
    numbers.map(|number| (number, content(number))).collect()
}

#[test]
fn what_a_user_stored_never_becomes_another_users_when_its_log_is_used_again() {
    let mut rig = Rig::new(small());
    rig.run_jobs();
    // The first record of the first log; its text begins behind a header, the user and the key.
    let text_at = log::HEADER_BYTES as u64 + 56 + 8;
    let mut text = String::new();
    for number in NUMBERS.cycle().take(100) {
        let record = forged(number, text_at + text.len() as u64);
        text.push_str(str::from_utf8(&record).unwrap());
    }
    rig.add("attacke", "r", &text);
    rig.run_jobs();
    let stored = |(_, bytes): &(u64, Vec<u8>)| bytes[text_at as usize..].starts_with(text.as_bytes());
    assert!(log_files(&rig).iter().any(stored), "it lies where it is to lie");
    // Sealed, and its file used again, as soon as the next log is full.
    rig.reopen();
    let ends_in_text = |(number, bytes): &(u64, Vec<u8>)| {
        let own = log::LogHeader::decode(bytes).is_ok_and(|header| header.number == *number);
        let tail = text_at as usize + text.len() - 64..text_at as usize + text.len();
        own && *number > 1 && bytes.get(tail) == Some(&text.as_bytes()[text.len() - 64..])
    };
    let mut between = 0;
    while !log_files(&rig).iter().any(ends_in_text) {
        rig.run_jobs();
        between += 1;
        rig.add("u", "between", &noise(between, 2000));
        assert!(between < 200, "the file is used again with the text in it");
        rig.run_jobs();
    }
    let reused: Vec<u64> = log_files(&rig)
        .iter()
        .filter(|file| ends_in_text(file))
        .map(|file| file.0)
        .collect();
    assert!(reused.iter().any(|number| NUMBERS.contains(number)), "{reused:?}");
    rig.disk = Arc::new(rig.disk.crash());
    let report = rig.reopen();
    assert!(
        report.damage.is_empty() && rig.shard.stats().lost_ops == 0,
        "{reused:?}"
    );
    assert!(rig.keys("victim", "", 10).is_empty(), "{reused:?}");
    assert_eq!(rig.get("attacke", "r"), [text]);
    assert_eq!(rig.get("u", "between").len() as u64, between);
}

#[test]
fn the_secret_is_durable_before_the_first_log_and_stays() {
    let mut rig = Rig::new(small());
    assert_eq!(secret(&rig), None);
    rig.add("u", "k", "v");
    rig.run_jobs();
    rig.disk = Arc::new(rig.disk.crash());
    let first = secret(&rig).expect("durable");
    for (number, bytes) in log_files(&rig) {
        if let Ok(header) = log::LogHeader::decode(&bytes) {
            assert_eq!((header.number, header.secret), (number, Some(first)));
        }
    }
    rig.reopen();
    rig.run_jobs();
    assert_eq!(secret(&rig), Some(first));
    // Without its file, the logs tell it, and it is written again.
    crate::store::disk::Disk::remove_file(&*rig.disk, &Path::new(DIR).join(log::SECRET_NAME)).unwrap();
    rig.add("u", "k", "w");
    rig.run_jobs();
    rig.reopen();
    rig.run_jobs();
    assert_eq!(secret(&rig), Some(first));
    assert_eq!(rig.get("u", "k"), strings(&["v", "w"]));
}

#[test]
fn a_full_disk_without_a_secret_is_read_and_gets_one_once_there_is_space() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "v");
    rig.run_jobs();
    crate::store::disk::Disk::remove_file(&*rig.disk, &Path::new(DIR).join(log::SECRET_NAME)).unwrap();
    rig.disk.faults().free_bytes.store(0, Ordering::Relaxed);
    rig.reopen();
    rig.run_jobs();
    assert_eq!((rig.get("u", "k"), rig.shard.failure()), (strings(&["v"]), None));
    assert!(rig.shard.stats().disk_full && secret(&rig).is_none());
    rig.disk.faults().free_bytes.store(1 << 30, Ordering::Relaxed);
    for _ in 0..3 {
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        rig.run_jobs();
    }
    assert!(secret(&rig).is_some());
    rig.add("u", "k", "w");
    rig.run_jobs();
    rig.reopen();
    assert_eq!(rig.get("u", "k"), strings(&["v", "w"]));
}
