//! `FILE.progress`: how far an import came, so that it goes on from there.
//!
//! Invariant: it is believed only while the file still begins with what was imported; and that this is stored, only for the same store and
//! user. A lost or old one does no harm, unless the file was corrected: request ids keep what is sent again from being added twice.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::import_line::Position;

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
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let text = toml::to_string(progress).map_err(io::Error::other)?;
    fs::write(&name, text)?;
    fs::rename(&name, path)
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
        assert_eq!(read(&path), Some(progress));
        fs::write(&path, "lines = 'x'").unwrap();
        assert_eq!(read(&path), None);
    }
}
