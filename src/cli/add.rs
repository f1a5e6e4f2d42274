//! `kv add_value` and `kv add_value_part`: a value from the command line, a file or standard input.
//!
//! Invariant: what can be checked before anything is sent is checked; and what was sent can be continued with the same request id.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::api::{STATUS_IN_PROGRESS, STATUS_OK};
use crate::client::{Client, ClientError, PART_BYTES_MAX, entropy, part_request_id};
use crate::types::{LengthError, RequestId, VALUE_BYTES_MAX};

use super::connection::{Connection, KeyConnectionArgs};
use super::exit::{CliError, unopened};
use super::progress;
use super::stop::{Stop, Stopped};
use super::text_source::{TextError, TextPart, TextParts, validate};

/// So much of standard input is read and checked before the first part is sent.
const STDIN_HELD_BYTES: u64 = 8 * 1024 * 1024;

/// Shown at the end of the help of both commands.
pub const LINE_END_HELP: &str = "\
A line end at the end of a file or of standard input is part of the value: `printf %s text | kv add_value KEY -` stores none.
Values of more than 1 MiB are sent in parts. While one is on its way, add nothing else to its key: it would become part of it. When \
it fails or is interrupted (Ctrl-C, SIGTERM), it says what is stored and with which --request-id to go on.";

#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// The key
    pub key: String,
    /// The value, or - for standard input, taken byte for byte; after -- it may begin with a dash, or be one
    #[arg(
        allow_negative_numbers = true,
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    pub value: Option<String>,
    /// Take the value from this file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Name of this add: however often it is repeated under the same name, it counts once; another text, or a part for a value, under a name that was used for this key is refused, as long as what was added is there [default: a random one]
    #[arg(long, value_name = "ID", value_parser = request_id)]
    pub request_id: Option<String>,
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: KeyConnectionArgs,
}

fn request_id(text: &str) -> Result<String, LengthError> {
    RequestId::new(text).map(|_| text.to_owned())
}

/// Whether the last of these arguments stands behind `--`, where a dash is no more than a dash.
fn ends_behind_dashes(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.any(|argument| argument == "--") && arguments.next().is_some()
}

pub async fn run(args: AddArgs, finish: bool) -> anyhow::Result<()> {
    let connection = Connection::to_keys(&args.connection)?;
    let client = &connection.client;
    let request_id = args.request_id.clone().unwrap_or_else(entropy::hex::<16>);
    let add = Add {
        client,
        key: &args.key,
        finish,
        request_id: &request_id,
    };
    let sent = match (&args.file, args.value.as_deref()) {
        (Some(path), _) => add.file(path).await,
        // The value is the last of what is no flag.
        (None, Some("-")) if !ends_behind_dashes(std::env::args_os()) => add.stdin().await,
        (None, value) => add.text(value.unwrap_or_default().as_bytes()).await,
    };
    sent.map_err(|error| match is_explained(&error) {
        true => error,
        false => connection.explain(error),
    })?;
    print_status(if finish { STATUS_OK } else { STATUS_IN_PROGRESS }, args.json)
}

/// The advice to run the same command again would be a wrong one: that takes the request id of the first time.
fn is_explained(error: &anyhow::Error) -> bool {
    let is_passing = |error: &ClientError| error.is_passing() && !matches!(error, ClientError::Unreachable { .. });
    error.is::<Left>() && error.downcast_ref().is_some_and(is_passing)
}

pub fn print_status(status: &str, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = match json {
        true => writeln!(out, "{}", serde_json::json!({ "status": status })),
        false => writeln!(out, "{status}"),
    };
    written.context("it was done, but that could not be written to standard output")
}

/// One add, of any length.
struct Add<'a> {
    client: &'a Client,
    key: &'a str,
    finish: bool,
    request_id: &'a str,
}

impl Add<'_> {
    async fn text(&self, text: &[u8]) -> anyhow::Result<()> {
        self.send(Cursor::new(text.to_vec()), &ProgressBar::hidden()).await
    }

    async fn file(&self, path: &Path) -> anyhow::Result<()> {
        let place = || format!("cannot read {}", path.display());
        let mut file = fs::File::open(path).map_err(|error| unopened(path, &error))?;
        let meta = file.metadata().with_context(place)?;
        if meta.is_dir() {
            return Err(unopened(path, &io::ErrorKind::IsADirectory.into()));
        }
        if !meta.is_file() {
            return self.stream(file).await.with_context(|| path.display().to_string());
        }
        check_length(meta.len()).with_context(|| path.display().to_string())?;
        let length = match validate(&file, PART_BYTES_MAX) {
            Ok(length) => length,
            Err(error) => return Err(refused(error)).with_context(|| format!("{}: nothing was sent", path.display())),
        };
        file.rewind().with_context(place)?;
        let bar = if length >= progress::SHOWN_FROM_BYTES {
            progress::bytes_bar(length)
        } else {
            ProgressBar::hidden()
        };
        self.send(file, &bar).await.with_context(|| path.display().to_string())
    }

    async fn stdin(&self) -> anyhow::Result<()> {
        self.stream(io::stdin()).await.context("standard input")
    }

    /// Something that can be read only once: its beginning is held back until it was checked.
    async fn stream(&self, mut source: impl Read + Send + 'static) -> anyhow::Result<()> {
        let mut head = Vec::new();
        source
            .by_ref()
            .take(STDIN_HELD_BYTES)
            .read_to_end(&mut head)
            .context("cannot read it")?;
        let whole = (head.len() as u64) < STDIN_HELD_BYTES;
        if let Err(error) = std::str::from_utf8(&head)
            && (whole || error.error_len().is_some())
        {
            let offset = error.valid_up_to() as u64;
            return Err(refused(TextError::InvalidUtf8 { offset })).context("nothing was sent");
        }
        if whole {
            // A terminal would be asked for more after its end.
            return self.send(Cursor::new(head), &ProgressBar::hidden()).await;
        }
        self.send(Cursor::new(head).chain(source), &progress::bytes_spinner())
            .await
    }

    async fn send(&self, source: impl Read + Send + 'static, bar: &ProgressBar) -> anyhow::Result<()> {
        let mut stop = Stop::new()?;
        let mut sent = Sent::default();
        let outcome = tokio::select! {
            biased;
            stopped = stop.signal() => Err(stopped),
            outcome = self.send_parts(source, &mut sent, bar) => outcome,
        };
        bar.finish_and_clear();
        outcome.map_err(|error: anyhow::Error| match self.what_is_left(&sent, &error) {
            Some(left) => error.context(left),
            None => error,
        })
    }

    async fn send_parts(
        &self,
        source: impl Read + Send + 'static,
        sent: &mut Sent,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut parts = read_parts(source);
        let mut index = 0;
        loop {
            let read = parts.recv().await.context("the thread that reads it failed")?;
            let (part, end_bytes) = read.map_err(refused)?;
            check_length(end_bytes)?;
            let request_id = part_request_id(self.request_id, index);
            let finish = self.finish && part.last;
            sent.under_way = true;
            self.client
                .add_one_told(self.key, &part.text, finish, &request_id, &sent.in_doubt)
                .await?;
            *sent = Sent {
                stored_bytes: end_bytes,
                ..Sent::default()
            };
            bar.set_position(end_bytes);
            if part.last {
                return Ok(());
            }
            index += 1;
        }
    }

    /// None when nothing of it can be stored, so that there is nothing to go on with.
    fn what_is_left(&self, sent: &Sent, error: &anyhow::Error) -> Option<Left> {
        let Self { key, request_id, .. } = self;
        let stored_bytes = sent.stored_bytes;
        let in_doubt = sent.in_doubt.load(Ordering::Relaxed) || (sent.under_way && error.is::<Stopped>());
        if matches!(error.downcast_ref(), Some(ClientError::Refused { status: 409, .. })) {
            return (stored_bytes > 0).then(|| {
                Left(format!(
                    "--request-id {request_id} was used for a text that goes on differently after {stored_bytes} bytes: take another one, \
                     or that text if it did not come to its end"
                ))
            });
        }
        if stored_bytes == 0 {
            return in_doubt.then(|| {
                Left(format!(
                    "it may have been stored at the key {key:?} or not. Run the command again with --request-id {request_id}: then it counts once"
                ))
            });
        }
        Some(Left(format!(
            "the first {stored_bytes} bytes were stored and wait, unfinished, at the key {key:?}. Run the command again with \
             --request-id {request_id} and the same (or, from there on, corrected) input to go on: nothing is stored twice. Or \
             drop them with `kv clear_key`, which also removes the key's values. If neither is done, the next value of the key \
             begins with them"
        )))
    }
}

/// How far an add came.
#[derive(Debug, Default)]
struct Sent {
    /// Of the parts that were answered.
    stored_bytes: u64,
    /// One more was begun.
    under_way: bool,
    /// And failed, but may be stored.
    in_doubt: AtomicBool,
}

/// What is stored, or may be, of an add that failed, and how to go on.
#[derive(Debug)]
struct Left(String);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The parts, each with where it ends, read on a thread of their own: a source may stand still while a signal must be heard.
fn read_parts(source: impl Read + Send + 'static) -> mpsc::Receiver<Result<(TextPart, u64), TextError>> {
    let (given, parts) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut source = TextParts::new(source, PART_BYTES_MAX);
        while let Some(part) = source.next_part().transpose() {
            let failed = part.is_err();
            let part = part.map(|part| (part, source.given_bytes()));
            if given.blocking_send(part).is_err() || failed {
                return;
            }
        }
    });
    parts
}

fn check_length(length_bytes: u64) -> anyhow::Result<()> {
    if length_bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let text = format!("the value is longer than the {VALUE_BYTES_MAX} bytes that one value may have");
    Err(CliError::RefusedInput(text).into())
}

fn refused(error: TextError) -> anyhow::Error {
    match error {
        TextError::InvalidUtf8 { .. } => CliError::RefusedInput(error.to_string()).into(),
        TextError::Read(error) => anyhow::Error::new(error).context("cannot read it"),
    }
}

#[cfg(test)]
#[path = "add_tests.rs"]
mod tests;
