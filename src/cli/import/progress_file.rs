//! `FILE.progress`: how far an import came, so that it goes on from there.
//!
//! Invariant: it is believed only while the file still begins with what was imported; and that this is stored, only for the same address and
//! user, while the import is not done and the last key of it is there: the store at that address may be a new one. A lost or old one does no
//! harm, unless the file was corrected or has grown: request ids keep what is sent again from being added twice.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::client::{Client, entropy};

use super::line::Position;

/// Bytes read at once when a file's digest is made.
const READ_BYTES: usize = 64 * 1024;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Whose keys, and where.
    pub target: String,
    /// What the request ids are made from, with each line's number and content.
    pub import_id: String,
    pub lines: u64,
    pub offset_bytes: u64,
    /// BLAKE3 of the first `offset_bytes` of the file.
    pub digest: String,
    /// The last key of which a value was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_key: Option<String>,
    /// The import adds anew what an earlier one has added.
    #[serde(default)]
    pub again: bool,
    /// It came to the end of the file.
    #[serde(default)]
    pub done: bool,
}

impl Progress {
    pub fn at(position: Position, target: &str, import_id: &str) -> Self {
        Self {
            target: target.to_owned(),
            import_id: import_id.to_owned(),
            lines: position.lines,
            offset_bytes: position.offset_bytes,
            digest: position.digest.to_hex().to_string(),
            last_key: None,
            again: false,
            done: false,
        }
    }
}

pub fn path_for(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".progress");
    name.into()
}

/// None when there is none, or none that can be understood.
pub fn read(path: &Path) -> Option<Progress> {
    toml::from_str(&fs::read_to_string(path).ok()?).ok()
}

pub fn write(path: &Path, progress: &Progress) -> io::Result<()> {
    let text = toml::to_string(progress).map_err(io::Error::other)?;
    let temporary = temporary(path, std::process::id());
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A name of each process's own: another one may import the same file, elsewhere.
fn temporary(path: &Path, process: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{process}.new"));
    name.into()
}

/// Feeds at most `bytes_max` of `file` to the digest; how many there were.
pub fn digest(file: &mut fs::File, bytes_max: u64, hasher: &mut blake3::Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut source = file.take(bytes_max);
    let mut total_bytes = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok(total_bytes);
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        total_bytes += read as u64;
    }
}

/// Where in a file an import begins, and under which name.
pub struct Start {
    pub import_id: String,
    /// It adds anew what was imported before.
    pub again: bool,
    pub lines: u64,
    pub offset_bytes: u64,
    pub hasher: blake3::Hasher,
    /// Of those before, the last key that got a value.
    pub last_key: Option<String>,
    /// So many lines were imported of the file, and it does not begin with them any more.
    changed_lines: Option<u64>,
}

impl Start {
    pub fn position(&self) -> Position {
        Position {
            lines: self.lines,
            offset_bytes: self.offset_bytes,
            digest: self.hasher.finalize(),
        }
    }

    /// Leaves the file where the import begins.
    pub fn find(file: &mut fs::File, progress: &Path, target: &str, again: bool) -> io::Result<Self> {
        // One that adds everything anew is gone on with until it is done, and is another one after that.
        let saved = read(progress).filter(|saved| !again || (saved.again && !saved.done));
        let mut changed_lines = None;
        if let Some(saved) = saved {
            let mut hasher = blake3::Hasher::new();
            let bytes = digest(file, saved.offset_bytes, &mut hasher)?;
            if bytes == saved.offset_bytes && hasher.finalize().to_hex().as_str() == saved.digest {
                let start = Self {
                    import_id: saved.import_id,
                    again: saved.again,
                    lines: saved.lines,
                    offset_bytes: saved.offset_bytes,
                    hasher,
                    last_key: saved.last_key,
                    changed_lines: None,
                };
                // Another store lacks it all, and of one that has it all some may have been cleared since; the same one under another
                // address tells by the name what it has.
                if saved.target == target && !saved.done {
                    return Ok(start);
                }
                return start.rewind(file);
            }
            file.seek(SeekFrom::Start(0))?;
            changed_lines = (saved.target == target).then_some(saved.lines);
        }
        let import_id = match again {
            true => entropy::hex::<16>(),
            false => Self::digest_of_all(file)?,
        };
        Ok(Self {
            changed_lines,
            ..Self::first_line(import_id, again)
        })
    }

    fn digest_of_all(file: &mut fs::File) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        digest(file, u64::MAX, &mut hasher)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// To be said before anything is sent, for it cannot be taken back.
    pub fn warning(&self) -> Option<String> {
        let lines = match self.changed_lines? {
            1 => "its first line was".to_owned(),
            lines => format!("its first {lines} lines were"),
        };
        Some(format!(
            "{lines} imported before, and changed since: it is taken for another file, and all of it is added"
        ))
    }

    /// Whether the lines before are stored, as far as their last key tells.
    pub async fn is_stored(&self, client: &Client) -> anyhow::Result<bool> {
        match &self.last_key {
            Some(key) => Ok(client.count(key).await? > 0),
            None => Ok(false),
        }
    }

    /// The same import from its first line on.
    pub fn rewind(self, file: &mut fs::File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        Ok(Self::first_line(self.import_id, self.again))
    }

    fn first_line(import_id: String, again: bool) -> Self {
        Self {
            import_id,
            again,
            lines: 0,
            offset_bytes: 0,
            hasher: blake3::Hasher::new(),
            last_key: None,
            changed_lines: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_read_back_and_nonsense_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_for(&dir.path().join("in.jsonl"));
        assert_eq!(path, dir.path().join("in.jsonl.progress"));
        assert_eq!(read(&path), None);
        let position = Position {
            lines: 3,
            offset_bytes: 99,
            digest: blake3::hash(b"x"),
        };
        let progress = Progress::at(position, "demo at http://a", "id");
        write(&path, &progress).unwrap();
        assert_eq!(read(&path), Some(progress.clone()));
        // Two processes do not write into one file, and one that cannot write leaves none.
        assert_ne!(temporary(&path, 1), temporary(&path, 2));
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        assert!(write(&folder, &progress).is_err());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::write(&path, "lines = 'x'").unwrap();
        assert_eq!(read(&path), None);
    }
}
