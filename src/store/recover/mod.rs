//! Opening a shard's folder: what is on disk decides; there is no manifest.
//!
//! | file | what it is | format |
//! | --- | --- | --- |
//! | `log-%016x.kvl` | what was written since the last seals, and space for what comes | `log` |
//! | `segment-%016x.kvs` | sealed and merged ops | `segment::format` |
//! | `log-secret` | seeds the checksums of the logs | `log::secret` |
//! | `closed-origins` | how far the folder's former origins went | `closed` |
//! | `reserve` | space for clears when the disk is full | zeroes |
//! | `quarantine-*` | what was damaged; never read again | as before |
//! | `*.tmp` | not finished | |
//!
//! Rules:
//! - a `*.tmp` file was never finished: removed;
//! - a file whose number a sound segment names in `replaces` was merged into it: a log is recycled, a segment removed, or set aside if it
//!   does not open; nothing of that before the segment's name is durable. A segment that is itself replaced takes nothing over: what it names
//!   and is still there was named again by what replaced it, or it was taken back;
//! - what is not there any more is gone for good once the folder was synced anew (`disk::sync_dir_anew`): a sync of its removal may have failed;
//! - a segment that does not open is damaged: quarantined (renamed, never deleted), and what its blocks still hold is kept, but for what
//!   another segment covers. Where the disk fails meanwhile, that is done at a later start; without other replicas the shard waits for it;
//! - every other log is read by the rules of `log`; its records are written once more and synced, for what the page cache shows after a failed sync
//!   may not be on the disk;
//! - `keys` says with which key a log is read;
//! - a part of a log that cannot be read is damage; a log of which nothing can be read is not: the shard is not opened;
//! - a gap in an own origin's sequences is a loss; for an origin that has ended, so is anything missing of what it
//!   held when it ended (`closed`); and so is a dot that a segment's footer lists as lost, unless another file holds
//!   it;
//! - a loss that cannot be told by its dot is taken to concern every slot of the shard (origin 0);
//! - a newer format version is refused; whatever else is wrong with the files' content, the shard opens.

mod closed;
mod keys;
mod logs;
mod losses;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use closed::ClosedOrigins;
use keys::FolderSecret;
use logs::read_logs;
use losses::{lose_unknown, salvage_segment, take_footers, tell_losses};

use super::cache::BlockCache;
use super::disk::{Disk, OpenMode, sync_dir_anew};
use super::log::{self, LogSecret};
use super::memtable::SharedMemtable;
use super::names::NameKey;
use super::segment::{self, OpenError, Segment};
use crate::core::clock::SlotClocks;
use crate::core::stamp::{HybridTime, OriginId};

/// In a clock of lost dots: something of this slot is lost, nobody can say what.
pub const UNKNOWN_ORIGIN: OriginId = OriginId(0);

/// The file that holds space for a full disk.
pub const RESERVE_NAME: &str = "reserve";

/// See `sync_dir_anew`.
const SYNC_MARK: &str = "opening.tmp";

/// Where a shard lives.
#[derive(Clone)]
pub struct Place {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub shard: u16,
    /// The run of slots; the system slot counts as one.
    pub slots: Range<u16>,
    pub cache: Arc<BlockCache>,
    /// Random, nobody else's, and new with every start: for the logs, if the folder has no secret yet, and for `names`.
    pub new_secret: LogSecret,
    /// Origins whose sequences have no gaps on this disk: all of them where there are no other replicas, and else those that this disk ever
    /// had. Another replica's ops arrive in any order.
    pub own_origins: Option<Arc<BTreeSet<OriginId>>>,
}

impl Place {
    /// Whether there are no other replicas.
    pub fn is_alone(&self) -> bool {
        self.own_origins.is_none()
    }

    /// The key of the tables of names in memory.
    pub fn names(&self) -> NameKey {
        NameKey::derived_from(&self.new_secret)
    }

    fn has_no_gaps(&self, origin: OriginId) -> bool {
        self.own_origins.as_ref().is_none_or(|own| own.contains(&origin))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} has format version {found}, this program knows versions up to {known}: use a newer program")]
    NewerVersion { path: PathBuf, found: u16, known: u16 },
}

/// A log that was read back and is not sealed yet.
pub struct RecoveredLog {
    pub memtable: SharedMemtable,
    /// Something in it had been synced and no longer checks out: to be quarantined, not recycled.
    pub damaged: bool,
    /// Parts of it could not be read, and may be at a later start.
    pub unread: bool,
}

/// What was found.
#[derive(Default)]
pub struct Recovered {
    pub segments: Vec<Arc<Segment>>,
    /// In order of their numbers.
    pub logs: Vec<RecoveredLog>,
    /// Log files that hold nothing that is needed, in order of their numbers.
    pub spares: Vec<u64>,
    /// Segments whose content lives on elsewhere: to be removed.
    pub obsolete: Vec<u64>,
    /// Segments whose content lives on elsewhere, but that are damaged or may be: to be set aside.
    pub set_aside: Vec<u64>,
    /// Segments that do not open.
    unopened: Vec<u64>,
    /// Logs before this number may have been merged into one of them.
    doubted_logs: u64,
    pub reserved: bool,
    /// Something of this folder was set aside as damaged once.
    was_damaged: bool,
    /// The secret of the logs, if the folder has one.
    pub secret: Option<LogSecret>,
    /// Whether it stands in its file.
    pub secret_stored: bool,
    pub next_number: u64,
    pub closed: ClosedOrigins,
    pub covered: SlotClocks,
    /// Clears that were collected, and all that they saw.
    pub collected: SlotClocks,
    /// Dots that were on this disk and are no more.
    pub lost: SlotClocks,
    /// Those of them that segments' footers name.
    known_lost: SlotClocks,
    /// Records that the logs have lost, with or without a name.
    lost_records: u64,
    /// They have lost some that are not counted.
    lost_uncounted: bool,
    pub max_time: HybridTime,
    pub torn_logs: u64,
    /// One sentence for each thing that is damaged.
    pub damage: Vec<String>,
}

impl Recovered {
    /// A sequence for a loss that cannot be named: a new one each time, so that accepting one loss does not hide the next.
    fn next_unknown(&self) -> u64 {
        let last = |clocks: &SlotClocks| {
            clocks
                .slots()
                .filter_map(|(_, clock)| clock.get(UNKNOWN_ORIGIN)?.last())
                .max()
        };
        let footers = self
            .segments
            .iter()
            .flat_map(|segment| [last(segment.covered()), last(segment.lost())]);
        footers.flatten().max().unwrap_or(0) + 1
    }

    fn note_damage(&mut self, what: String) {
        tracing::error!(damage = %what, "damage on disk");
        self.damage.push(what);
    }
}

pub fn recover(place: &Place) -> Result<Recovered, RecoverError> {
    make_folder(place).map_err(|source| cannot_use(place, source))?;
    let mut found = Recovered::default();
    let Listed { logs, segments } = list_files(place, &mut found).map_err(|source| cannot_use(place, source))?;
    let secret = FolderSecret::find(place, &logs)?;
    (found.secret, found.secret_stored) = (secret.found, secret.stored);
    open_segments(place, segments, &mut found)?;
    let named = found.segments.iter().flat_map(|segment| segment.replaces());
    found.next_number = found.next_number.max(named.max().map_or(0, |number| number + 1));
    let replaced = replaced_files(&found.segments);
    // The name of a segment whose merge was interrupted may not be durable yet. Nor may the removal of what was merged away before, if its
    // sync failed; and from now on no segment names that.
    let synced = sync_dir_anew(&*place.disk, &place.dir, SYNC_MARK);
    if !replaced.is_empty() || found.unopened.is_empty() {
        synced.map_err(|source| cannot_use(place, source))?;
    }
    drop_replaced(&replaced, &mut found);
    let unsealed: BTreeSet<u64> = logs.difference(&replaced).copied().collect();
    salvage_unopened(place, &unsealed, &mut found)?;
    take_footers(&mut found);
    if place.own_origins.as_ref().is_some_and(|own| !own.is_empty()) {
        found.closed = ClosedOrigins::load(&*place.disk, &place.dir)?;
    }
    found.spares = logs.intersection(&replaced).copied().collect();
    read_logs(place, &secret, unsealed.into_iter().collect(), &mut found)?;
    tell_losses(place, &mut found);
    Ok(found)
}

fn cannot_use(place: &Place, source: io::Error) -> RecoverError {
    let path = place.dir.clone();
    RecoverError::Io { path, source }
}

fn make_folder(place: &Place) -> io::Result<()> {
    place.disk.create_dir_all(&place.dir)?;
    // Without it, a crash could take the new folder away with all that was made durable in it. It may have failed when the folder was made.
    if let (Some(parent), Some(name)) = (place.dir.parent(), place.dir.file_name()) {
        let mark = format!("{}.tmp", name.to_string_lossy());
        sync_dir_anew(&*place.disk, parent, &mark)?;
    }
    Ok(())
}

/// The files of a shard, by their numbers.
#[derive(Default)]
struct Listed {
    logs: BTreeSet<u64>,
    segments: BTreeMap<u64, String>,
}

/// Notes of the folder what names alone tell, and removes what was never finished.
fn list_files(place: &Place, found: &mut Recovered) -> io::Result<Listed> {
    let mut listed = Listed::default();
    found.next_number = 1;
    for entry in place.disk.list(&place.dir)? {
        let name = entry.name;
        found.next_number = found.next_number.max(number_in(&name).map_or(0, |number| number + 1));
        found.was_damaged |= name.starts_with(QUARANTINED);
        if name.ends_with(".tmp") {
            place.disk.remove_file(&place.dir.join(&name))?;
        } else if let Some(number) = segment::parse_file_name(&name) {
            listed.segments.insert(number, name);
        } else if let Some(number) = log::parse_file_name(&name) {
            listed.logs.insert(number);
        } else if name == RESERVE_NAME {
            found.reserved = true;
        }
    }
    Ok(listed)
}

/// Keeps what the blocks still hold of segments that do not open. `unsealed` are the logs that no sound segment replaces.
fn salvage_unopened(place: &Place, unsealed: &BTreeSet<u64>, found: &mut Recovered) -> Result<(), RecoverError> {
    for number in std::mem::take(&mut found.unopened) {
        // Its footer said which logs it replaces. An older one that is here may be one of them, with what was cleared since.
        let may_replace_log = unsealed.iter().any(|log| *log < number);
        found.doubted_logs = found.doubted_logs.max(number);
        if let Err(error) = salvage_segment(place, number, may_replace_log, found) {
            tracing::error!(number, %error, "a damaged segment could not be salvaged");
            if place.is_alone()
                && let Ok(source) = error.disk_failed()
            {
                let path = place.dir.join(segment::file_name(number));
                // Nobody else knows its dots, so a clear taken now would not name them, and a later start would bring the values back.
                return Err(RecoverError::Io { path, source });
            }
            // Its blocks are tried again at the next start; until then, nobody knows what it held.
            let seq = found.next_unknown();
            lose_unknown(place, seq, &mut found.known_lost);
        }
    }
    Ok(())
}

/// How the names of files begin that were damaged and are kept for a human.
const QUARANTINED: &str = "quarantine-";

/// Any file that carries a number keeps it from being used again, quarantined ones too.
fn number_in(name: &str) -> Option<u64> {
    let name = name.strip_prefix(QUARANTINED).unwrap_or(name);
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    segment::parse_file_name(name).or_else(|| log::parse_file_name(name))
}

fn open_segments(place: &Place, segments: BTreeMap<u64, String>, found: &mut Recovered) -> Result<(), RecoverError> {
    for (number, name) in segments {
        let path = place.dir.join(&name);
        match open_segment(place, number) {
            Ok(segment) => found.segments.push(Arc::new(segment)),
            Err(OpenError::NewerVersion { found, known, .. }) => {
                return Err(RecoverError::NewerVersion { path, found, known });
            }
            Err(OpenError::Io { error, .. }) if place.disk.open(&path, OpenMode::Read).is_err() => {
                // Not a word of its content was read (too many open files, say): that is no damage, and it may work later.
                return Err(RecoverError::Io { path, source: error });
            }
            Err(error) => {
                found.note_damage(format!("{}: {error}", path.display()));
                found.unopened.push(number);
            }
        }
    }
    Ok(())
}

/// A read that fails may be a passing fault, and setting a whole file aside for it costs its slots: it is tried once more.
fn open_segment(place: &Place, number: u64) -> Result<Segment, OpenError> {
    let open = || Segment::open(&place.disk, &place.dir, place.shard, number, &place.cache);
    match open() {
        Err(OpenError::Io { .. }) => open(),
        opened => opened,
    }
}

/// The files that were merged into a segment that stands. `segments` are in order of their numbers; a segment has a higher number than all
/// that it replaces.
fn replaced_files(segments: &[Arc<Segment>]) -> BTreeSet<u64> {
    let mut replaced = BTreeSet::new();
    for segment in segments.iter().rev() {
        if !replaced.contains(&segment.number()) {
            replaced.extend(segment.replaces());
        }
    }
    replaced
}

/// Segments that were merged into another one are none any more; the shard removes them, or sets them aside: if they do not open, or if what
/// they were merged into lacks something, for then it may be they that are damaged.
fn drop_replaced(replaced: &BTreeSet<u64>, found: &mut Recovered) {
    let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut found.segments)
        .into_iter()
        .partition(|segment| replaced.contains(&segment.number()));
    found.segments = kept;
    let lacking = found.segments.iter().filter(|segment| !segment.lost().is_empty());
    let suspects: BTreeSet<u64> = lacking.flat_map(|segment| segment.replaces()).copied().collect();
    let gone = gone.iter().map(|segment| segment.number());
    let (suspect, sound): (Vec<_>, Vec<_>) = gone.partition(|number| suspects.contains(number));
    found.obsolete.extend(sound);
    found.set_aside.extend(suspect);
    let (gone, kept) = std::mem::take(&mut found.unopened)
        .into_iter()
        .partition(|number| replaced.contains(number));
    found.unopened = kept;
    found.set_aside.extend::<Vec<_>>(gone);
}

/// The folder's path of a quarantined file.
pub fn quarantine_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{QUARANTINED}{name}"))
}

#[cfg(test)]
mod tests;
