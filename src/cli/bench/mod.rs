//! `kv bench`: measures a running node from outside.

mod preload;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::bench::{Distribution, KvProtocol, KvTarget, Load, Mix, Operation, Payload, Report, Second, run_or_stop};
use crate::cli::connection::{Connection, KeyConnectionArgs};
use crate::cli::exit::usage;
use crate::cli::output::output;
use crate::cli::progress;
use crate::cli::stop::Stopped;
use crate::client::{ClientError, Failure, password_hash};
use crate::types::{BODY_BYTES_MAX, KEY_BYTES_MAX};

use preload::Preload;

/// Of a body, this much is left to key, credentials and JSON.
const BODY_BYTES_SPARE: usize = 64 * 1024;
const VALUE_BYTES_MAX: u64 = (BODY_BYTES_MAX - BODY_BYTES_SPARE) as u64;
/// Longest wait for one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Digits of a key's number.
const KEYS_MAX: u64 = 999_999_999_999;
/// Longest run, seconds: a week.
const DURATION_S_MAX: f64 = 7.0 * 86_400.0;
const RATE_PER_S_MAX: f64 = 1e9;
/// How many values a key gets before gets are measured.
const LIST_LENGTH_DEFAULT: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Add values
    Add,
    /// Get whole lists
    Get,
    /// As many gets as adds
    Mixed,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
First each key gets its list (--list-length), then the load runs, and the table says how many operations of each kind were done, and in what time. \
The load is spread over all addresses that can be reached at its start, and tries nothing again; --deadline holds for the lists only, and --timeout is how \
long the last answers are waited for. Ctrl-C ends the load early, with the table of what was measured by then (code 1).")]
pub struct BenchArgs {
    /// What is sent
    #[arg(long, value_enum, default_value = "mixed", conflicts_with = "mix")]
    pub op: Kind,
    /// What is sent, in shares such as add=50,get=45,clear=5
    #[arg(long, value_name = "SHARES")]
    pub mix: Option<Mix>,
    /// Number of keys that are used
    #[arg(long, default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub keys: u64,
    /// What the names of the keys begin with. Their values stay: run it as a user of its own, who can be removed afterwards
    #[arg(long, value_name = "TEXT", default_value = "bench-")]
    pub key_prefix: String,
    /// How often each key is used: uniform, zipf or zipf:THETA
    #[arg(long, default_value = "uniform")]
    pub distribution: Distribution,
    /// Length of the values
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = clap::value_parser!(u64).range(0..=VALUE_BYTES_MAX))]
    pub value_bytes: u64,
    /// Values that each key has before the start; what is missing is added [default: 4 with gets, else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub list_length: Option<u64>,
    /// Connections, each with one request at a time
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,
    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    pub duration: Duration,
    /// Seconds before that, which are not
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
    pub warmup: Duration,
    /// Operations a second over all connections, due at even distances and timed from when they were due [default: as
    /// many as the connections can]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// Which keys, values and operations chance picks
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// Print the result as JSON, with every second of the run
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: KeyConnectionArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=DURATION_S_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("write a number of seconds, at most {DURATION_S_MAX}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= RATE_PER_S_MAX => Ok(rate),
        _ => Err(format!(
            "write a number of operations, more than 0 and at most {RATE_PER_S_MAX}"
        )),
    }
}

impl BenchArgs {
    pub fn operations(&self) -> Mix {
        self.mix.unwrap_or(match self.op {
            Kind::Add => Mix::only(Operation::Add),
            Kind::Get => Mix::only(Operation::Get),
            Kind::Mixed => Mix::half_and_half(),
        })
    }

    pub fn list_length(&self) -> u64 {
        let gets = self.operations().holds(Operation::Get);
        self.list_length.unwrap_or(if gets { LIST_LENGTH_DEFAULT } else { 0 })
    }

    fn payload(&self) -> anyhow::Result<Payload> {
        // The parser has seen to it that the number is small.
        let payload = Payload::new(&self.key_prefix, self.value_bytes as usize, self.seed);
        if payload.key_bytes() > KEY_BYTES_MAX {
            return Err(usage(format!(
                "--key-prefix: the keys would have {} bytes; at most {KEY_BYTES_MAX} are allowed",
                payload.key_bytes()
            )));
        }
        Ok(payload)
    }
}

pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    if args.duration.is_zero() {
        return Err(usage("--duration: nothing is measured in 0 seconds"));
    }
    let connection = Connection::to_keys(&args.connection)?;
    let payload = args.payload()?;
    let hosts = Hosts::look_up(&connection).await?;
    // Even without any: it shows whether node and credentials are good.
    let preload = Preload::new(&connection.client, &payload, args.keys, args.list_length());
    preload.run().await.map_err(|error| connection.explain(error))?;
    let load = Load {
        addresses: hosts.addresses(),
        connections: usize::from(args.connections),
        warmup: args.warmup,
        duration: args.duration,
        rate_per_s: args.rate,
        mix: args.operations(),
        keys: args.keys,
        distribution: args.distribution,
        seed: args.seed,
        drain: Duration::from_secs(args.connection.common.timeout),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let mut measured = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || measure(&load, &hosts, &payload, &stop))
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let report = tokio::select! {
        biased;
        _ = interrupt.recv() => {
            // What was measured is told all the same; who does not want to wait for that says so once more.
            stop.store(true, Ordering::Relaxed);
            tokio::select! {
                biased;
                _ = interrupt.recv() => return Err(Stopped("SIGINT").into()),
                report = &mut measured => report,
            }
        }
        report = &mut measured => report,
    };
    let report = report.context("the load generator failed")??;
    let mut out = output();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    match stop.load(Ordering::Relaxed) {
        true => Err(Stopped("SIGINT").into()),
        false => Ok(()),
    }
}

fn measure(load: &Load, hosts: &Hosts, payload: &Payload, stop: &AtomicBool) -> anyhow::Result<Report> {
    let mut protocols = Vec::new();
    for (address, target) in &hosts.0 {
        protocols.push((*address, KvProtocol::new(target, payload.clone())?));
    }
    let (_, first) = protocols.first().context("no address of a node")?.clone();
    let protocol = |address: SocketAddr| {
        let of_address = protocols.iter().find(|(other, _)| *other == address);
        of_address.map_or_else(|| first.clone(), |(_, protocol)| protocol.clone())
    };
    let line = progress::text_line();
    let report = run_or_stop(load, protocol, |second| show(&line, second), stop);
    line.finish_and_clear();
    Ok(report?)
}

/// The live line.
fn show(line: &ProgressBar, second: &Second) {
    line.set_message(format!("{second}"));
}

/// The first address that somebody listens at: the node may do so at one of its host's only.
async fn reach(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<SocketAddr> {
    let mut failed = io::Error::other("the name has no address");
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(address),
            Ok(Err(error)) => failed = error,
            Err(late) => failed = late.into(),
        }
    }
    Err(failed)
}

/// The nodes that can be reached, found once, so that looking names up does not count.
#[derive(Debug)]
struct Hosts(Vec<(SocketAddr, KvTarget)>);

impl Hosts {
    async fn look_up(connection: &Connection) -> anyhow::Result<Self> {
        let target = &connection.target;
        let (mut hosts, mut tried) = (Vec::new(), Vec::new());
        for url in &target.urls.value {
            let place = || format!("{url} (from {})", target.urls.from);
            let with_scheme = if url.contains("://") {
                url.clone()
            } else {
                format!("http://{url}")
            };
            let uri: hyper::Uri = with_scheme.parse().with_context(place)?;
            let authority = uri.authority().with_context(place)?;
            let host = authority.host().trim_matches(['[', ']']);
            let port = authority.port_u16().unwrap_or(80);
            let reached = match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => reach(addresses).await,
                Err(error) => Err(error),
            };
            let address = match reached {
                Ok(address) => address,
                Err(error) => {
                    let (url, reason) = (url.clone(), error.to_string());
                    tried.push(Failure { url, reason });
                    continue;
                }
            };
            let node = KvTarget {
                authority: authority.to_string(),
                base_path: uri.path().trim_end_matches('/').to_owned(),
                user_id: target.user.value.clone(),
                password_hash: password_hash(&target.password.value),
                consistency: target.consistency,
            };
            hosts.push((address, node));
        }
        if hosts.is_empty() {
            return Err(connection.explain(ClientError::Unreachable { tried }.into()));
        }
        for Failure { url, reason } in tried {
            progress::say(&format!("warning: nothing is sent to {url}: {reason}"));
        }
        Ok(Self(hosts))
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|(address, _)| *address).collect()
    }
}

#[cfg(test)]
mod tests;
