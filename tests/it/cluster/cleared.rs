//! The space of what was added and cleared comes back, on the node that was away too.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::rig::{Cluster, ensure, number_from, wait_for};
use crate::common::calls::Caller;

/// Adds; `KV_SPACE_ADDS` makes it a larger run.
const ADDS_DEFAULT: u64 = 20_000;
const BATCH: u64 = 250;
const KEYS: u64 = 50;
const WRITERS: u64 = 4;
const TEXT_BYTES: usize = 300;
/// For each shard of a node, the system's among them: a log and one that is prepared, of 1 MiB, the reserve, and some footers.
const LEFT_BYTES_MAX: u64 = 3 * (2 * (1 << 20) + (256 << 10)) + (256 << 10);
const SEALED_BYTES_MAX: u64 = 64 << 10;

/// Of the files whose names end like this.
fn bytes_of(folder: &Path, end: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    // What goes in between is gone.
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_of(&entry.path(), end),
        Ok(metadata) if entry.file_name().to_string_lossy().ends_with(end) => metadata.len(),
        _ => 0,
    });
    sizes.sum()
}

/// Without request ids, which would be remembered for an hour after a clear.
fn batch(caller: &Caller, operations: impl Iterator<Item = Value>) {
    let body = json!({"operations": operations.collect::<Vec<_>>()});
    let results = caller.call("/batch", body);
    for result in results["results"].as_array().unwrap() {
        assert_eq!(result["status_code"], 200, "{result}");
    }
}

fn key(writer: u64, number: u64) -> String {
    format!("key {writer} {}", number % KEYS)
}

fn add(caller: &Caller, writer: u64, numbers: Range<u64>) {
    for first in numbers.clone().step_by(BATCH as usize) {
        let some = first..numbers.end.min(first + BATCH);
        let operation = |number: u64| {
            let text = format!("{number:0TEXT_BYTES$}");
            json!({"op": "add_value", "key": key(writer, number), "value": text})
        };
        batch(caller, some.map(operation));
    }
}

fn clear(caller: &Caller, writer: u64) {
    batch(
        caller,
        (0..KEYS).map(|number| json!({"op": "clear_key", "key": key(writer, number)})),
    );
}

#[test]
fn the_space_of_what_was_cleared_comes_back_though_a_node_was_away() {
    let adds = number_from("KV_SPACE_ADDS", ADDS_DEFAULT);
    let half = adds / WRITERS / 2;
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let addresses = [0, 1].map(|index| cluster.http(index));
    let each = |work: &(dyn Fn(&Caller, u64) + Sync)| {
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let caller = user.at(addresses[writer as usize % 2]);
                scope.spawn(move || work(&caller, writer));
            }
        });
    };
    each(&|caller, writer| add(caller, writer, 0..half));
    let filled = bytes_of(cluster.data(2), "");
    cluster.kill(2);
    each(&clear);
    each(&|caller, writer| add(caller, writer, half..half * 2));
    each(&clear);
    cluster.start(2);
    cluster.wait_whole();
    let returned = Instant::now();
    wait_for("the space is free again", || {
        for index in 0..3 {
            let (left, sealed) = (bytes_of(cluster.data(index), ""), bytes_of(cluster.data(index), ".kvs"));
            let why = || format!("node {index} has {left} bytes, {sealed} of them sealed; node 2 had {filled}");
            ensure(left <= LEFT_BYTES_MAX && sealed <= SEALED_BYTES_MAX, why)?;
        }
        Ok(())
    });
    let left = [0, 1, 2].map(|index| bytes_of(cluster.data(index), ""));
    println!(
        "{adds} adds: node 2 had {filled} bytes after half of them; {left:?} are left {:?} after its return",
        returned.elapsed()
    );
    for index in 0..3 {
        assert!(user.at(cluster.http(index)).keys("", 1000).is_empty());
    }
}
