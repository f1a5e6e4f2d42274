//! Data folders that are deleted, put back from an old copy, or damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::load::{Kind, Load};
use super::rig::{Cluster, Ending, ensure, read, wait_for};
use crate::common::calls::Caller;
use crate::common::{Chance, kv, run};

#[test]
fn a_node_whose_data_folder_was_deleted_is_filled_again_the_founder_too() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let load = Load::start(&cluster, &user, Kind::default());
    for index in [2, 0] {
        load.wait_done(100);
        let lost = cluster.id(index);
        cluster.kill(index);
        std::fs::remove_dir_all(cluster.data(index)).unwrap();
        load.wait_done(50);
        cluster.start(index);
        cluster.wait_whole();
        assert_ne!(cluster.id(index), lost, "an identity is never used twice");
    }
    load.wait_done(50);
    load.finish().check(&cluster, &user);
}

/// Whether a segment of the node tells of clears whose records are gone.
fn has_collected(cluster: &Cluster, index: usize) -> bool {
    let mut files = segments(cluster.data(index)).into_iter();
    files.any(|path| {
        let mut command = kv();
        command.args(["segment", "dump"]).arg(path);
        let text = String::from_utf8(run(command).stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut footers = lines.filter(|line| line["line"] == "footer");
        footers.any(|footer| footer["collected"].as_array().is_some_and(|clocks| !clocks.is_empty()))
    })
}

#[test]
fn an_old_copy_of_a_data_folder_loses_no_add_and_brings_nothing_cleared_back() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let mut kept = Vec::new();
    let add = |user: &Caller, kept: &mut Vec<String>| {
        let text = format!("value {}", kept.len());
        user.add("kept", &text);
        kept.push(text);
    };
    for _ in 0..5 {
        add(&user, &mut kept);
        user.add("cleared", "must not come back");
    }
    cluster.wait_whole();
    cluster.stop(1);
    let copy = cluster.home().join("copy");
    copy_folder(cluster.data(1), &copy);
    cluster.start(1);
    cluster.wait_whole();

    user.clear("cleared");
    for _ in 0..5 {
        add(&user, &mut kept);
    }
    // All know of the clear, and so its record goes: nobody can tell the old copy of it any more.
    wait_for("the clear is collected", || {
        let collected = [0, 1, 2].map(|index| has_collected(&cluster, index));
        ensure(collected == [true; 3], || format!("{collected:?}"))
    });
    // Two of three hold these, and then one of the two loses its disk to the old copy.
    cluster.kill(2);
    for _ in 0..5 {
        add(&user, &mut kept);
    }
    cluster.kill(0);
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1)).unwrap();
    copy_folder(&copy, cluster.data(1));
    cluster.start(1);
    cluster.start(2);
    let mut refused = 0;
    while refused < 10 {
        for index in [1, 2] {
            match read(&user.at(cluster.http(index)), "kept", "quorum") {
                Ok(found) => assert_eq!(found, kept, "an acknowledged add is missing at a quorum"),
                Err(_) => refused += 1,
            }
        }
    }
    cluster.start(0);
    cluster.wait_whole();
    let held = cluster.wait_equal(&user, &["kept", "cleared"].map(str::to_owned));
    assert_eq!(held, [kept, Vec::new()]);
    assert!(cluster.node(1).log().contains("an older copy of itself"));
    assert!(cluster.metric(1, "kv_reconciled_slots_total", "") > 0);
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => _ = std::fs::copy(&path, &target).unwrap(),
        }
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|extension| extension == "kvs") {
            found.push(path);
        }
    }
    found
}

/// Changes a byte in each tenth of the file but the last, which says where everything lies.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let tenth = bytes.len() / 10;
    for part in 1..9 {
        bytes[part * tenth] ^= 0x10;
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_segment_never_gives_a_wrong_answer_and_is_made_good_by_the_others() {
    const KEYS: u64 = 20;
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let mut chance = Chance(7);
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Keys whose only block may be one that is damaged.
    for number in 0..300 {
        let text: String = (0..250).map(|_| format!("{:016x}", chance.below(u64::MAX))).collect();
        let key = format!("small {number}");
        user.at(cluster.http(number % 3)).add(&key, &text);
        expected.entry(key).or_default().push(text);
    }
    for round in 0..15 {
        for key in 0..KEYS {
            let text: String = (0..1000).map(|_| format!("{:016x}", chance.below(u64::MAX))).collect();
            let key = format!("key {key}");
            user.at(cluster.http(round % 3)).add(&key, &text);
            expected.entry(key).or_default().push(text);
        }
    }
    cluster.wait_whole();
    wait_for("there are segments", || {
        let count = cluster.metric(1, "kv_shard_segments", "");
        ensure(count >= 2, || format!("{count}"))
    });
    cluster.kill(1);
    let damaged = segments(cluster.data(1));
    damaged.iter().for_each(|path| flip(path));
    cluster.start(1);

    let ending = AtomicBool::new(false);
    let callers = [0, 1, 2].map(|index| user.at(cluster.http(index)));
    std::thread::scope(|scope| {
        let ended = Ending(&ending);
        // Whoever reads meanwhile gets all or an honest error.
        let reader = scope.spawn(|| {
            let mut refused = BTreeMap::new();
            while !ending.load(Ordering::Relaxed) {
                for (key, values) in &expected {
                    for (caller, level) in [(&callers[0], "quorum"), (&callers[1], "quorum"), (&callers[1], "one")] {
                        match read(caller, key, level) {
                            Ok(found) => assert!(found == *values, "{key}: {} values", found.len()),
                            Err(why) => *refused.entry(why).or_insert(0) += 1,
                        }
                    }
                }
            }
            refused
        });
        wait_for("the damage is found and made good", || {
            assert!(!reader.is_finished(), "the reader gave up: see above");
            let output = cluster.cli(0, &["cluster", "status", "--json"]);
            let status: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
            let members = status["members"].as_array().unwrap();
            let peer = cluster.peer(1).to_string();
            let member = members.iter().find(|member| member["peer"] == peer).unwrap();
            // Neither is known while it does not answer.
            let counted = member["quarantined_segments"].as_u64();
            ensure(counted > Some(0) && member["unsynced_slots"] == 0, || {
                format!("{member}")
            })
        });
        cluster.wait_whole();
        drop(ended);
        // While the node is not connected yet there may be too few replicas; and an answer that had begun can break off.
        let refused = reader.join().unwrap();
        println!("refused meanwhile: {refused:?}");
        assert!(
            !refused.keys().any(|why: &String| why.contains("damaged")),
            "{refused:?}"
        );
    });
    let keys: Vec<String> = expected.keys().cloned().collect();
    assert!(cluster.wait_equal(&user, &keys) == expected.into_values().collect::<Vec<_>>());
    assert_eq!(callers[1].keys("", 100), keys);
}

/// The files of the system's shard whose names end like this, and hold anything.
fn system_files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_system = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("system-"))
    };
    let system = folders.find(is_system).unwrap();
    let files = std::fs::read_dir(system).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: &PathBuf| std::fs::read(path).unwrap().iter().any(|byte| *byte != 0);
    files
        .filter(|path| path.to_string_lossy().ends_with(end) && holds(path))
        .collect()
}

/// Changes a byte in each tenth but the last of what the log holds behind its header.
fn flip_log(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (first, tenth) = (512, (end - 512) / 10);
    for part in 1..9 {
        bytes[first + part * tenth] ^= 0x10;
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn damage_to_the_systems_own_shard_is_made_good_and_passwords_still_work() {
    let mut cluster = Cluster::new();
    let mut users: Vec<Caller> = Vec::new();
    let mut logs_in = |cluster: &Cluster, index: usize| {
        users.push(cluster.user(&format!("user {}", users.len())));
        for user in &users {
            user.at(cluster.http(index)).keys("", 10);
        }
    };
    (0..3).for_each(|index| logs_in(&cluster, index));
    let peer = cluster.peer(1).to_string();
    let mut quarantined = 0;
    for end in [".kvl", ".kvs"] {
        wait_for("there is such a file", || {
            let files = system_files(cluster.data(1), end);
            ensure(!files.is_empty(), || format!("none that ends in {end}"))
        });
        cluster.kill(1);
        for path in system_files(cluster.data(1), end) {
            match end {
                ".kvl" => flip_log(&path),
                _ => flip(&path),
            }
        }
        cluster.start(1);
        wait_for("the damage is found and made good", || {
            let members = cluster.up(1)?;
            let member = members.iter().find(|member| member["peer"] == peer).unwrap();
            let set_aside = cluster.metric(1, "kv_shard_quarantined_files_total", "system");
            ensure(set_aside > 0 && member["unsynced_slots"] == 0, || {
                format!("{set_aside} {member}")
            })
        });
        quarantined += cluster.metric(1, "kv_quarantined_segments", "");
        cluster.wait_whole();
        assert_eq!(cluster.up(1).unwrap().len(), 3, "the member table came back");
        logs_in(&cluster, 1);
        // Its word counts again: with one of the others away, all goes by it.
        cluster.kill(2);
        logs_in(&cluster, 1);
        cluster.start(2);
        cluster.wait_whole();
    }
    assert!(quarantined >= 2);
    let names = |index: usize| cluster.admin(index).call("/users/list", serde_json::json!({}))["users"].clone();
    assert_eq!((names(1), names(2)), (names(0), names(0)));
    assert_eq!(names(0).as_array().unwrap().len(), users.len() + 1);
}
