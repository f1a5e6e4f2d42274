//! The operating system's page cache: what it holds of a folder's files is let go, so that reads begin at the disk.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// Writes back and lets go what is cached of every file below `folder`.
pub fn drop_below(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            drop_below(&entry.path())?;
            continue;
        }
        let file = File::open(entry.path())?;
        // Only what is on the disk can be let go.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
