//! Files and folders that a run makes before any node is started: where it fails by then, nothing of it is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What was not there before, in the order in which it was made; removed when this is dropped.
#[derive(Default)]
pub struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Made {
    /// Makes the folder, and those that it lies in, and their names durable: with one of them, a loss of power would take all that is in it.
    pub fn folder(&mut self, path: &Path) -> io::Result<()> {
        let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
        let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // Another run made it meanwhile, or it is a file.
                    if !folder.is_dir() {
                        return Err(io::ErrorKind::NotADirectory.into());
                    }
                }
                made => {
                    made?;
                    self.0.push(folder.to_path_buf());
                }
            }
            sync_parent(folder)?;
        }
        Ok(())
    }

    /// Notes a file that was not there.
    pub fn file(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// It stays from now on.
    pub fn keep(&mut self) {
        self.0.clear();
    }

    pub fn remove(&mut self) {
        while let Some(path) = self.0.pop() {
            // What somebody else put into a folder stays, and the folder with it.
            let _ = match path.is_dir() {
                true => fs::remove_dir(&path),
                false => fs::remove_file(&path),
            };
        }
    }
}

/// Somebody else's folder may not let us: then it is theirs to do.
fn sync_parent(folder: &Path) -> io::Result<()> {
    let parent = match folder.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    match fs::File::open(parent).and_then(|parent| parent.sync_all()) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}
