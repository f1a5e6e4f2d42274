//! `kv get_value` and `kv clear_key`.
//!
//! Invariant: standard output carries values and nothing else, and memory does not grow with them.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use indicatif::ProgressBar;

use crate::api::{Count, STATUS_OK};
use crate::client::Page;

use super::add::print_status;
use super::connection::{Connection, KeyConnectionArgs};
use super::output::output;
use super::progress;
use super::shown::{Characters, shown_json, shown_value};

/// Shown at the end of the help.
pub const TERMINAL_HELP: &str = "\
One value a line; nothing for a key without values, which is no failure. On a terminal, control characters in values are printed escaped, but for line ends and tabs; elsewhere values are printed as they \
are, and since they may hold line ends, scripts do better with --json.";

#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// The key
    pub key: String,
    /// Values to skip
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub offset: u64,
    /// Values to print at most
    #[arg(long)]
    pub limit: Option<u64>,
    /// Print how many values there are, not the values
    #[arg(long, conflicts_with_all = ["offset", "limit"])]
    pub count: bool,
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: KeyConnectionArgs,
}

#[derive(Debug, clap::Args)]
pub struct ClearArgs {
    /// The key
    pub key: String,
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: KeyConnectionArgs,
}

pub async fn get(args: GetArgs) -> anyhow::Result<()> {
    let connection = Connection::to_keys(&args.connection)?;
    let outcome = if args.count {
        count(&connection, &args).await
    } else if args.json {
        copy_answer(&connection, &args).await
    } else {
        print_values(&connection, &args).await
    };
    outcome.map_err(|error| connection.explain(error))
}

pub async fn clear(args: ClearArgs) -> anyhow::Result<()> {
    let connection = Connection::to_keys(&args.connection)?;
    let cleared = connection.client.clear_key(&args.key).await;
    let doubt = "see with `kv get_value` what is left; another clear removes what was added since, too";
    cleared.map_err(|error| connection.explain_change(error, doubt))?;
    print_status(STATUS_OK, args.json)
}

async fn count(connection: &Connection, args: &GetArgs) -> anyhow::Result<()> {
    let count = connection.client.count(&args.key).await?;
    let mut out = output();
    if args.json {
        let key = args.key.clone();
        writeln!(out, "{}", serde_json::to_string(&Count { key, count })?)?;
    } else {
        writeln!(out, "{count}")?;
    }
    Ok(out.flush()?)
}

async fn copy_answer(connection: &Connection, args: &GetArgs) -> anyhow::Result<()> {
    let mut body = connection.client.get_value_body(&args.key, page(args)).await?;
    let mut out = output();
    let bar = LateBar::new();
    let on_terminal = io::stdout().is_terminal();
    let mut characters = Characters::default();
    while let Some(chunk) = body.next().await? {
        match on_terminal {
            true => out.write_all(shown_json(&characters.of(&chunk)).as_bytes())?,
            false => out.write_all(&chunk)?,
        }
        bar.advance(chunk.len());
    }
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

async fn print_values(connection: &Connection, args: &GetArgs) -> anyhow::Result<()> {
    let mut values = connection.client.get_value_stream(&args.key, page(args)).await?;
    let mut out = output();
    let bar = LateBar::new();
    let on_terminal = io::stdout().is_terminal();
    while let Some(piece) = values.next_piece().await? {
        let text = match on_terminal {
            true => shown_value(&piece.text),
            false => Cow::Borrowed(&*piece.text),
        };
        out.write_all(text.as_bytes())?;
        if piece.ends_value {
            out.write_all(b"\n")?;
        }
        bar.advance(piece.text.len());
    }
    out.flush()?;
    Ok(())
}

fn page(args: &GetArgs) -> Page {
    Page {
        offset: args.offset,
        limit: args.limit,
    }
}

/// A spinner that shows itself once there is much to wait for, and never when the values go to the terminal themselves.
struct LateBar(ProgressBar);

impl LateBar {
    fn new() -> Self {
        Self(ProgressBar::hidden())
    }

    fn advance(&self, bytes: usize) {
        self.0.inc(bytes as u64);
        if self.0.is_hidden() && self.0.position() >= progress::SHOWN_FROM_BYTES && !io::stdout().is_terminal() {
            progress::show_on_stderr(&self.0);
        }
    }
}

impl Drop for LateBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
