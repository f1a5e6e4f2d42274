//! `kv export`: keys and values as JSON Lines.
//!
//! Invariant: the file has its name only when everything is in it; till then it is `FILE.part`, of which every line that ends is whole and right, so
//! that what an interruption cuts is the last line only. Beside it, `FILE.part.of` says whose keys are in it: nobody else's are added.

mod whose;

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream;
use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::client::{Client, ClientError, Page, ValueDecoder, ValueStream};
use crate::types::KEY_BYTES_MAX;

use super::connection::{Connection, KeyConnectionArgs};
use super::exit::usage;
use super::keys::KeyPages;
use super::output::output;
use super::progress;
use super::shown::OnTerminal;
use super::stop::Stop;
use whose::Whose;

/// Keys that are asked for ahead, so that short values do not wait for one round trip each.
const KEYS_AHEAD: usize = 8;
/// A long answer that was asked for so long before its turn is asked for anew: a node gives up one that is left untaken for some 30 s, and what came
/// of it before that would be written by the time this shows.
const AHEAD_MAX: Duration = Duration::from_secs(5);
/// How often a key is asked for again when its answer breaks off before any of it was written.
const REOPENS_MAX: usize = 3;
/// What every line begins with.
const LINE_START: &str = "{\"key\":\"";
/// Bytes that are read at once when looking for the last line.
const SCAN_BYTES: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is added or cleared while it runs may be in it or not; each key's list is what a get would give at its turn. Until everything is in it, FILE is \
called FILE.part, and FILE.part.of beside it says of which user and prefix. Export to standard output cannot be gone on with: a script goes by the exit code.")]
pub struct ExportArgs {
    /// File to write, which must not exist yet, or - for standard output
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Go on after the last whole line of FILE.part, which an interrupted export has left, or else of FILE
    #[arg(long)]
    pub resume: bool,
    /// Only keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    #[command(flatten)]
    pub connection: KeyConnectionArgs,
}

pub async fn run(args: ExportArgs) -> anyhow::Result<()> {
    let connection = Connection::to_keys(&args.connection)?;
    if args.file == Path::new("-") {
        if args.resume {
            return Err(usage("--resume needs the file that the interrupted export wrote"));
        }
        let mut out = output();
        let exported = match io::stdout().is_terminal() {
            // A bar would be in the way there.
            true => {
                let (mut out, bar) = (OnTerminal::new(&mut out), ProgressBar::hidden());
                export(&connection.client, args.prefix, None, &mut out, &bar).await
            }
            false => {
                export(
                    &connection.client,
                    args.prefix,
                    None,
                    &mut out,
                    &progress::bytes_spinner(),
                )
                .await
            }
        };
        exported.map_err(|error| connection.explain(error))?;
        return Ok(out.flush()?);
    }
    let place = || args.file.display().to_string();
    let part = part_of(&args.file);
    let whose = Whose::of(&connection.client, args.prefix.as_deref());
    // One that is left of an export that is not there any more says nothing.
    let is_told = args.resume && is_there(&part) && whose.check(&part)?;
    let Opened { file, after, is_new } = open(&args.file, &part, args.resume).with_context(place)?;
    if !is_told && let Err(error) = whose.write(&part) {
        if is_new {
            let _ = fs::remove_file(&part);
        }
        return Err(error);
    }
    let mut out = BufWriter::new(file);
    let (mut stop, bar) = (Stop::new()?, progress::bytes_spinner());
    let exported = tokio::select! {
        biased;
        stopped = stop.signal() => Err(stopped),
        exported = export(&connection.client, args.prefix, after, &mut out, &bar) => exported,
    };
    bar.finish_and_clear();
    // What was written before a failure is worth keeping: --resume goes on after it.
    let flushed = out.flush().and_then(|()| out.get_ref().sync_all());
    if let Err(error) = exported {
        let nothing = is_new && out.get_ref().metadata().is_ok_and(|meta| meta.len() == 0);
        // Where nothing is, the corrected command may begin anew.
        let error = match nothing && fs::remove_file(&part).is_ok() {
            true => {
                Whose::remove(&part);
                error.context(place())
            }
            false => error.context(format!("{}: go on with --resume", part.display())),
        };
        return Err(connection.explain(error));
    }
    flushed.with_context(|| part.display().to_string())?;
    name_whole(&part, &args.file).with_context(place)?;
    Whose::remove(&part);
    Ok(())
}

/// What the file is called until it is whole.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Nobody's file is replaced, except by who makes one of this name at this moment.
fn name_whole(part: &Path, file: &Path) -> anyhow::Result<()> {
    if is_there(file) {
        anyhow::bail!(
            "somebody made it meanwhile; what was exported, all of it, is {}",
            part.display()
        );
    }
    let renamed = fs::rename(part, file);
    renamed.with_context(|| {
        format!(
            "what was exported, all of it, is {}, and cannot be renamed",
            part.display()
        )
    })
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A file to be written at its end.
struct Opened {
    file: fs::File,
    /// The last key that it holds.
    after: Option<String>,
    is_new: bool,
}

/// Opens what is written until it is whole.
fn open(file: &Path, part: &Path, resume: bool) -> anyhow::Result<Opened> {
    let unopened = |error: io::Error| usage(format!("cannot open {}: {error}", part.display()));
    let (has_file, has_part) = (is_there(file), is_there(part));
    if !resume {
        if has_file {
            return Err(usage(
                "the file exists: remove it, or go on after its last line with --resume",
            ));
        }
        return match fs::OpenOptions::new().write(true).create_new(true).open(part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(usage(format!(
                "{} is there, of an export that did not come to its end: go on with --resume, or remove it",
                part.display()
            ))),
            opened => Ok(Opened {
                file: opened.map_err(unopened)?,
                after: None,
                is_new: true,
            }),
        };
    }
    if has_file && has_part {
        return Err(usage(format!(
            "the file exists, and so does {}: remove the one that is not to be gone on with",
            part.display()
        )));
    }
    let mut opened = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(!has_file)
        .truncate(false)
        .open(if has_file { file } else { part })
        .map_err(unopened)?;
    let after = cut_after_last_line(&mut opened)?;
    if has_file {
        // It was cut off by something else, such as an older program, or has grown since: it is not whole either.
        fs::rename(file, part).map_err(unopened)?;
    }
    Ok(Opened {
        file: opened,
        after,
        is_new: !has_file && !has_part,
    })
}

/// Removes an unfinished line at the end; gives the key of the line before it.
fn cut_after_last_line(file: &mut fs::File) -> anyhow::Result<Option<String>> {
    let (mut line_start, mut line_end, mut offset) = (0, 0, 0);
    let mut reader = BufReader::with_capacity(SCAN_BYTES, &mut *file);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        for (at, _) in chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            line_start = line_end;
            line_end = offset + at as u64 + 1;
        }
        let length = chunk.len();
        offset += length as u64;
        reader.consume(length);
    }
    let why = "its last line does not begin with a key: this file was not written by an export";
    let key = if line_end > 0 {
        Some(key_at(file, line_start)?.context(why)?)
    } else {
        None
    };
    let unfinished = head_at(file, line_end, LINE_START.len())?;
    anyhow::ensure!(LINE_START.as_bytes().starts_with(&unfinished), why);
    file.set_len(line_end)?;
    file.seek(SeekFrom::Start(line_end))?;
    Ok(key)
}

/// The bytes from `offset` on, at most so many.
fn head_at(file: &mut fs::File, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(bytes_max);
    file.seek(SeekFrom::Start(offset))?;
    file.take(bytes_max as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The key of the line that begins at `line_start`.
fn key_at(file: &mut fs::File, line_start: u64) -> io::Result<Option<String>> {
    // JSON may write a byte as six.
    let head = head_at(file, line_start, LINE_START.len() + KEY_BYTES_MAX * 6 + r#"","#.len())?;
    let mut decoder = ValueDecoder::new();
    // The head may be cut anywhere, or run into the next line; only the key counts.
    let _ = decoder.feed(&head, &mut Vec::new());
    Ok(decoder.key().map(str::to_owned))
}

async fn export(
    client: &Client,
    prefix: Option<String>,
    after: Option<String>,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let outcome = export_pages(client, prefix, after, out, bar).await;
    bar.finish_and_clear();
    outcome
}

async fn export_pages(
    client: &Client,
    prefix: Option<String>,
    after: Option<String>,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut pages = KeyPages::new(client, prefix, after, None);
    let mut keys = 0_u64;
    while let Some(page) = pages.next().await? {
        let asking = page.keys.into_iter().map(|key| Asked::ask(client, key));
        let mut asked = stream::iter(asking).buffered(KEYS_AHEAD);
        while let Some(asked) = asked.next().await {
            write_asked(client, asked, out, bar).await?;
            keys += 1;
            bar.set_message(format!("{keys} keys"));
        }
        out.flush()?;
    }
    Ok(())
}

/// A key whose values were asked for ahead of its turn.
struct Asked {
    key: String,
    at: Instant,
    values: Result<ValueStream, ClientError>,
}

impl Asked {
    async fn ask(client: &Client, key: String) -> Self {
        let at = Instant::now();
        let values = client.get_value_stream(&key, Page::default()).await;
        Self { key, at, values }
    }
}

/// Its turn has come.
async fn write_asked(client: &Client, asked: Asked, out: &mut impl Write, bar: &ProgressBar) -> anyhow::Result<()> {
    let Asked { key, at, values } = asked;
    let values = match values {
        Ok(stream) if !stream.is_all_here() && at.elapsed() > AHEAD_MAX => {
            drop(stream);
            client.get_value_stream(&key, Page::default()).await
        }
        values => values,
    };
    let written = write_line(client, &key, values, out, bar).await;
    written.with_context(|| format!("key {key:?}"))
}

async fn write_line(
    client: &Client,
    key: &str,
    mut values: Result<ValueStream, ClientError>,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut reopens_left = REOPENS_MAX;
    let (mut values, first) = loop {
        let outcome = match values {
            Ok(mut stream) => stream.next_piece().await.map(|piece| (stream, piece)),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(begun) => break begun,
            // A node may give up an answer that had to wait long for a big one before it.
            Err(ClientError::Broken { .. }) if reopens_left > 0 => reopens_left -= 1,
            Err(error) => return Err(error.into()),
        }
        values = client.get_value_stream(key, Page::default()).await;
    };
    let Some(mut piece) = first else {
        // Cleared since it was listed.
        return Ok(());
    };
    write!(out, "{{\"key\":{},\"value\":[\"", serde_json::to_string(key)?)?;
    let mut between = false;
    loop {
        if between {
            out.write_all(b",\"")?;
        }
        let quoted = serde_json::to_string(&piece.text)?;
        let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
        out.write_all(inner.as_bytes())?;
        bar.inc(piece.text.len() as u64);
        if piece.ends_value {
            out.write_all(b"\"")?;
        }
        between = piece.ends_value;
        match values.next_piece().await? {
            Some(next) => piece = next,
            None => break,
        }
    }
    Ok(out.write_all(b"]}\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake_node::{FakeNode, Fault};

    fn resume(content: &str) -> anyhow::Result<(String, Option<String>)> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("out.jsonl");
        fs::write(&path, content)?;
        let part = part_of(&path);
        let Opened { mut file, after, .. } = open(&path, &part, true)?;
        file.write_all(b"+")?;
        assert!(!path.exists(), "it is not whole");
        name_whole(&part, &path)?;
        Ok((fs::read_to_string(&path)?, after))
    }

    #[test]
    fn it_goes_on_after_the_last_whole_line() {
        let one = "{\"key\":\"a\",\"value\":[\"1\"]}\n";
        let two = "{\"key\":\"b\\n\\u00e9\",\"value\":[\"2\"]}\n";
        let cases = [
            (String::new(), "+".to_owned(), None),
            ("{\"key\":\"a\",\"val".to_owned(), "+".to_owned(), None),
            (one.to_owned(), format!("{one}+"), Some("a")),
            (format!("{one}{two}"), format!("{one}{two}+"), Some("b\n\u{e9}")),
            (
                format!("{one}{two}{{\"key\":\"c\""),
                format!("{one}{two}+"),
                Some("b\n\u{e9}"),
            ),
        ];
        for (before, expected, key) in cases {
            assert_eq!(resume(&before).unwrap(), (expected, key.map(str::to_owned)));
        }
    }

    #[tokio::test]
    async fn a_long_answer_that_had_to_wait_for_its_turn_is_asked_for_anew() {
        let node = FakeNode::start();
        node.with(|state| state.lists.insert("b".to_owned(), vec!["some value".to_owned()]));
        let client = node.client();
        // What the node gives up comes as far as the middle of a value.
        node.fail_next(Fault::CutAnswer(25));
        let asked = Asked::ask(&client, "b".to_owned()).await;
        tokio::time::pause();
        tokio::time::advance(AHEAD_MAX + Duration::from_secs(1)).await;
        tokio::time::resume();
        let mut out = Vec::new();
        write_asked(&client, asked, &mut out, &ProgressBar::hidden())
            .await
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"key\":\"b\",\"value\":[\"some value\"]}\n"
        );
    }

    #[test]
    fn a_file_that_is_no_export_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        for notes in [
            "some notes\nand more",
            "precious bytes",
            "{\"keys\"",
            "{\"key\":\"a\",\"value\":[\"1\"]}\nand more",
            " ",
        ] {
            fs::write(&path, notes).unwrap();
            let error = open(&path, &part_of(&path), true)
                .err()
                .unwrap_or_else(|| panic!("{notes}"));
            assert!(format!("{error:#}").contains("export"), "{error:#}");
            assert_eq!(fs::read_to_string(&path).unwrap(), notes);
        }
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, "x").unwrap();
        let part = part_of(&path);
        let error = open(&path, &part, false).err().unwrap();
        assert!(error.to_string().contains("--resume"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
        fs::rename(&path, &part).unwrap();
        let error = open(&path, &part, false).err().unwrap();
        assert!(
            error.to_string().contains("out.jsonl.part") && error.to_string().contains("--resume"),
            "{error}"
        );
        fs::write(&path, "y").unwrap();
        let error = open(&path, &part, true).err().unwrap();
        assert!(error.to_string().contains("out.jsonl.part"), "{error}");
        assert!(name_whole(&part, &path).unwrap_err().to_string().contains("meanwhile"));
        assert_eq!([&path, &part].map(|path| fs::read_to_string(path).unwrap()), ["y", "x"]);
    }
}
