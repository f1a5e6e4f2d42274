//! `kv keys`: all of the user's keys, page by page.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use crate::api::{KeyList, LIST_KEYS_LIMIT_MAX};
use crate::client::{Client, ClientError};

use super::connection::{Connection, KeyConnectionArgs};
use super::output::output;
use super::shown::{json_for_stdout, shown};

/// Shown at the end of the help.
pub const LINES_HELP: &str = "\
A key may hold any character, line ends too. On a terminal, keys with control characters are printed quoted and escaped; elsewhere as they are, \
so scripts do better with --json.";

#[derive(Debug, clap::Args)]
pub struct KeysArgs {
    /// Only keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// Keys to print at most, 1 or more [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Only keys that come after this one, in byte order
    #[arg(long)]
    pub after: Option<String>,
    /// Print the API's answers, one page a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: KeyConnectionArgs,
}

pub async fn run(args: KeysArgs) -> anyhow::Result<()> {
    let connection = Connection::to_keys(&args.connection)?;
    let mut pages = KeyPages::new(&connection.client, args.prefix.clone(), args.after.clone(), args.limit);
    let on_terminal = io::stdout().is_terminal();
    let mut out = output();
    loop {
        let page = pages.next().await.map_err(|error| connection.explain(error.into()))?;
        let Some(page) = page else {
            return Ok(());
        };
        if args.json {
            writeln!(out, "{}", json_for_stdout(&serde_json::to_string(&page)?))?;
        } else {
            for key in &page.keys {
                writeln!(out, "{}", line(key, on_terminal))?;
            }
        }
        out.flush()?;
    }
}

fn line(key: &str, on_terminal: bool) -> Cow<'_, str> {
    match on_terminal {
        true => shown(key),
        false => Cow::Borrowed(key),
    }
}

/// The pages of a listing, in order; at least one.
pub struct KeyPages<'a> {
    client: &'a Client,
    prefix: Option<String>,
    after: Option<String>,
    left: Option<u64>,
    ended: bool,
}

impl<'a> KeyPages<'a> {
    pub fn new(client: &'a Client, prefix: Option<String>, after: Option<String>, limit: Option<u64>) -> Self {
        Self {
            client,
            prefix,
            after,
            left: limit,
            ended: limit == Some(0),
        }
    }

    pub async fn next(&mut self) -> Result<Option<KeyList>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let limit = self.left.unwrap_or(LIST_KEYS_LIMIT_MAX).min(LIST_KEYS_LIMIT_MAX);
        let prefix = self.prefix.as_deref();
        let page = self
            .client
            .list_keys(prefix, self.after.as_deref(), Some(limit))
            .await?;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(page.keys.len() as u64);
        }
        // A page that does not move on would be asked for again without end.
        self.ended = page.after.is_none() || page.after == self.after || self.left == Some(0);
        self.after.clone_from(&page.after);
        Ok(Some(page))
    }
}
