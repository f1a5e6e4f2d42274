//! Adding what the lines of an import say, batch by batch, and counting what is stored.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{self, BufRead};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{BATCH_OPERATIONS_MAX, Operation, OperationTerms};
use crate::cli::exit::CliError;
use crate::client::{Client, ClientError, PART_BYTES_MAX};
use crate::types::KEY_BYTES_MAX;

use super::Saver;
use super::line::{Event, ImportLines, ImportOp, LineError, Position};

/// Text of one batch: even with every byte written as six, the body stays below the limit of one request.
const BATCH_BYTES: usize = PART_BYTES_MAX + KEY_BYTES_MAX;
/// Operations of one batch: enough to make round trips cheap, few enough to be answered soon.
const BATCH_OPS_MAX: usize = 1000;
const _: () = assert!(BATCH_OPS_MAX <= BATCH_OPERATIONS_MAX);
/// The pause before a batch is sent again because the node could not take some of it; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What was imported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) lines: u64,
    pub(super) values: u64,
    pub(super) unfinished: Option<Unfinished>,
}

/// Parts of a value whose end was not stored, so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfinished {
    key: String,
    /// Of those that were answered; one more may be stored.
    bytes: u64,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, bytes } = self;
        write!(
            f,
            "the first {bytes} bytes of a value, or more, wait unfinished at the key {key:?}, unless its end came through: the key's next \
             value begins with them if neither the same import of the same file goes on nor `kv clear_key` drops them, which also removes the key's values (after that, \
             import with --again)"
        )
    }
}

impl Done {
    pub(super) fn counted(&self) -> (String, String) {
        (counted(self.values, "value"), counted(self.lines, "line"))
    }

    /// A node answers the same whether a value is new or came under its request id before.
    pub(super) fn or_before(&self) -> String {
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

pub(super) fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

pub(super) struct Import<'a> {
    client: &'a Client,
    import_id: String,
    saver: Option<Saver>,
    bar: ProgressBar,
    batch: Vec<ImportOp>,
    batch_bytes: usize,
    /// The end of the last line of which everything is in the batch or stored.
    line_end: Option<Position>,
    done: Done,
    /// What of it is stored, for whoever asks meanwhile.
    stored: watch::Sender<Done>,
    /// For how long a batch is sent again.
    patience: Duration,
}

impl<'a> Import<'a> {
    pub(super) fn new(
        client: &'a Client,
        import_id: String,
        saver: Option<Saver>,
        bar: ProgressBar,
        stored: watch::Sender<Done>,
        patience: Duration,
    ) -> Self {
        Self {
            client,
            import_id,
            saver,
            bar,
            batch: Vec::new(),
            batch_bytes: 0,
            line_end: None,
            done: Done::default(),
            stored,
            patience,
        }
    }

    pub(super) async fn run<R: BufRead>(&mut self, lines: &mut ImportLines<R>) -> anyhow::Result<Done> {
        let outcome = self.add_all(lines).await;
        self.bar.finish_and_clear();
        outcome.map(|()| self.done.clone())
    }

    pub(super) fn unfinished(&self) -> Option<&Unfinished> {
        self.done.unfinished.as_ref()
    }

    /// Whether some of it may be stored, where it failed with this.
    pub(super) fn may_be_stored(&self, error: &anyhow::Error) -> bool {
        let Some(error) = error.downcast_ref::<ClientError>() else {
            return false;
        };
        // Where one operation of a batch was refused, others were carried out.
        let is_refusal = matches!(error, ClientError::Unavailable { .. } | ClientError::DiskFull { .. });
        self.done.values > 0 || self.done.unfinished.is_some() || is_refusal || error.is_in_doubt()
    }

    /// Once everything up to `end` is stored: the next import of the file goes by the name of this one, also when the file has grown. Nothing
    /// is known by what stored nothing: other files begin so too. Whether it stays.
    pub(super) fn leave_progress(&mut self, end: Position) -> io::Result<bool> {
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
        self.note_part(&op, added.as_ref().err());
        added.with_context(|| format!("line {}", op.line))?;
        self.done.values += u64::from(op.finish);
        self.stored.send_replace(self.done.clone());
        if op.finish {
            self.note_stored(op.key);
        }
        Ok(())
    }

    fn note_part(&mut self, op: &ImportOp, failed: Option<&ClientError>) {
        let before = self.done.unfinished.as_ref().map_or(0, |unfinished| unfinished.bytes);
        let unfinished = |bytes| {
            let key = op.key.clone();
            Some(Unfinished { key, bytes })
        };
        match failed {
            None if op.finish => self.done.unfinished = None,
            None => self.done.unfinished = unfinished(before + op.text.len() as u64),
            Some(error) if error.is_in_doubt() && !op.finish => self.done.unfinished = unfinished(before),
            Some(_) => {}
        }
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
        self.stored.send_replace(self.done.clone());
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
mod tests {
    use crate::client::fake_node::{FakeNode, Fault};

    use super::*;

    fn import_by(client: &Client, patience: Duration) -> Import<'_> {
        let (id, bar) = ("id".to_owned(), ProgressBar::hidden());
        Import::new(client, id, None, bar, watch::Sender::default(), patience)
    }

    #[tokio::test]
    async fn an_import_of_what_cannot_be_read_again_knows_that_some_of_it_may_be_stored() {
        let doubt = serde_json::json!({"detail": "too few replicas answered; this request may have taken effect"});
        let refusal = serde_json::json!({"detail": "Invalid user_id or password"});
        for (fault, expected) in [
            (Fault::BreakAfter, true),
            (Fault::Answer(503, doubt), true),
            (Fault::Answer(401, refusal), false),
        ] {
            let node = FakeNode::start();
            node.fail_next(fault);
            let client = node.builder().retries(0).build().unwrap();
            let line = br#"{"key":"k","value":["v"]}"#;
            let mut lines = ImportLines::new(&line[..], blake3::Hasher::new(), 0, 0);
            let mut import = import_by(&client, Duration::from_secs(60));
            let error = import.run(&mut lines).await.unwrap_err();
            assert_eq!(import.may_be_stored(&error), expected, "{error:#}");
        }
    }

    #[tokio::test]
    async fn parts_that_are_stored_are_something_that_is_stored() {
        let node = FakeNode::start();
        let client = node.builder().retries(0).build().unwrap();
        let part = "x".repeat(PART_BYTES_MAX);
        let line = format!("{{\"key\":\"k\",\"value\":[\"{part}{part}\"]}}\n");
        for (parts_before, fault, left) in [
            (
                1,
                Fault::Answer(401, serde_json::json!({"detail": "no"})),
                Some(part.len() as u64),
            ),
            (0, Fault::BreakAfter, Some(0)),
            (0, Fault::Answer(401, serde_json::json!({"detail": "no"})), None),
        ] {
            for _ in 0..parts_before {
                node.fail_next(Fault::None);
            }
            node.fail_next(fault);
            let mut lines = ImportLines::new(line.as_bytes(), blake3::Hasher::new(), 0, 0);
            let mut import = import_by(&client, Duration::ZERO);
            let error = import.run(&mut lines).await.unwrap_err();
            assert_eq!(import.unfinished().map(|left| left.bytes), left, "{error:#}");
            assert_eq!(import.may_be_stored(&error), left.is_some(), "{error:#}");
        }
    }

    #[tokio::test]
    async fn a_wrong_line_of_standard_input_is_not_to_be_given_again_with_those_before_it() {
        let node = FakeNode::start();
        let client = node.builder().build().unwrap();
        for (lines, stored) in [("wrong\n", false), ("{\"key\":\"k\",\"value\":[\"v\"]}\nwrong\n", true)] {
            let mut lines = ImportLines::new(lines.as_bytes(), blake3::Hasher::new(), 0, 0);
            let mut import = import_by(&client, Duration::from_secs(60));
            let error = import.run(&mut lines).await.unwrap_err().to_string();
            assert!(!error.contains("run the import again"), "{error}");
            assert_eq!(error.contains("The lines before it are imported"), stored, "{error}");
        }
        assert_eq!(node.list("k"), ["v"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_sent_again_until_the_deadline_and_no_longer() {
        for patience in [Duration::from_secs(2), Duration::from_secs(600)] {
            let since = Instant::now();
            for pause in Pauses::new(patience) {
                tokio::time::sleep(pause).await;
            }
            assert!(
                since.elapsed() < patience && since.elapsed() + PAUSE_MAX >= patience,
                "{patience:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_import_without_patience_sends_no_batch_again() {
        let node = FakeNode::start();
        node.fail_next(Fault::RefuseInBatch(0));
        let client = node.builder().build().unwrap();
        let mut import = import_by(&client, Duration::ZERO);
        let line = b"{\"key\":\"a\",\"value\":[\"1\"]}\n";
        let mut lines = ImportLines::new(&line[..], blake3::Hasher::new(), 0, 0);
        let error = import.run(&mut lines).await.unwrap_err();
        assert_eq!(crate::cli::exit::exit_of(&error) as u8, 6, "{error:#}");
        assert!(node.list("a").is_empty());
    }
}
