//! A node in a process of its own.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::cli::serve::{self, CONFIG_VARIABLE};
use crate::config::Setting;

use super::folder::DEMO_USER;

/// Of a dead node's log, so much is shown.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

/// What is started as a node: normally this program itself.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    pub first_args: Vec<String>,
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// From 1.
    pub number: usize,
    pub data: PathBuf,
    pub log: PathBuf,
    pub listen: SocketAddr,
    /// Where nothing else is asked for in the environment.
    pub shards: Option<u16>,
    pub threads: Option<usize>,
    /// The demo user's, when this node is the one that makes it.
    pub password_file: Option<PathBuf>,
    /// The file of the key, and where the other nodes reach this one. None: it is alone.
    pub cluster: Option<(PathBuf, SocketAddr)>,
    pub join: Vec<SocketAddr>,
}

/// Whether what the environment says of a setting is meant for the nodes here too. The rest says what one node is among others, and these
/// nodes are told that by this program.
fn is_of_every_node(setting: Setting) -> bool {
    match setting {
        Setting::Shards
        | Setting::Threads
        | Setting::BlockCacheBytes
        | Setting::ActiveSegmentBytes
        | Setting::LogFormat
        | Setting::LogFilter => true,
        Setting::Data
        | Setting::Listen
        | Setting::User
        | Setting::PasswordFile
        | Setting::ClusterListen
        | Setting::Advertise
        | Setting::Join
        | Setting::ClusterKeyFile
        | Setting::ClusterTls
        | Setting::Zone
        | Setting::Weight
        | Setting::Replication
        | Setting::ClusterName => false,
    }
}

impl Start {
    pub fn command(&self, program: &Program) -> Command {
        let mut command = Command::new(&program.path);
        command.env_remove(CONFIG_VARIABLE);
        for setting in Setting::ALL.into_iter().filter(|setting| !is_of_every_node(*setting)) {
            command.env_remove(setting.variable());
        }
        command
            .args(&program.first_args)
            .arg("serve")
            .arg("--data")
            .arg(&self.data)
            .arg("--listen")
            .arg(self.listen.to_string())
            .arg("--stop-with-parent");
        if let Some(shards) = self.shards {
            command.arg("--shards").arg(shards.to_string());
        }
        if let Some(threads) = self.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        if let Some(password_file) = &self.password_file {
            command
                .args(["--user", DEMO_USER, "--password-file"])
                .arg(password_file);
        }
        if let Some((key, peer)) = &self.cluster {
            command.arg("--cluster-key-file").arg(key);
            command.arg("--cluster-listen").arg(peer.to_string());
            for other in &self.join {
                command.arg("--join").arg(other.to_string());
            }
        }
        command
    }
}

pub struct NodeProcess {
    pub number: usize,
    child: Child,
    /// The pipe that the node watches; `Child::wait` would close it, so it is kept apart.
    _alive: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl NodeProcess {
    pub fn spawn(start: &Start, program: &Program, log: fs::File) -> anyhow::Result<Self> {
        let mut command = start.command(program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for this process, which then stops the node in good order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().context("cannot start a node")?;
        let stdout = child.stdout.take().context("a node has no standard output")?;
        let alive = child.stdin.take().context("a node has no standard input")?;
        Ok(Self {
            number: start.number,
            child,
            _alive: alive,
            lines: BufReader::new(stdout).lines(),
            log: start.log.clone(),
        })
    }

    /// The line it prints when it serves; an error when it ends before.
    pub async fn ready(&mut self) -> anyhow::Result<String> {
        match self.lines.next_line().await? {
            Some(line) => Ok(line),
            None => {
                let status = self.exited().await?;
                Err(self.death(status))
            }
        }
    }

    pub async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub fn death(&self, status: ExitStatus) -> anyhow::Error {
        let (number, log) = (self.number, self.log.display());
        let tail = tail_of(&self.log).unwrap_or_default();
        anyhow::anyhow!("node {number} stopped by itself ({status}). The end of its log, {log}:\n{tail}")
    }

    /// Asks it to stop in good order.
    pub fn terminate(&self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended by itself meanwhile, which shows when it is waited for.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill a node")
    }
}

/// The address in the line of a node that listens.
pub fn address_in(line: &str) -> anyhow::Result<SocketAddr> {
    let url = serve::url_in_line(line).context("a node's first line is not the one expected")?;
    let address = url.trim_start_matches("http://").parse();
    address.context("a node's first line names no address")
}

/// The last lines of a file.
fn tail_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    for line in text.lines() {
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    Ok(Vec::from(tail).join("\n"))
}
