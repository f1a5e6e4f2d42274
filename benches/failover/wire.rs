//! Bytes on the wire, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::node::cluster::Cluster;

/// Often enough that of a connection that ends little is missed.
const LOOK: Duration = Duration::from_millis(200);

/// Both ends of a connection, as `ss` writes them.
type Ends = (String, String);

/// Watches what a node receives from the others over TCP.
pub struct Received {
    stop: oneshot::Sender<()>,
    watcher: JoinHandle<anyhow::Result<Option<f64>>>,
}

impl Received {
    pub fn start(cluster: &Cluster, node: usize) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let pid = cluster.nodes[node].pid().unwrap_or_default();
        let peers: Vec<String> = cluster.nodes.iter().map(|node| node.peer.to_string()).collect();
        let watcher = tokio::spawn(async move {
            let Some(first) = look(pid, &peers).await? else {
                eprintln!("ss (iproute2) is not there: what a node receives is not measured");
                return Ok(None);
            };
            let mut latest = first.clone();
            loop {
                let is_last = tokio::select! {
                    biased;
                    _ = &mut stopped => true,
                    () = tokio::time::sleep(LOOK) => false,
                };
                latest.extend(look(pid, &peers).await?.unwrap_or_default());
                if is_last {
                    break;
                }
            }
            let since = |(ends, bytes): (&Ends, &u64)| bytes - first.get(ends).copied().unwrap_or(0).min(*bytes);
            Ok(Some(latest.iter().map(since).sum::<u64>() as f64))
        });
        Self { stop, watcher }
    }

    /// Bytes since the start, without the headers of TCP; None when they cannot be had.
    pub async fn stop(self) -> anyhow::Result<Option<f64>> {
        let _ = self.stop.send(());
        self.watcher.await?
    }
}

/// By connection with another node, what the process has received.
async fn look(pid: u32, peers: &[String]) -> anyhow::Result<Option<BTreeMap<Ends, u64>>> {
    let listed = Command::new("ss")
        .args(["-tinpHO", "state", "established"])
        .output()
        .await;
    let Ok(listed) = listed else { return Ok(None) };
    let text = String::from_utf8_lossy(&listed.stdout);
    let of_process = format!("pid={pid},");
    let mut received = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(&of_process)) {
        let mut words = line.split_whitespace().skip(2);
        let (Some(local), Some(remote)) = (words.next(), words.next()) else {
            continue;
        };
        let is_peer = peers.iter().any(|peer| peer == local || peer == remote);
        // Left out as long as it is nothing.
        let bytes = words.find_map(|word| word.strip_prefix("bytes_received:")?.parse::<u64>().ok());
        if is_peer {
            received.insert((local.to_owned(), remote.to_owned()), bytes.unwrap_or(0));
        }
    }
    Ok(Some(received))
}

/// Bytes and packets over the loopback of this network namespace, all headers included.
pub fn loopback() -> anyhow::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"))
        .context("no loopback")?;
    let mut fields = line.split_whitespace().map(str::parse);
    let mut next = || fields.next().and_then(Result::ok).context("a field is missing");
    Ok((next()?, next()?))
}

/// UDP datagrams that were received in this network namespace.
pub fn datagrams() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("no UDP")?, lines.next().context("no UDP")?);
    let found = names
        .split(' ')
        .zip(values.split(' '))
        .find(|(name, _)| *name == "InDatagrams");
    found
        .and_then(|(_, value)| value.parse().ok())
        .context("no InDatagrams")
}
