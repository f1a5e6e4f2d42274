//! A memory cgroup for the processes that are measured, of version 1 or 2, below the one that this process is in.
//!
//! The limit counts the page cache of what the group's processes read or write, so that reads beyond it come from the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;

const ROOT: &str = "/sys/fs/cgroup";
/// A group can be removed only a moment after its last process has gone.
const REMOVE_TRIES: u32 = 50;

/// Removed when dropped; by then its processes have ended.
pub struct MemoryGroup {
    folder: PathBuf,
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        for _ in 0..REMOVE_TRIES {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.folder.display());
    }
}

impl MemoryGroup {
    /// Tells why there can be none.
    pub fn new(limit_bytes: u64) -> anyhow::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("no cgroups here")?;
        let (parent, limit_file) = match version_1(&own) {
            Some(parent) => (parent, "memory.limit_in_bytes"),
            None => (version_2(&own)?, "memory.max"),
        };
        let folder = parent.join(format!("kv-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let group = Self { folder };
        group.write(limit_file, limit_bytes)?;
        // Version 2 counts swap apart from memory; version 1, where nothing is said, lets the group swap.
        if group.folder.join("memory.swap.max").exists() {
            group.write("memory.swap.max", 0)?;
        }
        if group.folder.join("memory.swappiness").exists() {
            group.write("memory.swappiness", 0)?;
        }
        Ok(group)
    }

    fn write(&self, file: &str, number: u64) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, number.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where a process enters itself, see [`enter`].
    pub fn door(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

/// Moves this process into the group with that door. What it has in memory by then stays with the group it was in before.
pub fn enter(door: &Path) -> anyhow::Result<()> {
    // 0 is whoever writes it.
    fs::write(door, "0").with_context(|| format!("cannot enter {}", door.display()))
}

/// The group of this process in version 1, if memory is counted by that version: the line `4:memory:/path`.
fn version_1(own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then_some(path)
    })?;
    let folder = below(&Path::new(ROOT).join("memory"), path);
    folder.join("memory.limit_in_bytes").exists().then_some(folder)
}

/// Where a group of version 2 can be made: the line `0::/path`. A group with processes in it hands out no controllers, unless it
/// is the root: so beside the group of this process.
fn version_2(own: &str) -> anyhow::Result<PathBuf> {
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .context("memory is counted by no cgroup")?;
    let own = below(Path::new(ROOT), path);
    let parent = match (path, own.parent()) {
        ("/", _) | (_, None) => own.clone(),
        (_, Some(parent)) => parent.to_path_buf(),
    };
    let control = parent.join("cgroup.subtree_control");
    let handed_out = fs::read_to_string(&control).with_context(|| format!("cannot read {}", control.display()))?;
    if !handed_out.split_whitespace().any(|name| name == "memory") {
        fs::write(&control, "+memory").with_context(|| format!("cannot write {}", control.display()))?;
    }
    Ok(parent)
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
