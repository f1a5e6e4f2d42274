//! Files that hold passwords.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;

use super::exit::usage;
use super::progress::say;

/// A password file longer than this is some other file.
const PASSWORD_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The password in the file: its text without the line end.
pub fn read_password(path: &Path) -> anyhow::Result<String> {
    let place = format!("the password file {}", path.display());
    let unreadable = |error: io::Error| usage(format!("cannot read {place}: {error}"));
    let file = fs::File::open(path).map_err(unreadable)?;
    warn_if_others_can_read(path, &file);
    let text = io::read_to_string(io::Read::take(file, PASSWORD_FILE_BYTES_MAX + 1)).map_err(unreadable)?;
    password_from_text(&text).map_err(|why| usage(format!("{place} {why}")))
}

/// The password on standard input: its text without the line end.
pub fn read_password_from_stdin() -> anyhow::Result<String> {
    let stdin = io::Read::take(io::stdin().lock(), PASSWORD_FILE_BYTES_MAX + 1);
    let text = io::read_to_string(stdin).context("cannot read the password from standard input")?;
    password_from_text(&text).map_err(|why| usage(format!("the password on standard input {why}")))
}

pub fn password_from_text(text: &str) -> Result<String, String> {
    if text.len() as u64 > PASSWORD_FILE_BYTES_MAX {
        return Err(format!("is longer than {PASSWORD_FILE_BYTES_MAX} bytes"));
    }
    let password = text.strip_suffix('\n').unwrap_or(text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    match password {
        "" => Err("is empty".to_owned()),
        _ if password.contains(['\n', '\r']) => Err("has more than one line".to_owned()),
        _ => Ok(password.to_owned()),
    }
}

/// Says so on standard error when the file's group or others may read it.
pub fn warn_if_others_can_read(path: &Path, file: &fs::File) {
    // Pipes, such as those of a shell's <(command), belong to nobody else.
    let open_to_others = |meta: fs::Metadata| meta.is_file() && meta.mode() & 0o044 != 0;
    if file.metadata().is_ok_and(open_to_others) {
        let path = path.display();
        say(&format!(
            "warning: others on this machine may read {path}; `chmod 600 {path}` stops that"
        ));
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = Path::new(&name);
    let write = || -> io::Result<()> {
        // What an interrupted run left behind may have other rights.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_text_without_its_line_end() {
        for text in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(password_from_text(text).unwrap(), "secret");
        }
        assert_eq!(password_from_text(" a b \n").unwrap(), " a b ");
    }

    #[test]
    fn an_empty_password_and_one_of_several_lines_are_refused() {
        for text in ["", "\n", "\r\n", "a\nb\n"] {
            assert!(password_from_text(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_private_file_is_readable_by_its_owner_only_and_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_private(&path, "one").unwrap();
        write_private(&path, "two\n").unwrap();
        assert_eq!(read_password(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
