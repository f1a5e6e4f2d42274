//! Which ports the nodes of a local cluster listen on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::Context;

use crate::cli::exit::usage;

/// From a node's port for clients to the one for its peers.
const PEER_PORT_OFFSET: u16 = 100;

/// One for each node; all 0 when the first is.
pub fn http(first: SocketAddr, count: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let addresses = (0..count).map(|index| after(first, if first.port() == 0 { 0 } else { index }));
    let addresses = addresses.collect::<anyhow::Result<Vec<_>>>()?;
    for address in &addresses {
        check(*address, TcpListener::bind(address).map(drop))?;
    }
    Ok(addresses)
}

/// Where the nodes speak to each other. They must know these before they start, so none is 0.
pub fn peers(first: SocketAddr, count: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let first = reached_here(first);
    if first.port() == 0 {
        return free(first, count);
    }
    let addresses = (0..count).map(|index| after(first, PEER_PORT_OFFSET + index));
    let addresses = addresses.collect::<anyhow::Result<Vec<_>>>()?;
    for address in &addresses {
        check(*address, TcpListener::bind(address).map(drop))?;
        check(*address, UdpSocket::bind(address).map(drop))?;
    }
    Ok(addresses)
}

/// Where this machine reaches what listens at `address`, which may stand for all addresses of the machine.
pub fn reached_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn after(first: SocketAddr, by: u16) -> anyhow::Result<SocketAddr> {
    let Some(port) = first.port().checked_add(by) else {
        return Err(usage(format!(
            "--listen {first}: the other ports that are needed would be beyond 65535; choose a lower one"
        )));
    };
    Ok(SocketAddr::new(first.ip(), port))
}

/// The listener is closed again at once: this only turns the usual mistake into a clear message before anything is made.
fn check(address: SocketAddr, bound: io::Result<()>) -> anyhow::Result<()> {
    match bound {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => anyhow::bail!(
            "{address} is in use, perhaps by a node that runs already; stop that, or choose another port with --listen"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

/// Ports that nothing uses now, for TCP and UDP.
fn free(at: SocketAddr, count: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let place = || format!("cannot listen on {at}");
    let mut held = Vec::new();
    while held.len() < usize::from(count) {
        let tcp = TcpListener::bind(at).with_context(place)?;
        let address = tcp.local_addr().with_context(place)?;
        if let Ok(udp) = UdpSocket::bind(address) {
            held.push((address, tcp, udp));
        }
    }
    Ok(held.into_iter().map(|(address, ..)| address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_each_other_and_those_of_peers_are_a_hundred_higher() {
        // Below those that the system gives to connections.
        let first: SocketAddr = "127.0.0.1:21200".parse().unwrap();
        let ports = |addresses: Vec<SocketAddr>| addresses.iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!(ports(http(first, 3).unwrap()), [21200, 21201, 21202]);
        assert_eq!(ports(peers(first, 3).unwrap()), [21300, 21301, 21302]);
        let last: SocketAddr = "127.0.0.1:65530".parse().unwrap();
        assert!(peers(last, 1).unwrap_err().to_string().contains("65535"));
    }

    #[test]
    fn peers_of_nodes_that_listen_everywhere_meet_on_this_machine() {
        for (listen, here) in [("0.0.0.0:21210", "127.0.0.1:21310"), ("0.0.0.0:0", "127.0.0.1:0")] {
            let here: SocketAddr = here.parse().unwrap();
            let peers = peers(listen.parse().unwrap(), 1).unwrap();
            assert_eq!(peers[0].ip(), here.ip());
            assert!(here.port() == 0 || peers == [here]);
        }
        assert_eq!(reached_here("[::]:5".parse().unwrap()), "[::1]:5".parse().unwrap());
    }

    #[test]
    fn without_a_port_the_peers_still_know_theirs_beforehand() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(http(any, 2).unwrap(), [any, any]);
        let peers = peers(any, 3).unwrap();
        assert!(peers.iter().all(|peer| peer.port() != 0));
        assert!(peers[0] != peers[1] && peers[1] != peers[2] && peers[0] != peers[2]);
    }
}
