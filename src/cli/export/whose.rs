//! `FILE.part.of`, beside an export that is not whole: whose keys are in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cli::exit::usage;
use crate::client::Client;

/// Whose keys a file holds, and which of them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    user: String,
    prefix: String,
}

impl Whose {
    pub fn of(client: &Client, prefix: Option<&str>) -> Self {
        Self {
            user: client.user_id().to_owned(),
            prefix: prefix.unwrap_or_default().to_owned(),
        }
    }

    fn path(part: &Path) -> PathBuf {
        let mut name = part.as_os_str().to_owned();
        name.push(".of");
        name.into()
    }

    /// Refuses to go on with what was begun as another user or with another prefix; false where nobody says whose it is, as an older program.
    pub fn check(&self, part: &Path) -> anyhow::Result<bool> {
        let path = Self::path(part);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let begun: Self = serde_json::from_slice(&text).map_err(|_| {
            usage(format!(
                "{} does not say whose keys {} holds: where you know that they are the same, remove it, and go on",
                path.display(),
                part.display()
            ))
        })?;
        match begun == *self {
            true => Ok(true),
            false => Err(usage(format!(
                "{} was begun as the user {:?} with the prefix {:?}: go on as the same, or remove it",
                part.display(),
                begun.user,
                begun.prefix
            ))),
        }
    }

    pub fn write(&self, part: &Path) -> anyhow::Result<()> {
        let path = Self::path(part);
        let written = fs::write(&path, serde_json::to_vec(self)?);
        if written.is_err() {
            // A part of it would say nothing, and be in the way.
            Self::remove(part);
        }
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn remove(part: &Path) {
        // What is left of it is in nobody's way: it belongs to a file that is not there.
        let _ = fs::remove_file(Self::path(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_elses_keys_are_added_to_what_was_begun() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("out.jsonl.part");
        let whose = |user: &str, prefix: &str| Whose {
            user: user.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert!(!whose("ann", "").check(&part).unwrap(), "by an older program");
        whose("ann", "a/").write(&part).unwrap();
        assert!(whose("ann", "a/").check(&part).unwrap());
        for other in [whose("bob", "a/"), whose("ann", ""), whose("ann", "b/")] {
            let error = other.check(&part).unwrap_err().to_string();
            assert!(error.contains("\"ann\"") && error.contains("\"a/\""), "{error}");
        }
        fs::write(Whose::path(&part), b"{").unwrap();
        let error = whose("ann", "a/").check(&part).unwrap_err().to_string();
        assert!(error.contains("out.jsonl.part.of"), "{error}");
        Whose::remove(&part);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
