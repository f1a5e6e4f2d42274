//! `kv import`: adds the keys and values of a JSON Lines file.
//!
//! Invariant: each add's request id follows from the file's digest when it was first imported, the line's number and the add itself, so an
//! import that is repeated, in whole or in part, adds nothing twice. Adds of one key are sent in the order of the file.

mod line;
mod progress_file;

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::api::{BATCH_OPERATIONS_MAX, Operation, OperationTerms};
use crate::cli::connection::{Connection, KeyConnectionArgs};
use crate::cli::exit::{Advice, CliError, unopened, usage};
use crate::cli::progress;
use crate::client::{Client, ClientError, PART_BYTES_MAX, entropy};
use crate::types::KEY_BYTES_MAX;

use line::{Event, ImportLines, ImportOp, LineError, Position};
use progress_file::{Progress, Start};

/// Text of one batch: even with every byte written as six, the body stays below the limit of one request.
const BATCH_BYTES: usize = PART_BYTES_MAX + KEY_BYTES_MAX;
/// Operations of one batch: enough to make round trips cheap, few enough to be answered soon.
const BATCH_OPS_MAX: usize = 1000;
const _: () = assert!(BATCH_OPS_MAX <= BATCH_OPERATIONS_MAX);
/// The pause before a batch is sent again because the node could not take some of it; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// To run the same command again would add twice what is stored.
const STDIN_ADVICE: &str = "the lines before that one are stored, and some after it may be. What comes from standard input is added anew \
each time; an import of the same lines from a file can be run again, and adds nothing twice";

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
    let connection = Connection::to_keys(&args.connection)?;
    let patience = args.connection.common.patience();
    if args.file == Path::new("-") {
        let mut lines = ImportLines::new(io::stdin().lock(), blake3::Hasher::new(), 0, 0);
        let mut import = Import::new(
            &connection.client,
            entropy::hex::<16>(),
            None,
            progress::bytes_spinner(),
            patience,
        );
        let outcome = import.run(&mut lines).await;
        let done = outcome.map_err(|error| match may_be_stored(&error, &import.done) {
            true => error.context(Advice(STDIN_ADVICE.to_owned())),
            false => connection.explain(error),
        })?;
        progress::say(&done.to_string());
        return Ok(());
    }
    let outcome = import_file(&connection, &args).await;
    progress::say(&outcome.map_err(|error| connection.explain(error))?);
    Ok(())
}

/// Whether some of an import that failed at a call may be stored.
fn may_be_stored(error: &anyhow::Error, done: &Done) -> bool {
    let Some(error) = error.downcast_ref::<ClientError>() else {
        return false;
    };
    // Where one operation of a batch was refused, others were carried out.
    let is_refusal = matches!(error, ClientError::Unavailable { .. } | ClientError::DiskFull { .. });
    done.values > 0 || is_refusal || error.is_in_doubt()
}

/// What can be said of it in the end.
async fn import_file(connection: &Connection, args: &ImportArgs) -> anyhow::Result<String> {
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
    let mut import = Import::new(&connection.client, start.import_id, Some(saver), bar, patience);
    let done = import.run(&mut lines).await.with_context(place)?;
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

/// What was imported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    lines: u64,
    values: u64,
}

impl Done {
    fn counted(&self) -> (String, String) {
        (counted(self.values, "value"), counted(self.lines, "line"))
    }

    /// A node answers the same whether a value is new or came under its request id before.
    fn or_before(&self) -> String {
        let (values, lines) = self.counted();
        format!(
            "{values} from {lines}: stored, by this import or by an earlier one of this file (--again adds them anew)"
        )
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (values, lines) = self.counted();
        write!(f, "imported {values} from {lines}")
    }
}

fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

struct Import<'a> {
    client: &'a Client,
    import_id: String,
    saver: Option<Saver>,
    bar: ProgressBar,
    batch: Vec<ImportOp>,
    batch_bytes: usize,
    /// The end of the last line of which everything is in the batch or stored.
    line_end: Option<Position>,
    done: Done,
    /// For how long a batch is sent again.
    patience: Duration,
}

impl<'a> Import<'a> {
    fn new(client: &'a Client, import_id: String, saver: Option<Saver>, bar: ProgressBar, patience: Duration) -> Self {
        Self {
            client,
            import_id,
            saver,
            bar,
            batch: Vec::new(),
            batch_bytes: 0,
            line_end: None,
            done: Done::default(),
            patience,
        }
    }

    async fn run<R: BufRead>(&mut self, lines: &mut ImportLines<R>) -> anyhow::Result<Done> {
        let outcome = self.add_all(lines).await;
        self.bar.finish_and_clear();
        outcome.map(|()| std::mem::take(&mut self.done))
    }

    /// Once everything up to `end` is stored: the next import of the file goes by the name of this one, also when the file has grown. Nothing
    /// is known by what stored nothing: other files begin so too. Whether it stays.
    fn leave_progress(&mut self, end: Position) -> io::Result<bool> {
        let Some(saver) = &mut self.saver else {
            return Ok(false);
        };
        if saver.last_key.is_some() {
            return Ok(saver.save(end, true));
        }
        match fs::remove_file(&saver.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(false),
        }
    }

    async fn add_all<R: BufRead>(&mut self, lines: &mut ImportLines<R>) -> anyhow::Result<()> {
        loop {
            match lines.next() {
                Ok(Some(Event::Op(op))) => self.add(op).await?,
                Ok(Some(Event::LineEnd(position))) => {
                    self.line_end = Some(position);
                    self.done.lines += 1;
                }
                Ok(None) => return self.flush().await,
                Err(error) => {
                    // The lines before it are right, and will not have to be sent again.
                    self.flush().await?;
                    return Err(self.refused(error));
                }
            }
        }
    }

    /// What is told when all before the line is stored.
    fn refused(&self, error: LineError) -> anyhow::Error {
        let to_go_on = match (&self.saver, self.done.lines) {
            (Some(_), _) => ". The lines before it are imported; correct the line and run the import again to go on",
            (None, 0) => "",
            (None, _) => {
                ". The lines before it are imported; what comes from standard input is added anew each time, so correct the line and \
                 give what begins with it"
            }
        };
        match error {
            LineError::Wrong { .. } => CliError::RefusedInput(format!("{error}{to_go_on}")).into(),
            LineError::Read { .. } => error.into(),
        }
    }

    async fn add(&mut self, op: ImportOp) -> anyhow::Result<()> {
        let full = self.batch.len() >= BATCH_OPS_MAX || self.batch_bytes + op.cost_bytes() > BATCH_BYTES;
        if full || !op.whole {
            self.flush().await?;
        }
        if op.whole {
            self.batch_bytes += op.cost_bytes();
            self.batch.push(op);
            return Ok(());
        }
        // Parts go one by one: the last of them must not arrive when another one was refused.
        let id = op.request_id(&self.import_id);
        let added = self.client.add_one(&op.key, &op.text, op.finish, &id).await;
        added.with_context(|| format!("line {}", op.line))?;
        self.done.values += u64::from(op.finish);
        if op.finish {
            self.note_stored(op.key);
        }
        Ok(())
    }

    fn note_stored(&mut self, key: String) {
        if let Some(saver) = &mut self.saver {
            saver.last_key = Some(key);
        }
    }

    /// Sends the batch, and writes down that everything up to the last line's end is stored.
    async fn flush(&mut self) -> anyhow::Result<()> {
        let mut pauses = Pauses::new(self.patience);
        while !self.batch.is_empty() {
            let Some((line, error)) = self.send_batch().await? else {
                self.done.values += self.batch.len() as u64;
                self.batch_bytes = 0;
                if let Some(last) = self.batch.pop() {
                    self.note_stored(last.key);
                }
                self.batch.clear();
                break;
            };
            match pauses.next().filter(|_| error.is_passing()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error).with_context(|| format!("line {line}")),
            }
        }
        if let Some(position) = self.line_end.take() {
            self.bar.set_position(position.offset_bytes);
            if let Some(saver) = &mut self.saver {
                saver.save(position, false);
            }
        }
        Ok(())
    }

    /// The first operation that was refused: its line and why. The whole batch is sent again after that: what was added
    /// already counts once.
    async fn send_batch(&self) -> anyhow::Result<Option<(u64, ClientError)>> {
        let operations = self.batch.iter().map(|op| Operation::AddValue {
            key: Cow::from(op.key.as_str()),
            value: Cow::from(op.text.as_str()),
            finish_value: op.finish,
            request_id: Some(Cow::from(op.request_id(&self.import_id))),
            terms: OperationTerms::default(),
        });
        let first_line = self.batch.first().map_or(0, |op| op.line);
        let mut operations: Vec<_> = operations.collect();
        let sent = self.client.batch(&mut operations).await;
        let results = sent.with_context(|| format!("line {first_line}, or one soon after it"))?;
        let failure = |(op, result): (&ImportOp, Result<_, ClientError>)| Some((op.line, result.err()?));
        Ok(self.batch.iter().zip(results).find_map(failure))
    }
}

/// Between the tries of one batch, as long as none of them goes beyond what is left.
struct Pauses {
    until: Instant,
    next: Duration,
}

impl Pauses {
    fn new(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            next: PAUSE_FIRST,
        }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        (Instant::now() + pause < self.until).then_some(pause)
    }
}

#[cfg(test)]
mod tests;
