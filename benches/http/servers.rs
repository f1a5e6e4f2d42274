//! The servers: each a process of its own on a port of its own, with its files in a temporary folder on the same disk.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use kv_storage::api;
use kv_storage::bench::{Load, Operation, Payload, Protocol, Report};
use kv_storage::client::Client;
use tempfile::TempDir;

use super::etcd::{Etcd, Reads};
use super::install::install;
use super::machine::{self, Cpu};
use super::node::{self, PASSWORD, USER, free_address};
use super::resp::Redis;
use super::{bare, drive};

const START_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kv,
    Bare,
    Redis,
    Etcd,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Kv, Self::Bare, Self::Redis, Self::Etcd];

    fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Bare => "bare hyper",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
        }
    }
}

/// A running server; killed when dropped.
pub struct Server {
    kind: Kind,
    pub address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All that can be had. The node comes first.
pub fn start_all() -> anyhow::Result<Vec<Server>> {
    let only = std::env::var("KV_BENCH_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        if !only.is_empty() && !only.contains(&kind.name()) {
            continue;
        }
        match start(kind) {
            Ok(server) => servers.push(server),
            // A rival that is not there is left out, and said so; without the node there is nothing to measure.
            Err(error) if matches!(kind, Kind::Redis | Kind::Etcd) => {
                eprintln!("left out: {} cannot be had: {error:#}", kind.name());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(servers)
}

fn start(kind: Kind) -> anyhow::Result<Server> {
    // Beside the build, which is on a real disk: the system's folder for temporary files may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (process, address) = match kind {
        Kind::Kv => start_kv(folder.path()),
        Kind::Bare => start_bare(),
        Kind::Redis => start_redis(folder.path()),
        Kind::Etcd => start_etcd(folder.path()),
    }
    .with_context(|| format!("{} did not start", kind.name()))?;
    let mut server = Server {
        kind,
        address,
        process,
        _folder: folder,
    };
    server.wait_until_it_listens()?;
    Ok(server)
}

fn start_kv(folder: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    let password_file = folder.join("password");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&password_file)?;
    file.write_all(PASSWORD.as_bytes())?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log-filter",
            "warn",
            "--user",
            USER,
        ])
        .arg("--password-file")
        .arg(&password_file)
        .arg("--data")
        .arg(folder.join("data"));
    let (process, line) = start_and_read_line(&mut command)?;
    let address = line
        .split_once("http://")
        .and_then(|(_, rest)| rest.split([',', ' ']).next())
        .and_then(|address| address.parse().ok());
    Ok((process, address.with_context(|| format!("no address in {line:?}"))?))
}

fn start_bare() -> anyhow::Result<(Child, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    let (process, line) = start_and_read_line(command.arg(bare::ARGUMENT))?;
    let address = line
        .strip_prefix(bare::READY)
        .and_then(|address| address.trim().parse().ok());
    Ok((process, address.with_context(|| format!("no address in {line:?}"))?))
}

fn start_and_read_line(command: &mut Command) -> anyhow::Result<(Child, String)> {
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let stdout = process.stdout.take().context("no standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((process, line))
}

/// Every `RPUSH` is synced before its answer; no snapshots.
fn start_redis(folder: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    install("redis-server", "redis-server")?;
    let address = free_address()?;
    let process = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
        .args(["--daemonize", "no", "--loglevel", "warning", "--dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    Ok((process, address))
}

/// As it comes: every `put` is synced before its answer.
fn start_etcd(folder: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    install("etcd", "etcd-server")?;
    let (address, peer) = (free_address()?, free_address()?);
    let (client_url, peer_url) = (format!("http://{address}"), format!("http://{peer}"));
    let process = Command::new("etcd")
        .args(["--name", "bench", "--log-level", "error", "--initial-cluster"])
        .arg(format!("bench={peer_url}"))
        .args([
            "--listen-client-urls",
            &client_url,
            "--advertise-client-urls",
            &client_url,
        ])
        .args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
        ])
        .args(["--quota-backend-bytes", "8589934592", "--data-dir"])
        .arg(folder.join("etcd"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((process, address))
}

impl Server {
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        machine::cpu_of(self.process.id())
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                anyhow::bail!("{} ended while it started: {status}", self.name());
            }
            anyhow::ensure!(started.elapsed() < START_TIMEOUT, "{} does not listen", self.name());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn drive(&self, load: &Load, payload: &Payload) -> anyhow::Result<Report> {
        match self.kind {
            Kind::Kv | Kind::Bare => {
                let protocol = node::protocol(self.address, payload)?;
                drive(load, || protocol.clone())
            }
            Kind::Redis => drive(load, || Redis::new(payload.clone())),
            Kind::Etcd => drive(load, || {
                Etcd::new(self.address.to_string(), payload.clone(), Reads::Linearizable)
            }),
        }
    }

    /// Whether it has lists: etcd keeps one value a key, so to get it is less work.
    pub fn has_lists(&self) -> bool {
        self.kind != Kind::Etcd
    }

    /// Adds `list_length` values to each key.
    pub fn fill(&self, payload: &Payload, keys: u64, list_length: u64) -> anyhow::Result<()> {
        match self.kind {
            Kind::Bare | Kind::Etcd => Ok(()),
            Kind::Kv => self.fill_kv(payload, keys, list_length),
            Kind::Redis => self.fill_redis(payload, keys, list_length),
        }
    }

    fn fill_kv(&self, payload: &Payload, keys: u64, list_length: u64) -> anyhow::Result<()> {
        let client = Client::builder()
            .url(self.address.to_string())
            .user(USER)
            .password(PASSWORD)
            .build()?;
        let add = |number: u64| api::Operation::AddValue {
            key: payload.key_text(number % keys).into(),
            value: payload.value_text(number).into(),
            finish_value: true,
            request_id: None,
            terms: api::OperationTerms::default(),
        };
        tokio::runtime::Runtime::new()?.block_on(async {
            for bundle in bundles(keys * list_length) {
                let mut adds: Vec<_> = bundle.map(add).collect();
                for result in client.batch(&mut adds).await? {
                    result?;
                }
            }
            Ok(())
        })
    }

    /// Requests are sent in bundles, which Redis answers in order.
    fn fill_redis(&self, payload: &Payload, keys: u64, list_length: u64) -> anyhow::Result<()> {
        let mut protocol = Redis::new(payload.clone());
        let mut stream = TcpStream::connect(self.address)?;
        let (mut output, mut input) = (Vec::new(), vec![0; 64 * 1024]);
        for bundle in bundles(keys * list_length) {
            let mut expected = bundle.end - bundle.start;
            output.clear();
            for number in bundle {
                protocol.request(Operation::Add, number % keys, number, &mut output);
            }
            stream.write_all(&output)?;
            let mut filled = 0;
            while expected > 0 {
                let received = stream.read(&mut input[filled..])?;
                anyhow::ensure!(received > 0, "it closed the connection");
                filled += received;
                let mut used = 0;
                loop {
                    let step = protocol.advance(&input[used..filled])?;
                    used += step.consumed;
                    let Some(answer) = step.answer else { break };
                    anyhow::ensure!(answer.status == 200, "it refused an add");
                    expected -= 1;
                }
                input.copy_within(used..filled, 0);
                filled -= used;
            }
        }
        Ok(())
    }
}

/// Numbers up to `end`, so many at a time that a bundle's answers fit into a socket's buffer.
fn bundles(end: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    const BUNDLE: u64 = 1_000;
    (0..end)
        .step_by(BUNDLE as usize)
        .map(move |start| start..(start + BUNDLE).min(end))
}
