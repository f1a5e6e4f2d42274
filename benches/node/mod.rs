//! A node of its own for a measurement, as a process, and what the kernel says of it.
//!
//! Its files lie beside the build, which is on a real disk: the system's folder for temporary files may be in memory.

#![allow(dead_code, reason = "each measurement uses its own part of this")]

pub mod cluster;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use kv_storage::api;
use kv_storage::bench::{KvProtocol, KvTarget, Payload};
use kv_storage::client::{Client, Consistency, password_hash};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const USER: &str = "bench";
pub const PASSWORD: &str = "bench";
pub const MIB: u64 = 1024 * 1024;
const DISK_BLOCK_BYTES: u64 = 512;

/// A running `kv serve` with its default settings; killed when dropped.
pub struct Node {
    process: Child,
    pub address: SocketAddr,
    folder: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Most that was resident since the start, or since [`Node::forget_peak`].
    pub peak: u64,
}

/// A data folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files {
    pub count: u64,
    /// As they take up space on the disk.
    pub bytes: u64,
}

impl Node {
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let password_file = folder.path().join("password");
        write_private(&password_file, PASSWORD)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log-filter", "warn"])
            .args(["--user", USER, "--password-file"])
            .arg(&password_file)
            .arg("--data")
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = command.spawn().context("the node did not start")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line
            .split_once("http://")
            .and_then(|(_, rest)| rest.split([',', ' ']).next())
            .and_then(|address| address.trim().parse().ok());
        let Some(address) = address else {
            let _ = process.kill();
            let _ = process.wait();
            anyhow::bail!("the node said {line:?}, which names no address");
        };
        Ok(Self {
            process,
            address,
            folder,
        })
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        let builder = Client::builder().url(self.address.to_string());
        Ok(builder.user(USER).password(PASSWORD).build()?)
    }

    /// The answer to a batch that is sent as it is, over a connection of its own.
    pub async fn batch(&self, operations: Vec<api::Operation<'_>>) -> anyhow::Result<String> {
        let body = serde_json::to_string(&api::Batch {
            operations,
            consistency: None,
            deadline_ms: None,
            user: Some(api::User {
                user_id: USER.into(),
                password_hash: password_hash(PASSWORD).into(),
            }),
        })?;
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            api::path::BATCH,
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(self.address).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Speaks the API for the load generator.
    pub fn protocol(&self, payload: &Payload) -> anyhow::Result<KvProtocol> {
        protocol(self.address, payload)
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        memory_of(self.process.id())
    }

    /// From now on `peak` is the most since now.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn files(&self) -> anyhow::Result<Files> {
        let mut files = Files::default();
        count_files(&self.data(), &mut files)?;
        Ok(files)
    }
}

/// From `/proc/PID/status`.
pub fn memory_of(process: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Ok(Memory {
        resident: field("VmRSS:").context("no VmRSS in it")?,
        peak: field("VmHWM:").context("no VmHWM in it")?,
    })
}

fn count_files(folder: &Path, files: &mut Files) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Files come and go while they are counted.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            count_files(&entry.path(), files)?;
        } else {
            files.count += 1;
            files.bytes += meta.blocks() * DISK_BLOCK_BYTES;
        }
    }
    Ok(())
}

/// A file that nobody else may read, as passwords and keys have to be.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Free now; nobody else on the machine is likely to take it within the next second.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Speaks the API to the node at `address` for the load generator.
pub fn protocol(address: SocketAddr, payload: &Payload) -> anyhow::Result<KvProtocol> {
    protocol_at(address, payload, None)
}

/// The same, asking for a consistency.
pub fn protocol_at(
    address: SocketAddr,
    payload: &Payload,
    consistency: Option<Consistency>,
) -> anyhow::Result<KvProtocol> {
    let target = KvTarget {
        authority: address.to_string(),
        base_path: String::new(),
        user_id: USER.to_owned(),
        password_hash: password_hash(PASSWORD),
        consistency,
    };
    Ok(KvProtocol::new(&target, payload.clone())?)
}

/// A number from the environment.
pub fn setting<T: std::str::FromStr>(variable: &str, default: T) -> anyhow::Result<T> {
    match std::env::var(variable) {
        Err(_) => Ok(default),
        Ok(text) => text
            .parse()
            .ok()
            .with_context(|| format!("{variable}: {text:?} is not a number")),
    }
}
