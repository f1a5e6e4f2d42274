//! Small files that are written whole: to another name, synced, and renamed, so that after a crash the old or the new one is there.

use std::io;
use std::path::Path;

use crate::store::disk::{Disk, OpenMode, is_full};

/// The file's bytes; none if it is not there. Of one longer than `bytes_max`, the first so many.
pub fn read(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; file.len()?.min(bytes_max) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Durable on Ok; on Err the old file stands, or the new one.
pub fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    if disk.exists(&temporary)? {
        disk.remove_file(&temporary)?;
    }
    let file = disk.open(&temporary, OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => disk.sync_dir(dir),
        None => Ok(()),
    }
}

/// The length of a spare file is a multiple of this, and exceeds that of the file it stands in for by at least as much, bytes.
const SPARE_BYTES: usize = 4096;

/// Like [`write`], for a file that must be writable even on a full disk: a spare file beside it reserves the space.
///
/// On a full disk the bytes go into the spare, which has its space already, and the spare takes over the name. The space of the file that
/// had the name goes to the next spare.
///
/// Invariant: a spare is never cut shorter than a spare has to be, so a try that fails leaves it usable. After a crash the bytes may
/// therefore be followed by spaces, which the reader has to ignore.
pub fn write_with_spare(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let spare = path.with_extension("spare");
    match write(disk, path, bytes) {
        Err(error) if is_full(&error) => write_into(disk, &spare, path, bytes).map_err(|_| error)?,
        written => written?,
    }
    if let Err(error) = keep_spare(disk, &spare, spare_bytes(bytes)) {
        tracing::warn!(path = %spare.display(), %error, "no space could be set aside for a full disk");
    }
    Ok(())
}

/// How long the spare of a file with these bytes is.
fn spare_bytes(bytes: &[u8]) -> usize {
    (bytes.len() / SPARE_BYTES + 2) * SPARE_BYTES
}

fn write_into(disk: &dyn Disk, spare: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The part that was written before the space ran out.
    let _ = disk.remove_file(&path.with_extension("tmp"));
    let file = disk.open(spare, OpenMode::ReadWrite)?;
    let held = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if held < bytes.len() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let mut padded = bytes.to_vec();
    padded.resize(held.min(spare_bytes(bytes)), b' ');
    file.set_len(padded.len() as u64)?;
    file.write_all_at(&padded, 0)?;
    file.sync_data()?;
    disk.rename(spare, path)?;
    if let Some(dir) = path.parent() {
        disk.sync_dir(dir)?;
    }
    // Frees space for the next spare. If it fails, the spaces stay.
    let _ = file.set_len(bytes.len() as u64);
    Ok(())
}

/// Makes the spare file if it is not there, or extends it if it has become too short.
fn keep_spare(disk: &dyn Disk, spare: &Path, bytes: usize) -> io::Result<()> {
    let (file, is_new) = match disk.open(spare, OpenMode::ReadWrite) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (disk.open(spare, OpenMode::CreateNew)?, true),
        opened => (opened?, false),
    };
    let held = file.len()?;
    let missing = (bytes as u64).saturating_sub(held);
    // Less than a block is not worth a sync.
    if missing < SPARE_BYTES as u64 {
        return Ok(());
    }
    file.write_all_at(&vec![0; missing as usize], held)?;
    file.sync_data()?;
    match spare.parent() {
        Some(dir) if is_new => disk.sync_dir(dir),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "whole_file_tests.rs"]
mod tests;
