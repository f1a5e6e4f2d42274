//! `kv import`: adds the keys and values of a JSON Lines file.
//!
//! Invariant: each add's request id follows from the file's digest when it was first imported, the line's number and the add itself, so an
//! import that is repeated, in whole or in part, adds nothing twice. Adds of one key are sent in the order of the file.

mod adding;
mod line;
mod progress_file;

use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::sync::watch;

use crate::cli::connection::{Connection, KeyConnectionArgs};
use crate::cli::exit::{Advice, unopened, usage};
use crate::cli::progress;
use crate::cli::stop::Stop;
use crate::client::entropy;

use adding::{Done, Import, Unfinished, counted};
use line::{ImportLines, Position};
use progress_file::{Progress, Start};

/// To run the same command again would add twice what is stored.
const STDIN_ADVICE: &str = "what comes from standard input is added anew each time; an import of the same lines from a file can be run \
again, and adds nothing twice";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file that is imported again adds nothing twice, as long as the values are still in their keys and for at least an hour after they \
were cleared; --again adds them anew. An import that was interrupted, or stopped at a line that had to be corrected, goes on where it \
stopped, or at its first line if what it stored is not there any more. FILE.progress tells how far it came, and stays: by it, the next \
import adds nothing twice of a file that was corrected or has grown. A file that was changed before the place where its import ended is \
another one, and is added as a whole; this is said. What comes from standard input is always added anew.")]
pub struct ImportArgs {
    /// JSON Lines, {"key":…,"value":[…]} for each key, as `kv export` writes them; - for standard input
    pub file: PathBuf,
    /// Add the values anew, even if this file was imported before
    #[arg(long)]
    pub again: bool,
    #[command(flatten)]
    pub connection: KeyConnectionArgs,
}

pub async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let is_stdin = args.file == Path::new("-");
    let mut stop = Stop::new()?;
    let (stored, seen) = watch::channel(Done::default());
    let again = Again::of(&args);
    // On a thread of its own: its lines may be long in coming, and one that the runtime has for its tasks would hear no signal meanwhile.
    let import = async move {
        let connection = Connection::to_keys(&args.connection)?;
        match is_stdin {
            true => import_stdin(&connection, &args, stored).await,
            false => {
                let outcome = import_file(&connection, &args, stored).await;
                outcome.map_err(|error| connection.explain(error))
            }
        }
    };
    let runtime = tokio::runtime::Handle::current();
    let importing = tokio::task::spawn_blocking(move || runtime.block_on(import));
    let outcome = tokio::select! {
        biased;
        stopped = stop.signal() => Err(stopped.context(what_is_left(&seen.borrow(), again))),
        outcome = importing => outcome?,
    };
    progress::say(&outcome?);
    Ok(())
}

/// What the same command would add after this one.
enum Again {
    /// What is left.
    Rest,
    /// All of a file: it is told to, unless it knows how far it came by this file.
    Unless(PathBuf),
    /// What it is given.
    Stdin,
}

impl Again {
    fn of(args: &ImportArgs) -> Self {
        match (args.file == Path::new("-"), args.again) {
            (true, _) => Self::Stdin,
            (false, true) => Self::Unless(progress_file::path_for(&args.file)),
            (false, false) => Self::Rest,
        }
    }
}

/// Of an import that was stopped.
fn what_is_left(stored: &Done, again: Again) -> Advice {
    let (values, lines) = stored.counted();
    let goes_on = |path: &Path| progress_file::read(path).is_some_and(|saved| saved.again && !saved.done);
    let how = match again {
        Again::Stdin => STDIN_ADVICE,
        Again::Unless(path) if !goes_on(&path) => "--again would add all of the file once more",
        Again::Unless(_) | Again::Rest => "run the import again to go on: nothing is added twice",
    };
    let parts = stored.unfinished.as_ref().map(|parts| format!("; {parts}"));
    Advice(format!(
        "this run stored {values} from {lines}, and perhaps some after those; {how}{}",
        parts.unwrap_or_default()
    ))
}

async fn import_stdin(
    connection: &Connection,
    args: &ImportArgs,
    stored: watch::Sender<Done>,
) -> anyhow::Result<String> {
    let mut lines = ImportLines::new(BufReader::new(io::stdin()), blake3::Hasher::new(), 0, 0);
    let (bar, patience) = (progress::bytes_spinner(), args.connection.common.patience());
    let mut import = Import::new(&connection.client, entropy::hex::<16>(), None, bar, stored, patience);
    let outcome = import.run(&mut lines).await;
    let done = outcome.map_err(|error| {
        let advice = match import.may_be_stored(&error) {
            true => Some(format!(
                "the lines before that one are stored, and some after it may be; {STDIN_ADVICE}"
            )),
            false => connection.advice(&error),
        };
        advised(error, advice, import.unfinished())
    })?;
    Ok(done.to_string())
}

/// The error, with what to do about it and about the parts that it leaves.
fn advised(error: anyhow::Error, advice: Option<String>, left: Option<&Unfinished>) -> anyhow::Error {
    let advice: Vec<_> = advice.into_iter().chain(left.map(Unfinished::to_string)).collect();
    match advice.is_empty() {
        true => error,
        false => error.context(Advice(advice.join("; "))),
    }
}

/// What can be said of it in the end.
async fn import_file(
    connection: &Connection,
    args: &ImportArgs,
    stored: watch::Sender<Done>,
) -> anyhow::Result<String> {
    let place = || args.file.display().to_string();
    let mut file = fs::File::open(&args.file).map_err(|error| unopened(&args.file, &error))?;
    let length = file.metadata().with_context(place)?;
    if !length.is_file() {
        return Err(usage(format!("{}: not a plain file; pipe it in and give -", place())));
    }
    let target = &connection.target;
    let target = format!("{} at {}", target.user.value, target.urls.value.join(","));
    let path = progress_file::path_for(&args.file);
    let mut start = Start::find(&mut file, &path, &target, args.again).with_context(place)?;
    if let Some(warning) = start.warning() {
        progress::say(&format!("warning: {}: {warning}", place()));
    }
    if start.lines > 0 && !start.is_stored(&connection.client).await? {
        progress::say("what was imported of this file before is not there: beginning at its first line");
        start = start.rewind(&mut file).with_context(place)?;
    }
    if start.lines > 0 {
        progress::say(&format!("going on after line {}", start.lines));
    }
    let (again, lines_before) = (start.again, start.lines);
    let bar = progress::bytes_bar(length.len());
    let mut saver = Saver {
        path: path.clone(),
        target,
        import_id: start.import_id.clone(),
        last_key: start.last_key.clone(),
        again,
        failed: false,
    };
    // From the first line on: should that one have to be corrected, the digest of the file changes, and with it its name.
    saver.save(start.position(), false);
    let mut lines = ImportLines::new(BufReader::new(file), start.hasher, start.lines, start.offset_bytes);
    let patience = args.connection.common.patience();
    let mut import = Import::new(&connection.client, start.import_id, Some(saver), bar, stored, patience);
    let done = import.run(&mut lines).await.with_context(place);
    let done = done.map_err(|error| {
        let advice = connection.advice(&error);
        advised(error, advice, import.unfinished())
    })?;
    let stays = import
        .leave_progress(lines.position())
        .with_context(|| path.display().to_string())?;
    let done = match (lines_before, done.lines) {
        (1.., 0) => format!(
            "{}: all were imported before (--again adds them anew)",
            counted(lines_before, "line")
        ),
        (0, _) if args.again => done.to_string(),
        _ => done.or_before(),
    };
    Ok(match stays {
        true => format!("{done}; by {} the next import of this file knows them", path.display()),
        false => done,
    })
}

/// Writes down how far the import came.
struct Saver {
    path: PathBuf,
    target: String,
    import_id: String,
    last_key: Option<String>,
    again: bool,
    failed: bool,
}

impl Saver {
    /// Whether it could.
    fn save(&mut self, position: Position, done: bool) -> bool {
        let progress = Progress {
            last_key: self.last_key.clone(),
            again: self.again,
            done,
            ..Progress::at(position, &self.target, &self.import_id)
        };
        let Err(error) = progress_file::write(&self.path, &progress) else {
            return true;
        };
        if !self.failed {
            self.failed = true;
            let path = self.path.display();
            progress::say(&format!(
                "warning: cannot write {path}: {error}; if this import is interrupted, the next one begins anew"
            ));
        }
        false
    }
}

#[cfg(test)]
mod tests;
