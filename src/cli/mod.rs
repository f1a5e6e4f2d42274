//! The command line: `kv`.
//!
//! | file | what it is |
//! | --- | --- |
//! | `add`, `get`, `keys` | values and keys |
//! | `export`, `import` | JSON Lines out and in |
//! | `users`, `cluster` | users; members and the cluster key |
//! | `serve`, `launch`, `run_cluster` | running a node, and a whole store on this machine |
//! | `segment` | looking into the files of a data folder |
//! | `bench` | measuring a running node |
//! | `connection`, `environment` | from flags, environment and profile to a client |
//! | `secret`, `prompt` | passwords from files and from a terminal |
//! | `text_source`, `output` | long texts in, results out |
//! | `shown`, `progress` | names and values on a terminal; what a person is told, and progress |
//! | `exit`, `stop` | exit codes; the signals that end a command |
//!
//! Invariant: standard output carries results only; every failure is a sentence on standard error and an exit code.
#![expect(
    clippy::disallowed_methods,
    reason = "the command line is the edge: it runs in the user's shell, not inside a node"
)]

mod add;
mod bench;
mod cluster;
mod connection;
mod environment;
mod exit;
mod export;
mod get;
mod import;
mod keys;
mod launch;
mod output;
mod progress;
mod prompt;
mod run_cluster;
mod secret;
mod segment;
mod serve;
mod shown;
mod stop;
mod text_source;
mod users;

use std::io::Write;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::threads_default;
use connection::before_command::{Before, Flags};
use environment::with_environment;
use exit::Exit;
use output::output;

/// Name of the program in help and completions.
const PROGRAM: &str = "kv";
const FLAGS_HELP: &str = "The flags of a connection, such as --url, may stand before the command as well.";

#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    about = "A distributed key-value store: a key holds a list of text values, per user",
    after_help = format!("{FLAGS_HELP}\n\n{}", exit::EXIT_CODES_HELP)
)]
pub struct Cli {
    #[command(flatten)]
    before: Before,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Append a value to a key's list
    #[command(name = "add_value", alias = "add-value", after_help = add::LINE_END_HELP)]
    AddValue(add::AddArgs),
    /// Append a part to the value that the next add_value of the key finishes
    #[command(name = "add_value_part", alias = "add-value-part", after_help = add::LINE_END_HELP)]
    AddValuePart(add::AddArgs),
    /// Print a key's values, one a line
    #[command(name = "get_value", alias = "get-value", after_help = get::TERMINAL_HELP)]
    GetValue(get::GetArgs),
    /// Remove all values and unfinished parts of a key
    #[command(name = "clear_key", alias = "clear-key")]
    ClearKey(get::ClearArgs),
    /// Print the keys, one a line
    #[command(after_help = keys::LINES_HELP)]
    Keys(keys::KeysArgs),
    /// Manage who may use the store
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// Look at and change the nodes of a cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Write keys and values as JSON Lines: {"key":…,"value":[…]} for each key
    Export(export::ExportArgs),
    /// Add the keys and values of a file of JSON Lines, as export writes it
    Import(import::ImportArgs),
    /// Run a node
    Serve(Box<serve::ServeArgs>),
    /// Run a store on this machine, with its files, a user and a profile in one folder
    #[command(name = "run-cluster")]
    RunCluster(run_cluster::RunClusterArgs),
    /// Look into the files of a data folder
    #[command(subcommand)]
    Segment(segment::SegmentCommand),
    /// Measure a running node: throughput and latencies under a load of your choice
    Bench(bench::BenchArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// None when it asks no node.
    fn connection(&mut self) -> Option<Flags<'_>> {
        Some(match self {
            Self::AddValue(args) | Self::AddValuePart(args) => (&mut args.connection).into(),
            Self::GetValue(args) => (&mut args.connection).into(),
            Self::ClearKey(args) => (&mut args.connection).into(),
            Self::Keys(args) => (&mut args.connection).into(),
            Self::Export(args) => (&mut args.connection).into(),
            Self::Import(args) => (&mut args.connection).into(),
            Self::Bench(args) => (&mut args.connection).into(),
            Self::Users(command) => command.connection().into(),
            Self::Cluster(command) => command.connection()?.into(),
            Self::Serve(_) | Self::RunCluster(_) | Self::Segment(_) | Self::Completions { .. } => return None,
        })
    }
}

/// What a command line asks for, and how many threads it is run by.
struct Job {
    threads: usize,
    run: Pin<Box<dyn Future<Output = anyhow::Result<ExitCode>>>>,
}

impl Job {
    fn of(command: Command) -> anyhow::Result<Self> {
        Ok(match command {
            Command::AddValue(args) => Self::done(add::run(args, true)),
            Command::AddValuePart(args) => Self::done(add::run(args, false)),
            Command::GetValue(args) => Self::done(get::get(args)),
            Command::ClearKey(args) => Self::done(get::clear(args)),
            Command::Keys(args) => Self::done(keys::run(args)),
            Command::Users(command) => Self::done(users::run(command)),
            Command::Cluster(command) => Self::done(cluster::run(command)),
            Command::Export(args) => Self::done(export::run(args)),
            Command::Import(args) => Self::done(import::run(args)),
            Command::Serve(args) => {
                let stop_with_parent = args.stop_with_parent;
                let config = with_environment(|variable| args.into_config(variable))?;
                Self {
                    threads: config.threads,
                    run: Box::pin(serve::run(config, stop_with_parent)),
                }
            }
            Command::RunCluster(args) => Self::ended(run_cluster::run(args)),
            Command::Segment(command) => Self::done(async { segment::run(command) }),
            Command::Bench(args) => Self::done(bench::run(args)),
            Command::Completions { shell } => Self::done(async move { completions(shell) }),
        })
    }

    fn done(run: impl Future<Output = anyhow::Result<()>> + 'static) -> Self {
        Self::ended(async { run.await.map(|()| Exit::Done.into()) })
    }

    fn ended(run: impl Future<Output = anyhow::Result<ExitCode>> + 'static) -> Self {
        Self {
            threads: threads_default(1),
            run: Box::pin(run),
        }
    }

    fn run(self) -> anyhow::Result<ExitCode> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(self.threads).enable_all().build();
        let runtime = runtime.context("cannot start")?;
        let outcome = runtime.block_on(self.run);
        // What still runs has nobody left to tell; waiting for it could take forever.
        runtime.shutdown_background();
        outcome
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    // Wrong usage ends here, with clap's message and exit code 2.
    let cli = Cli::of(&Cli::command().get_matches()).unwrap_or_else(|error| error.exit());
    match Job::of(cli.command).and_then(Job::run) {
        Ok(code) => code,
        Err(error) => exit::report(&error).into(),
    }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    let mut out = output();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_original_are_taken_under_their_own_names_and_with_dashes() {
        for line in [
            "kv add_value my_key my_value",
            "kv add_value_part my_key partial_value",
            "kv get_value my_key",
            "kv clear_key my_key",
            "kv add-value my_key my_value",
            "kv add-value-part my_key partial_value",
            "kv get-value my_key",
            "kv clear-key my_key",
        ] {
            parse(line).expect(line);
        }
    }

    #[test]
    fn a_value_may_be_a_negative_number_or_begin_with_a_dash_after_two() {
        for line in [
            "kv add_value k -5",
            "kv add_value k -",
            "kv add_value k -- --flag",
            "kv add_value k --file f",
            "kv keys --consistency one",
            "kv run-cluster --listen localhost:9350",
        ] {
            parse(line).expect(line);
        }
    }

    #[test]
    fn wrong_usage_ends_with_code_two() {
        for line in [
            "kv",
            "kv add_value k",
            "kv add_value k v --file f",
            "kv add_value k --fil",
            "kv get_value k --count --limit 1",
            "kv keys --limit 0",
            "kv users list --consistency one",
            "kv cluster status --consistency one",
            "kv run-cluster --nodes x",
            "kv run-cluster --listen 8000",
            "kv users",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_lists_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for code in ["0  done", "3  no node", "6  the node is overloaded"] {
            assert!(help.contains(code), "{help}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), PROGRAM, &mut script);
        assert!(String::from_utf8(script).unwrap().contains("add_value_part"));
    }
}
