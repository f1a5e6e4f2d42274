//! Three nodes of etcd as it comes: every `put` is synced by a quorum before its answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::install::install;
use super::node::{cluster::NODES, free_address};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const QUOTA_BYTES: u64 = 8 << 30;

/// Killed when dropped.
pub struct EtcdCluster {
    nodes: Vec<Node>,
    _folder: TempDir,
}

struct Node {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl EtcdCluster {
    pub fn start() -> anyhow::Result<Self> {
        install("etcd", "etcd-server")?;
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(Node {
                name: format!("bench{number}"),
                client: free_address()?,
                peer: free_address()?,
                process: None,
            });
        }
        let all: Vec<String> = nodes
            .iter()
            .map(|node| format!("{}=http://{}", node.name, node.peer))
            .collect();
        let mut cluster = Self { nodes, _folder: folder };
        for node in &mut cluster.nodes {
            node.start(&all.join(","), cluster._folder.path())?;
        }
        for node in &mut cluster.nodes {
            node.wait_until_healthy()?;
        }
        Ok(cluster)
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    pub fn pids(&self) -> Vec<u32> {
        self.nodes
            .iter()
            .filter_map(|node| node.process.as_ref().map(Child::id))
            .collect()
    }
}

impl Node {
    fn start(&mut self, all: &str, folder: &Path) -> anyhow::Result<()> {
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let process = Command::new("etcd")
            .args(["--name", &self.name, "--log-level", "error"])
            .args(["--initial-cluster", all, "--initial-cluster-state", "new"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--quota-backend-bytes", &QUOTA_BYTES.to_string(), "--data-dir"])
            .arg(folder.join(&self.name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    fn wait_until_healthy(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.is_healthy().unwrap_or(false) {
            if let Some(status) = self.process.as_mut().map(Child::try_wait).transpose()?.flatten() {
                anyhow::bail!("it ended while it started: {status}");
            }
            anyhow::ensure!(started.elapsed() < START_TIMEOUT, "it does not become healthy");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn is_healthy(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.client)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET /health HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.client
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200") && answer.contains("true"))
    }
}
