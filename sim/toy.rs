//! A storage engine of one page, right when asked to be, and otherwise wrong in one way: the simulation is tested on it.
//!
//! One log of JSON lines behind a checksum and a length; everything is kept in memory too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kv_storage::node::Added;
use kv_storage::store::disk::{Disk, DiskFile, OpenMode, sync_dir_anew};
use kv_storage::types::{RequestId, UserId, WallMs};

use crate::disk::Mount;
use crate::engine::{Engine, Place, Refusal, Seen, Tuning};

/// One thing done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Acknowledges what is only in the cache.
    NeverSyncs,
    /// Believes that a sync that succeeds makes up for one that failed.
    SyncsAgain,
    /// Shows what it found at its start without making sure that it stays.
    TrustsTheCache,
    /// The file's name is never made durable.
    ForgetsTheDirectory,
    /// A retry counts again after a restart.
    ForgetsRequests,
    /// Believes a record without looking at its checksum.
    BelievesRecords,
    /// A clear leaves the parts that no value has finished.
    LeavesParts,
    /// The last page of a listing says that more follow, and loses its first key.
    MissesKeys,
    /// Takes a file that cannot be opened for one that is of no use, and makes another one.
    StartsAnew,
}

pub const FAULTS: [Fault; 9] = [
    Fault::NeverSyncs,
    Fault::SyncsAgain,
    Fault::TrustsTheCache,
    Fault::ForgetsTheDirectory,
    Fault::ForgetsRequests,
    Fault::BelievesRecords,
    Fault::LeavesParts,
    Fault::MissesKeys,
    Fault::StartsAnew,
];

#[derive(Default)]
struct Held {
    values: Vec<String>,
    open: String,
    requests: Vec<RequestId>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    user: String,
    key: String,
    /// None for a clear.
    text: Option<String>,
    finish: bool,
    request: Option<[u8; 16]>,
}

const HEADER_BYTES: usize = 4 /* length */ + 4 /* checksum */;

/// `FAULT` indexes [`FAULTS`]; beyond them nothing is wrong.
pub struct Toy<const FAULT: usize> {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    end: u64,
    staged: Vec<u8>,
    held: BTreeMap<(String, String), Held>,
    value_bytes_max: usize,
    /// After a failure nothing is done any more.
    stopped: bool,
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

impl<const FAULT: usize> Toy<FAULT> {
    fn is(fault: Fault) -> bool {
        FAULTS.get(FAULT).copied().unwrap_or(Fault::None) == fault
    }

    fn load(&mut self) -> Result<(), Refusal> {
        let mut bytes = vec![0; self.file.len().map_err(failed)? as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let mut rest = bytes.as_slice();
        while let Some((record, after)) = Self::parse(rest) {
            self.apply(&record);
            rest = after;
        }
        self.end = (bytes.len() - rest.len()) as u64;
        self.file.set_len(self.end).map_err(failed)?;
        if !Self::is(Fault::TrustsTheCache) {
            // Sectors that an earlier life wrote may be in the cache only, and count as clean: write them again.
            self.file.write_all_at(&bytes[..self.end as usize], 0).map_err(failed)?;
            self.file.sync_data().map_err(failed)?;
        }
        Ok(())
    }

    fn parse(bytes: &[u8]) -> Option<(Record, &[u8])> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let word = |at: usize| Some(u32::from_le_bytes(header[at..at + 4].try_into().ok()?));
        let (body, rest) = rest.split_at_checked(word(0)? as usize)?;
        if word(4)? != crc32c::crc32c(body) && !Self::is(Fault::BelievesRecords) {
            return None;
        }
        let body = if Self::is(Fault::BelievesRecords) {
            lenient(body)
        } else {
            body.to_vec()
        };
        Some((serde_json::from_slice(&body).ok()?, rest))
    }

    fn apply(&mut self, record: &Record) -> Added {
        let held = self.held.entry((record.user.clone(), record.key.clone())).or_default();
        let Some(text) = &record.text else {
            held.values.clear();
            if !Self::is(Fault::LeavesParts) {
                held.open.clear();
            }
            return Added::Appended;
        };
        if let Some(request) = record.request.map(RequestId) {
            if held.requests.contains(&request) {
                return Added::Repeated;
            }
            held.requests.push(request);
        }
        held.open.push_str(text);
        if record.finish {
            held.values.push(std::mem::take(&mut held.open));
        }
        Added::Appended
    }

    fn take(&mut self, record: &Record) -> Result<Added, Refusal> {
        if self.stopped {
            return Err(failed("stopped"));
        }
        let held = self.held.get(&(record.user.clone(), record.key.clone()));
        let open_bytes = held.map_or(0, |held| held.open.len());
        let known = held.is_some_and(|held| {
            record
                .request
                .is_some_and(|request| held.requests.contains(&RequestId(request)))
        });
        if !known
            && record
                .text
                .as_ref()
                .is_some_and(|text| open_bytes + text.len() > self.value_bytes_max)
        {
            return Err(Refusal::TooLong);
        }
        let answer = self.apply(record);
        if answer == Added::Appended {
            let body = serde_json::to_vec(record).map_err(failed)?;
            self.staged.extend((body.len() as u32).to_le_bytes());
            self.staged.extend(crc32c::crc32c(&body).to_le_bytes());
            self.staged.extend(body);
        }
        Ok(answer)
    }
}

/// Text is text, whatever became of it.
fn lenient(body: &[u8]) -> Vec<u8> {
    body.iter().map(|&byte| if byte == 0 { b'?' } else { byte }).collect()
}

fn record(place: &Place, text: Option<&str>, finish: bool, request: Option<RequestId>) -> Record {
    Record {
        user: place.user.as_str().into(),
        key: place.key.as_str().into(),
        text: text.map(Into::into),
        finish,
        request: request.map(|request| request.0),
    }
}

impl<const FAULT: usize> Engine for Toy<FAULT> {
    fn open(disk: Mount, dir: &Path, tuning: &Tuning, _seed: u64, _now: WallMs) -> Result<Self, Refusal> {
        let path = dir.join("toy.log");
        let mode = if disk.exists(&path).map_err(failed)? {
            OpenMode::ReadWrite
        } else {
            OpenMode::CreateNew
        };
        let file = match disk.open(&path, mode) {
            Err(_) if Self::is(Fault::StartsAnew) => disk
                .remove_file(&path)
                .and_then(|()| disk.open(&path, OpenMode::CreateNew)),
            opened => opened,
        };
        let mut toy = Self {
            file: file.map_err(failed)?,
            path,
            end: 0,
            staged: Vec::new(),
            held: BTreeMap::new(),
            value_bytes_max: tuning.value_bytes_max as usize,
            stopped: false,
        };
        toy.load()?;
        if !Self::is(Fault::ForgetsTheDirectory) {
            // Such a sync may have failed before.
            sync_dir_anew(&disk, dir, "mark.tmp").map_err(failed)?;
        }
        if Self::is(Fault::ForgetsRequests) {
            toy.held.values_mut().for_each(|held| held.requests.clear());
        }
        Ok(toy)
    }

    fn add(
        &mut self,
        place: &Place,
        text: &str,
        finish: bool,
        request: Option<RequestId>,
        _now: WallMs,
    ) -> Result<Added, Refusal> {
        self.take(&record(place, Some(text), finish, request))
    }

    fn clear(&mut self, place: &Place, _now: WallMs) -> Result<(), Refusal> {
        self.take(&record(place, None, false, None)).map(|_| ())
    }

    fn commit(&mut self, _now: WallMs) -> Result<(), Refusal> {
        if self.stopped {
            return Err(failed("stopped"));
        }
        self.stopped = true;
        let staged = std::mem::take(&mut self.staged);
        self.file.write_all_at(&staged, self.end).map_err(failed)?;
        if !Self::is(Fault::NeverSyncs) {
            match self.file.sync_data() {
                Err(_) if Self::is(Fault::SyncsAgain) => self.file.sync_data().map_err(failed)?,
                result => result.map_err(failed)?,
            }
        }
        self.end += staged.len() as u64;
        self.stopped = false;
        Ok(())
    }

    fn get(&mut self, place: &Place, _now: WallMs) -> Result<Seen, Refusal> {
        // The disk is asked for the sake of the crash: an engine in memory would not notice it.
        self.file
            .len()
            .map_err(|error| failed(format!("{}: {error}", self.path.display())))?;
        let held = self.held.get(&(place.user.as_str().into(), place.key.as_str().into()));
        Ok(Seen {
            values: held.map(|held| held.values.clone()).unwrap_or_default(),
            ops: Vec::new(),
        })
    }

    fn keys(
        &mut self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
        _now: WallMs,
    ) -> Result<(Vec<String>, Option<String>), Refusal> {
        let shown = self.held.iter().filter(|((owner, key), held)| {
            owner == user.as_str() && !held.values.is_empty() && after.is_none_or(|after| key.as_str() > after)
        });
        let mut keys: Vec<String> = shown.map(|((_, key), _)| key.clone()).collect();
        if Self::is(Fault::MissesKeys) && after.is_some() && !keys.is_empty() {
            keys.remove(0);
        }
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| more).cloned();
        Ok((keys, next))
    }

    fn maintain(&mut self, _now: WallMs) -> Result<bool, Refusal> {
        Ok(false)
    }

    fn settle(&mut self, _now: WallMs) -> Result<(), Refusal> {
        Ok(())
    }
}
