//! Both clusters behind one face.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use kv_storage::bench::{KvProtocol, Load, Operation, Protocol, Report, run};
use kv_storage::client::Consistency;

use super::etcd::{Etcd, Reads};
use super::machine::{self, Cpu};
use super::node::{self, cluster::Cluster};
use super::rival::EtcdCluster;
use super::{CONNECTIONS, GET_KEYS, LIST_LENGTH, Row, VALUE_BYTES, payload};

const FILL_TIMEOUT: Duration = Duration::from_secs(30);

pub enum Side {
    Kv(Cluster),
    Etcd(EtcdCluster),
}

/// The nodes come first; without the rival they are measured alone.
pub fn start_all() -> anyhow::Result<Vec<Side>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut sides = vec![Side::Kv(runtime.block_on(Cluster::start())?)];
    match EtcdCluster::start() {
        Ok(rival) => sides.push(Side::Etcd(rival)),
        Err(error) => eprintln!("left out: etcd cannot be had: {error:#}"),
    }
    Ok(sides)
}

impl Side {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kv(_) => "kv",
            Self::Etcd(_) => "etcd",
        }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Kv(cluster) => cluster.http(),
            Self::Etcd(rival) => rival.addresses(),
        }
    }

    pub fn logs(&self) -> String {
        match self {
            Self::Kv(cluster) => cluster.logs(),
            Self::Etcd(_) => String::new(),
        }
    }

    /// Of all its nodes together.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let pids: Vec<u32> = match self {
            Self::Kv(cluster) => cluster.nodes.iter().filter_map(node::cluster::Member::pid).collect(),
            Self::Etcd(rival) => rival.pids(),
        };
        let mut sum = Cpu {
            user_s: 0.0,
            system_s: 0.0,
        };
        for pid in pids {
            let cpu = machine::cpu_of(pid)?;
            sum.user_s += cpu.user_s;
            sum.system_s += cpu.system_s;
        }
        Ok(sum)
    }

    pub fn drive(&self, load: &Load, row: Row) -> anyhow::Result<Report> {
        match self {
            Self::Kv(cluster) => {
                let protocols = kv_protocols(cluster, row.operation, row.consistency)?;
                let of_address = |address| {
                    let found = protocols.iter().find(|(other, _)| *other == address);
                    found.map(|(_, protocol)| protocol.clone())
                };
                let first = protocols.first().context("no node")?.1.clone();
                Ok(run(
                    load,
                    |address| of_address(address).unwrap_or_else(|| first.clone()),
                    |_| {},
                )?)
            }
            Self::Etcd(_) => {
                let reads = match row.consistency {
                    Consistency::One => Reads::Serializable,
                    Consistency::Quorum | Consistency::All => Reads::Linearizable,
                };
                let payload = payload(LIST_LENGTH * VALUE_BYTES, row.operation);
                let protocol = |address: SocketAddr| Etcd::new(address.to_string(), payload.clone(), reads);
                Ok(run(load, protocol, |_| {})?)
            }
        }
    }

    /// Gives each key that is read its list, or one value as long as that.
    pub fn fill(&self) -> anyhow::Result<()> {
        match self {
            Self::Kv(cluster) => {
                let protocols = kv_protocols(cluster, Operation::Get, Consistency::Quorum)?;
                let make = |number: usize| protocols[number % protocols.len()].clone();
                fill(make, LIST_LENGTH as u64)
            }
            Self::Etcd(rival) => {
                let addresses = rival.addresses();
                let payload = payload(LIST_LENGTH * VALUE_BYTES, Operation::Get);
                let make = |number: usize| {
                    let address = addresses[number % addresses.len()];
                    let protocol = Etcd::new(address.to_string(), payload.clone(), Reads::Linearizable);
                    (address, protocol)
                };
                fill(make, 1)
            }
        }
    }
}

fn kv_protocols(
    cluster: &Cluster,
    operation: Operation,
    consistency: Consistency,
) -> anyhow::Result<Vec<(SocketAddr, KvProtocol)>> {
    let payload = payload(VALUE_BYTES, operation);
    let of_node = |address| Ok((address, node::protocol_at(address, &payload, Some(consistency))?));
    cluster.http().into_iter().map(of_node).collect()
}

/// Adds `times` values to each key, over as many connections as the measurements have.
fn fill<P: Protocol + Send>(make: impl Fn(usize) -> (SocketAddr, P), times: u64) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (address, protocol) = make(number);
                let keys = (number as u64..GET_KEYS).step_by(CONNECTIONS);
                scope.spawn(move || add_each(address, protocol, keys, times))
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))??;
        }
        Ok(())
    })
}

fn add_each<P: Protocol>(
    address: SocketAddr,
    mut protocol: P,
    keys: impl Iterator<Item = u64>,
    times: u64,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(FILL_TIMEOUT))?;
    let (mut output, mut input) = (Vec::new(), vec![0; 64 * 1024]);
    for (key, time) in keys.flat_map(|key| (0..times).map(move |time| (key, time))) {
        output.clear();
        protocol.request(Operation::Add, key, key * times + time, &mut output);
        stream.write_all(&output)?;
        let mut filled = 0;
        loop {
            let received = stream.read(&mut input[filled..])?;
            anyhow::ensure!(received > 0, "it closed the connection");
            filled += received;
            let step = protocol.advance(&input[..filled])?;
            input.copy_within(step.consumed..filled, 0);
            filled -= step.consumed;
            if let Some(answer) = step.answer {
                anyhow::ensure!(answer.status == 200, "it answered an add with {}", answer.status);
                break;
            }
        }
    }
    Ok(())
}
