//! `kv segment`: looks into the files of a data folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use super::exit::usage;
use super::get::output;
use crate::node::NodeConfig;
use crate::node::offline::{AcceptedLoss, accept_losses};
use crate::os::disk::RealDisk;
use crate::store::disk::Disk;
use crate::store::segment::dump::{DumpLine, describe};

#[derive(Debug, clap::Subcommand)]
pub enum SegmentCommand {
    /// Print what a segment file holds, damaged or not, one JSON object a line; the file is only read
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
            dump(&args.file, args.values, &mut out)?;
            out.flush()?;
            Ok(())
        }
        SegmentCommand::AcceptLoss(args) => accept_loss(&args.data),
    }
}

fn accept_loss(data: &Path) -> anyhow::Result<()> {
    if !data.is_dir() {
        return Err(usage(format!("there is no data folder {}", data.display())));
    }
    let accepted = accept_losses(&crate::os::env(), &NodeConfig::new(data.to_owned()))?;
    let mut out = output();
    for AcceptedLoss { dir, lost_ops } in &accepted {
        writeln!(out, "{dir}\t{lost_ops} ops given up")?;
    }
    if accepted.is_empty() {
        writeln!(out, "nothing is lost")?;
    }
    Ok(out.flush()?)
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
