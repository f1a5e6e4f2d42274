//! A disk that fills up, under the real binary: a small file system of its own. Where mounting one is not permitted, this says so.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::Home;
use serde_json::json;

/// Room for the logs of all shards and some segments.
const DISK_MIB: u64 = 100;
const VALUE_BYTES: usize = 400_000;
/// More than fits.
const ADDS_MAX: usize = 2 * DISK_MIB as usize * 1024 * 1024 / VALUE_BYTES;
const KEYS: usize = 7;

struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(dir: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir)
            .output();
        mounted.ok()?.status.success().then_some(Self(dir))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}

/// Text that does not compress, another one for each seed.
fn noise(seed: usize) -> String {
    let mut chance = crate::common::Chance(seed as u64 + 1);
    (0..VALUE_BYTES)
        .map(|_| char::from(b'!' + chance.below(90) as u8))
        .collect()
}

#[test]
fn a_full_disk_refuses_adds_keeps_reading_takes_clears_and_recovers_by_itself() {
    let home = Home::new();
    let data = home.data();
    let Some(_mounted) = Mounted::new(&data) else {
        eprintln!("SKIPPED: mounting a small file system is not permitted here");
        return;
    };
    let node = home.start();
    let admin = node.admin();
    let key = |index: usize| format!("k{}", index % KEYS);
    let mut acknowledged = [0; KEYS];
    let refused = (0..ADDS_MAX).find_map(|index| {
        let answer = admin.post("/add_value", json!({"key": key(index), "value": noise(index)}));
        match answer.status {
            200 => {
                acknowledged[index % KEYS] += 1;
                None
            }
            _ => Some(answer),
        }
    });
    let refused = refused.expect("the disk is smaller than what was added");
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(refused.text().contains("the disk is full"), "{}", refused.text());
    for (index, count) in acknowledged.iter().enumerate() {
        assert_eq!(admin.count(&key(index)), *count, "reads go on");
    }
    assert_eq!(admin.get("k0")[0], noise(0));
    for index in 0..KEYS - 1 {
        admin.clear(&key(index));
        assert_eq!(admin.count(&key(index)), 0);
    }
    let add = || {
        admin
            .post("/add_value", json!({"key": "after", "value": "taken"}))
            .status
    };
    let mut tries = 0;
    while add() != 200 {
        tries += 1;
        assert!(tries < 600, "the node did not recover: {}", node.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        admin.count(&key(KEYS - 1)),
        acknowledged[KEYS - 1],
        "what was not cleared is there"
    );
    node.kill();
    let node = home.start();
    assert_eq!(node.admin().get("after"), ["taken"]);
    assert_eq!(node.admin().count(&key(KEYS - 1)), acknowledged[KEYS - 1]);
    assert_eq!(node.admin().count("k0"), 0);
    node.kill();
}
