//! Reading back the logs that are not sealed yet.

use std::io;

use bytes::Bytes;

use super::keys::FolderSecret;
use super::losses::is_covered;
use super::{Place, RecoverError, Recovered, RecoveredLog};
use crate::store::disk::{DiskFile, OpenMode};
use crate::store::log::{self, HeaderError, LogHeader, LogKey, Scan};
use crate::store::memtable::Memtable;

/// A log that cannot be read at once is read in pieces of this size: a sector of today's disks.
pub(super) const READ_AGAIN_BYTES: usize = 4096;

/// From the newest log to the oldest: each says where the one before it ends, so only one has to be in memory at a time.
pub(super) fn read_logs(
    place: &Place,
    secret: &FolderSecret,
    numbers: Vec<u64>,
    found: &mut Recovered,
) -> Result<(), RecoverError> {
    let mut previous: Option<log::Previous> = None;
    for number in numbers.into_iter().rev() {
        let log = read_log(place, number)?;
        let known_end = previous
            .filter(|previous| previous.number == number)
            .map(|previous| previous.end);
        let key = secret.key_of(number, &log.bytes, log.header, known_end);
        let own = log.header.ok();
        let own = own.filter(|header| header.number == number && key.is_some());
        // A file that was taken over and never used, for there was no space, says nothing of the one before it; one behind it may.
        let still = previous.filter(|previous| previous.number < number);
        previous = own.map(|header| header.previous).or(still);
        take_log(place, log, key, known_end, found)?;
    }
    found.logs.reverse();
    found.spares.sort_unstable();
    Ok(())
}

fn read_log(place: &Place, number: u64) -> Result<ReadLog, RecoverError> {
    let path = place.dir.join(log::file_name(number));
    let fail = |source| RecoverError::Io {
        path: path.clone(),
        source,
    };
    let file = place.disk.open(&path, OpenMode::ReadWrite).map_err(fail)?;
    let (bytes, whole) = read_whole(&*file).map_err(fail)?;
    let header = LogHeader::decode(&bytes);
    if let Err(HeaderError::NewerVersion(version)) = header {
        return Err(RecoverError::NewerVersion {
            path,
            found: version,
            known: log::VERSION,
        });
    }
    Ok(ReadLog {
        number,
        file,
        bytes,
        whole,
        header,
    })
}

/// The file's bytes, and whether all of it could be read, if not at once then piece by piece. What cannot be read is taken for zeroes,
/// so for damage; when nothing can be read, it is the disk that fails, not the file.
fn read_whole(file: &dyn DiskFile) -> io::Result<(Bytes, bool)> {
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let Err(failure) = file.read_exact_at(&mut bytes, 0) else {
        return Ok((bytes.into(), true));
    };
    let (mut readable, mut unreadable) = (0, 0);
    for (index, piece) in bytes.chunks_mut(READ_AGAIN_BYTES).enumerate() {
        match file.read_exact_at(piece, (index * READ_AGAIN_BYTES) as u64) {
            Ok(()) => readable += 1,
            Err(_) => {
                unreadable += 1;
                piece.fill(0);
            }
        }
    }
    if readable == 0 {
        return Err(failure);
    }
    if unreadable > 0 {
        tracing::error!(error = %failure, "parts of a log cannot be read");
    }
    Ok((bytes.into(), unreadable == 0))
}

/// A log as it was read.
struct ReadLog {
    number: u64,
    file: Box<dyn DiskFile>,
    bytes: Bytes,
    /// All of it could be read.
    whole: bool,
    header: Result<LogHeader, HeaderError>,
}

fn take_log(
    place: &Place,
    log: ReadLog,
    key: Option<LogKey>,
    known_end: Option<u64>,
    found: &mut Recovered,
) -> Result<(), RecoverError> {
    let (number, bytes) = (log.number, &log.bytes);
    let path = place.dir.join(log::file_name(number));
    let mut scan = match &key {
        Some(key) => log::scan(bytes, key, known_end),
        None => Scan::of_damaged(bytes, known_end),
    };
    if let Ok(LogHeader { shard, .. }) = log.header
        && shard != place.shard
        && key.is_none()
    {
        let path = path.display();
        found.note_damage(format!(
            "{path}: it is a log of shard {shard}, and lies in the wrong place"
        ));
    }
    found.torn_logs += u64::from(scan.torn);
    if scan.torn {
        tracing::info!(log = %path.display(), end = scan.end, "cut an unfinished write off the end of the log");
    }
    if !log.whole {
        found.note_damage(format!("{}: parts of it cannot be read", path.display()));
        // Nobody can tell whether anything was written there.
        found.lost_uncounted = true;
    } else if scan.records.is_empty() && scan.damaged.is_empty() {
        found.spares.push(number);
        return Ok(());
    }
    for (from, to) in &scan.damaged {
        found.note_damage(format!("{}: bytes {from} to {to} do not check out", path.display()));
    }
    for dot in &scan.lost_dots {
        found.lost.insert(dot.slot, dot.origin, dot.seq);
    }
    // Nothing more is ever appended to it.
    let key = key.unwrap_or(LogKey::without_secret(number));
    let newest = scan.records.iter().map(|record| record.header.time).max();
    let mut records = std::mem::take(&mut scan.records);
    if number < found.doubted_logs {
        // What a segment covers beside the one that may have taken the log over may have been dropped since.
        records.retain(|record| !is_covered(&found.segments, record.header.dot));
    }
    let file = used_part(bytes, scan.end);
    let memtable = Memtable::recovered(key, place.names(), file, &records, scan.end);
    found.covered.join(&memtable.covered());
    found.max_time = found.max_time.max(newest.unwrap_or_default());
    let damaged = !scan.damaged.is_empty() || !log.whole;
    write_again(&*log.file, bytes, &scan).map_err(|source| RecoverError::Io { path, source })?;
    found.lost_records += scan.lost_records;
    found.lost_uncounted |= scan.lost_uncounted;
    found.logs.push(RecoveredLog {
        memtable: memtable.share(),
        damaged,
        unread: !log.whole,
    });
    Ok(())
}

/// Most of a log may be space that was filled ahead, which a memtable must not keep in memory.
fn used_part(bytes: &Bytes, end: u64) -> Bytes {
    let end = within(bytes, end);
    match end < bytes.len() / 2 {
        true => Bytes::copy_from_slice(&bytes[..end]),
        false => bytes.slice(..end),
    }
}

/// A file that was cut short may end in its header, before the first record would begin.
fn within(bytes: &Bytes, offset: u64) -> usize {
    usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()))
}

/// What is read here may be in the page cache only, marked clean by a sync that failed. Written again, it is dirty again, and this
/// sync tells the truth about it.
fn write_again(file: &dyn DiskFile, bytes: &Bytes, scan: &log::Scan) -> io::Result<()> {
    let ends = scan.damaged.iter().copied().chain([(scan.end, scan.end)]);
    let mut from = 0;
    for (to, next) in ends {
        if from < to {
            file.write_all_at(&bytes[within(bytes, from)..within(bytes, to)], from)?;
        }
        from = next;
    }
    file.sync_data()
}
