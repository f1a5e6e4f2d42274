//! `kv segment`: looks into the files of a data folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use super::get::output;
use crate::os::disk::RealDisk;
use crate::store::disk::Disk;
use crate::store::segment::dump::{DumpLine, describe};

#[derive(Debug, clap::Subcommand)]
pub enum SegmentCommand {
    /// Print what a segment file holds, damaged or not, one JSON object a line; the file is only read
    Dump(DumpArgs),
}

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// The segment file
    pub file: PathBuf,
    /// Print the texts too; without it, only their lengths
    #[arg(long)]
    pub values: bool,
}

pub fn run(command: SegmentCommand) -> anyhow::Result<()> {
    match command {
        SegmentCommand::Dump(args) => {
            let mut out = output();
            dump(&args.file, args.values, &mut out)?;
            out.flush()?;
            Ok(())
        }
    }
}

fn dump(file: &Path, values: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut written = Ok(());
    describe(&disk, file, &mut |mut line| {
        if let (DumpLine::Entry(entry), false) = (&mut line, values) {
            entry.hide_text();
        }
        if written.is_ok() {
            written = serde_json::to_writer(&mut *out, &line)
                .map_err(std::io::Error::from)
                .and_then(|()| out.write_all(b"\n"));
        }
    })?;
    Ok(written?)
}
