//! `kv segment`: looks into the files of a data folder.

use std::fs;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::exit::{unopened, usage};
use super::output::output;
use super::shown::OnTerminal;
use crate::node::NodeConfig;
use crate::node::offline::{AcceptedLoss, accept_losses};
use crate::os::disk::RealDisk;
use crate::store::disk::Disk;
use crate::store::log::MAGIC;
use crate::store::segment::dump::{DumpLine, describe};
use crate::store::segment::{HEADER_MAGIC, TRAILER_MAGIC};

#[derive(Debug, clap::Subcommand)]
pub enum SegmentCommand {
    /// Print what a segment file holds, also around damaged blocks (the exit code is then 1), one JSON object a line; one
    /// without its end cannot be read, nor can a log. The file is only read
    Dump(DumpArgs),
    /// Give up what damage has destroyed, so that the keys around it can be read again; the node must not run
    AcceptLoss(AcceptLossArgs),
}

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// The segment file
    pub file: PathBuf,
    /// Print the texts too; without it, only their lengths
    #[arg(long)]
    pub values: bool,
}

#[derive(Debug, clap::Args)]
pub struct AcceptLossArgs {
    /// The node's data folder
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

pub fn run(command: SegmentCommand) -> anyhow::Result<()> {
    match command {
        SegmentCommand::Dump(args) => {
            let mut out = output();
            match io::stdout().is_terminal() {
                true => dump(&args.file, args.values, &mut OnTerminal::new(&mut out))?,
                false => dump(&args.file, args.values, &mut out)?,
            }
            Ok(out.flush()?)
        }
        SegmentCommand::AcceptLoss(args) => accept_loss(&args.data),
    }
}

fn accept_loss(data: &Path) -> anyhow::Result<()> {
    if !data.is_dir() {
        return Err(usage(format!("--data: there is no folder {}", data.display())));
    }
    if !is_data_folder(data).with_context(|| data.display().to_string())? {
        return Err(usage(format!(
            "--data: {} is not the data folder of a node: there is neither node.json nor a shard in it",
            data.display()
        )));
    }
    let accepted = accept_losses(&crate::os::env(), &NodeConfig::new(data.to_owned()))?;
    let mut out = output();
    for AcceptedLoss { dir, lost_ops, .. } in &accepted {
        writeln!(out, "{dir}\t{lost_ops} ops given up")?;
    }
    if accepted.iter().any(|accepted| accepted.is_of_system) {
        writeln!(
            out,
            "users are among that: those who are missing are made again with `kv users add --keep-data`, and have their data then"
        )?;
    }
    if accepted.is_empty() {
        writeln!(out, "nothing is lost")?;
    }
    Ok(out.flush()?)
}

/// To open any other folder would make it one.
fn is_data_folder(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name == "node.json" || name.to_string_lossy().starts_with("shard-") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_log(file: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(file)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start == MAGIC)
}

/// Whether it was ever one: damage may have taken one of its ends.
fn may_be_segment(file: &Path) -> io::Result<bool> {
    let mut file = fs::File::open(file)?;
    let mut magic = [0; 8];
    let start = file.read(&mut magic)?;
    if magic.get(..start).is_some_and(|start| start == HEADER_MAGIC) {
        return Ok(true);
    }
    if file.metadata()?.len() < magic.len() as u64 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-(magic.len() as i64)))?;
    file.read_exact(&mut magic)?;
    Ok(&magic == TRAILER_MAGIC)
}

fn dump(file: &Path, values: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let meta = fs::File::open(file).and_then(|file| file.metadata());
    if !meta.map_err(|error| unopened(file, &error))?.is_file() {
        return Err(usage(format!("{}: not a plain file", file.display())));
    }
    if is_log(file).with_context(|| file.display().to_string())? {
        return Err(usage(format!(
            "{} is a log, not a segment: its ops go into one when it is full",
            file.display()
        )));
    }
    if !may_be_segment(file).with_context(|| file.display().to_string())? {
        return Err(usage(format!("{} is not a segment", file.display())));
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::default());
    let mut written = Ok(());
    let mut damaged_blocks = 0;
    describe(&disk, file, &mut |mut line| {
        if let (DumpLine::Entry(entry), false) = (&mut line, values) {
            entry.hide_text();
        }
        damaged_blocks += u64::from(matches!(line, DumpLine::Damaged(_)));
        if written.is_ok() {
            written = serde_json::to_writer(&mut *out, &line)
                .map_err(std::io::Error::from)
                .and_then(|()| out.write_all(b"\n"));
        }
    })?;
    written?;
    anyhow::ensure!(
        damaged_blocks == 0,
        "{}: {damaged_blocks} of its blocks cannot be read; what the others hold was printed",
        file.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::{Exit, exit_of};

    #[test]
    fn a_folder_that_is_no_nodes_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes"), "x").unwrap();
        let error = accept_loss(dir.path()).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
        assert!(error.to_string().contains("--data"), "{error}");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_log_is_no_damaged_segment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, b"KVLG and more").unwrap();
        let error = dump(&path, false, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("is a log"), "{error}");
        fs::write(&path, b"KV").unwrap();
        let error = dump(&path, false, &mut Vec::new()).unwrap_err();
        assert!(!error.to_string().contains("is a log"), "{error}");
    }
    #[test]
    fn what_never_was_a_segment_is_no_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let of = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            dump(&path, false, &mut Vec::new()).unwrap_err()
        };
        for bytes in [&b""[..], b"host\n", &[0; 4096], &[7; 32]] {
            let error = of(bytes);
            assert!(error.to_string().contains("is not a segment"), "{error}");
            assert_eq!(exit_of(&error), Exit::Usage);
        }
        let cut = [&HEADER_MAGIC[..], &[0; 100]].concat();
        let without_start = [&[0; 100][..], TRAILER_MAGIC].concat();
        for bytes in [cut, without_start] {
            let error = of(&bytes);
            assert!(!error.to_string().contains("is not a segment"), "{error}");
        }
    }
}
