//! Small files that are written whole: to another name, synced, and renamed, so that after a crash the old or the new one is there.

use std::io;
use std::path::Path;

use crate::store::disk::{Disk, OpenMode};

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

/// Spare files have a length that is a multiple of this, and so much more at least than what they stand in for, bytes.
const SPARE_BYTES: usize = 4096;

/// The same for a file that has to be written although the disk is full: beside it, a spare one keeps the space that this takes.
///
/// On a full disk the bytes go into the spare, whose space is its own already, and it gets the name. The file that had the name gives its space
/// to the next spare.
pub fn write_with_spare(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let spare = path.with_extension("spare");
    match write(disk, path, bytes) {
        Err(error) if is_full(&error) => write_into(disk, &spare, path, bytes).map_err(|_| error)?,
        written => written?,
    }
    if let Err(error) = keep_spare(disk, &spare, (bytes.len() / SPARE_BYTES + 2) * SPARE_BYTES) {
        tracing::warn!(path = %spare.display(), %error, "no space could be set aside for a full disk");
    }
    Ok(())
}

fn write_into(disk: &dyn Disk, spare: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What there was no space for.
    let _ = disk.remove_file(&path.with_extension("tmp"));
    let file = disk.open(spare, OpenMode::ReadWrite)?;
    if file.len()? < bytes.len() as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_data()?;
    disk.rename(spare, path)?;
    match path.parent() {
        Some(dir) => disk.sync_dir(dir),
        None => Ok(()),
    }
}

/// Makes the spare file if it is not there, or extends it if it has become too short.
fn keep_spare(disk: &dyn Disk, spare: &Path, bytes: usize) -> io::Result<()> {
    let file = match disk.open(spare, OpenMode::ReadWrite) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.open(spare, OpenMode::CreateNew),
        opened => opened,
    }?;
    let held = file.len()?;
    let missing = (bytes as u64).saturating_sub(held);
    // What is longer by less than a block is not worth a sync.
    if missing < SPARE_BYTES as u64 {
        return Ok(());
    }
    file.write_all_at(&vec![0; missing as usize], held)?;
    file.sync_data()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
