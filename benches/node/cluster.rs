//! Three nodes of one cluster on this machine, each a process; what is done to them, and what they say of themselves.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use kv_storage::api::{self, MemberState};
use kv_storage::client::{Client, Consistency, entropy};
use kv_storage::config::{shards_default, threads_default};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Memory, PASSWORD, USER, free_address, memory_of, write_private};

pub const NODES: usize = 3;
const FOUND_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// A node that does not answer a probe within this does not serve.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Far more than the metrics of a node.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Killed when dropped; the nodes also stop by themselves when this process dies.
pub struct Cluster {
    pub nodes: Vec<Member>,
    folder: TempDir,
}

pub struct Member {
    pub http: SocketAddr,
    pub peer: SocketAddr,
    /// None for the one that founds the cluster.
    join: Vec<SocketAddr>,
    folder: PathBuf,
    number: usize,
    process: Option<Child>,
}

impl Cluster {
    /// Waits until each of them sees all as members that hold what they should.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        write_private(&folder.path().join("password"), PASSWORD)?;
        write_private(&folder.path().join("key"), &entropy::hex::<32>())?;
        let peers = (0..NODES).map(|_| free_address()).collect::<Result<Vec<_>, _>>()?;
        let mut nodes = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            let others = peers.iter().filter(|other| *other != peer).copied();
            nodes.push(Member {
                http: free_address()?,
                peer: *peer,
                join: if index == 0 { Vec::new() } else { others.collect() },
                folder: folder.path().to_owned(),
                number: index + 1,
                process: None,
            });
        }
        let mut cluster = Self { nodes, folder };
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.wait_until_whole().await?;
        Ok(cluster)
    }

    async fn wait_until_whole(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        for index in 0..self.nodes.len() {
            loop {
                let node = &mut self.nodes[index];
                node.check_that_it_runs()?;
                let status = node.status().await;
                if status.as_ref().is_some_and(is_whole) {
                    break;
                }
                anyhow::ensure!(
                    started.elapsed() < FOUND_TIMEOUT,
                    "the nodes did not find each other: {status:?}; their logs:\n{}",
                    self.logs()
                );
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    pub fn http(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.http).collect()
    }

    /// Knows all nodes, and asks that of this index first.
    pub fn client(&self, first: usize) -> anyhow::Result<Client> {
        let all = self.nodes.iter().cycle().skip(first).take(self.nodes.len());
        let builder = Client::builder().urls(all.map(|node| node.http.to_string()));
        Ok(builder.user(USER).password(PASSWORD).build()?)
    }

    /// The last lines that each node logged.
    pub fn logs(&self) -> String {
        let log = |node: &Member| {
            let text = fs::read_to_string(node.log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(10)..].join("\n");
            format!("node {}:\n{tail}\n", node.number)
        };
        self.nodes.iter().map(log).collect()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn is_whole(status: &api::ClusterStatus) -> bool {
    let whole = |member: &api::Member| {
        member.state == MemberState::Up && member.alive && member.unsynced_slots == Some(0) && member.slots > 0
    };
    status.members.len() == NODES && status.members.iter().all(whole)
}

impl Member {
    /// From the outside only: whether it serves is another question.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.log())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
        command
            .args(["serve", "--stop-with-parent", "--log-filter", "warn", "--data"])
            .arg(self.folder.join(format!("node-{}", self.number)))
            .args(["--listen", &self.http.to_string()])
            .args(["--cluster-listen", &self.peer.to_string(), "--cluster-key-file"])
            .arg(self.folder.join("key"));
        if std::env::var_os("KV_SHARDS").is_none() {
            command.args(["--shards", &shards_default(NODES).to_string()]);
        }
        if std::env::var_os("KV_THREADS").is_none() {
            command.args(["--threads", &threads_default(NODES).to_string()]);
        }
        for other in &self.join {
            command.args(["--join", &other.to_string()]);
        }
        if self.join.is_empty() {
            command
                .args(["--user", USER, "--password-file"])
                .arg(self.folder.join("password"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().context("a node did not start")?);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("node-{}.log", self.number))
    }

    fn check_that_it_runs(&mut self) -> anyhow::Result<()> {
        let ended = self.process.as_mut().map(Child::try_wait).transpose()?.flatten();
        let log = || fs::read_to_string(self.log()).unwrap_or_default();
        anyhow::ensure!(ended.is_none(), "node {} ended by itself:\n{}", self.number, log());
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// SIGSTOP: its sockets stay open, and nothing answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(kill_process(pid.context("the node does not run")?, signal)?)
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        memory_of(self.pid().context("the node does not run")?)
    }

    /// Asks this node alone, and believes what it holds by itself.
    pub fn client(&self) -> anyhow::Result<Client> {
        let builder = Client::builder().url(self.http.to_string()).retries(0);
        let builder = builder.consistency(Consistency::One).timeout(Duration::from_secs(5));
        Ok(builder.user(USER).password(PASSWORD).build()?)
    }

    /// None when it does not answer.
    pub async fn status(&self) -> Option<api::ClusterStatus> {
        let client = self.client().ok()?;
        tokio::time::timeout(PROBE_TIMEOUT, client.cluster_status())
            .await
            .ok()?
            .ok()
    }

    /// Whether it says that it lacks nothing.
    pub async fn says_it_is_in_sync(&self) -> bool {
        let Some(status) = self.status().await else {
            return false;
        };
        let own = status.members.iter().find(|member| member.node == status.node);
        own.is_some_and(|own| own.lag_ops == Some(0) && own.unsynced_slots == Some(0))
    }

    pub async fn is_ready(&self) -> bool {
        let answer = http_get(self.http, api::path::READYZ);
        matches!(tokio::time::timeout(PROBE_TIMEOUT, answer).await, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// Head and body.
pub async fn http_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}
