//! Which ports the nodes of a local cluster listen on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::Context;

use crate::cli::exit::usage;
use crate::client::entropy;

/// From a node's port for clients to the one for its peers.
const PEER_PORT_OFFSET: u16 = 100;
/// The first and the last port that the system gives to connections, and to whoever asks for any.
const GIVEN_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Where that cannot be read: what Linux gives when nobody changed it.
const GIVEN_FROM_DEFAULT: u16 = 32_768;
/// Well-known services are below, and what people like to choose.
const CHOSEN_FROM: u16 = 10_000;
/// With fewer to choose from, the system chooses.
const CHOICE_MIN: u16 = 1_000;
/// So many ports that are in use are passed over.
const TRIES_MAX: usize = 1_000;
/// Whoever chooses a port holds the same number here, where no node listens: no other run chooses it before the node has it. On Linux all of
/// 127.0.0.0/8 is this machine.
const CHOSEN_AT: Ipv4Addr = Ipv4Addr::new(127, 107, 118, 1);

/// Where the nodes speak to each other.
#[derive(Debug, Default)]
pub struct Peers {
    pub addresses: Vec<SocketAddr>,
    /// Of ports that were chosen: no other run chooses them as long as this is held.
    _held: Vec<UdpSocket>,
}

/// One for each node; all 0 when the first is.
pub fn http(first: SocketAddr, count: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let addresses = (0..count).map(|index| after(first, if first.port() == 0 { 0 } else { index }));
    let addresses = addresses.collect::<anyhow::Result<Vec<_>>>()?;
    for address in &addresses {
        check(*address, TcpListener::bind(address).map(drop))?;
    }
    Ok(addresses)
}

/// They must know these before they start, so none is 0.
pub fn peers(first: SocketAddr, count: u16) -> anyhow::Result<Peers> {
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
    Ok(Peers {
        addresses,
        _held: Vec::new(),
    })
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

/// Ports that nothing uses now, for TCP and UDP. They are let go again, and the nodes take them later: so they are none that the system gives
/// to somebody else meanwhile.
fn free(at: SocketAddr, count: u16) -> anyhow::Result<Peers> {
    let place = || format!("cannot listen on {at}");
    let range = std::fs::read_to_string(GIVEN_FILE).unwrap_or_default();
    let choice = never_given(&range);
    let mut held = Vec::new();
    let mut tries = 0;
    while held.len() < usize::from(count) {
        tries += 1;
        match Held::bind(SocketAddr::new(at.ip(), one_of(&choice))) {
            Ok(port) => held.push(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES_MAX => {}
            Err(error) => return Err(error).with_context(place),
        }
    }
    Ok(Peers {
        addresses: held.iter().map(|port| port.address).collect(),
        _held: held.into_iter().filter_map(|port| port.chosen).collect(),
    })
}

/// A port that nobody else has.
struct Held {
    address: SocketAddr,
    _tcp: TcpListener,
    _udp: UdpSocket,
    chosen: Option<UdpSocket>,
}

impl Held {
    fn bind(at: SocketAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind(at)?;
        let address = tcp.local_addr()?;
        let chosen = match UdpSocket::bind((CHOSEN_AT, address.port())) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // Where there is no such address, two runs may choose the same.
            bound => bound.ok(),
        };
        Ok(Self {
            address,
            _udp: UdpSocket::bind(address)?,
            _tcp: tcp,
            chosen,
        })
    }
}

/// Below those that the system gives, of which it says the first and the last.
fn never_given(range: &str) -> Range<u16> {
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    CHOSEN_FROM..first.unwrap_or(GIVEN_FROM_DEFAULT)
}

/// At random: another run may choose at the same moment. 0, which the system replaces, where there are too few.
fn one_of(choice: &Range<u16>) -> u16 {
    match choice.end.saturating_sub(choice.start) {
        ..CHOICE_MIN => 0,
        // Less than what it is divided by.
        count => choice.start + (entropy::u64() % u64::from(count)) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_each_other_and_those_of_peers_are_a_hundred_higher() {
        // Below those that the system gives to connections.
        let first: SocketAddr = "127.0.0.1:21200".parse().unwrap();
        let ports = |addresses: &[SocketAddr]| addresses.iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!(ports(&http(first, 3).unwrap()), [21200, 21201, 21202]);
        assert_eq!(ports(&peers(first, 3).unwrap().addresses), [21300, 21301, 21302]);
        let last: SocketAddr = "127.0.0.1:65530".parse().unwrap();
        assert!(peers(last, 1).unwrap_err().to_string().contains("65535"));
    }

    #[test]
    fn peers_of_nodes_that_listen_everywhere_meet_on_this_machine() {
        for (listen, here) in [("0.0.0.0:21210", "127.0.0.1:21310"), ("0.0.0.0:0", "127.0.0.1:0")] {
            let here: SocketAddr = here.parse().unwrap();
            let peers = peers(listen.parse().unwrap(), 1).unwrap().addresses;
            assert_eq!(peers[0].ip(), here.ip());
            assert!(here.port() == 0 || peers == [here]);
        }
        assert_eq!(reached_here("[::]:5".parse().unwrap()), "[::1]:5".parse().unwrap());
    }

    #[test]
    fn without_a_port_the_peers_still_know_theirs_beforehand() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(http(any, 2).unwrap(), [any, any]);
        let peers = peers(any, 3).unwrap().addresses;
        assert!(peers.iter().all(|peer| peer.port() != 0));
        assert!(peers[0] != peers[1] && peers[1] != peers[2] && peers[0] != peers[2]);
    }

    #[test]
    fn until_its_node_starts_the_system_gives_the_port_of_a_peer_to_nobody() {
        let range = std::fs::read_to_string(GIVEN_FILE).unwrap();
        let ends: Vec<u16> = range.split_whitespace().map(|end| end.parse().unwrap()).collect();
        if ends[0] < CHOSEN_FROM + CHOICE_MIN {
            println!("SKIPPED: this machine gives all ports");
            return;
        }
        for peer in peers("127.0.0.1:0".parse().unwrap(), 7).unwrap().addresses {
            assert!(!(ends[0]..=ends[1]).contains(&peer.port()), "{peer} of {range}");
        }
    }

    #[test]
    fn what_one_run_has_chosen_no_other_one_chooses_before_the_node_listens() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let chosen = peers(any, 1).unwrap();
        if chosen._held.is_empty() {
            println!("SKIPPED: {CHOSEN_AT} is not this machine");
            return;
        }
        let address = chosen.addresses[0];
        let again = || Held::bind(address).map(drop).map_err(|error| error.kind());
        assert_eq!(again(), Err(io::ErrorKind::AddrInUse));
        // The node itself can.
        drop((TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap()));
        drop(chosen);
        assert_eq!(again(), Ok(()));
    }

    #[test]
    fn where_the_system_gives_nearly_all_ports_it_chooses() {
        assert_eq!(never_given("32768\t60999\n"), 10_000..32_768);
        assert_eq!(never_given(""), 10_000..32_768);
        for range in ["1024\t65535\n", "10500\t65535\n"] {
            assert_eq!(one_of(&never_given(range)), 0);
        }
        assert!((10_000..11_000).contains(&one_of(&never_given("11000 65535"))));
    }

    #[test]
    fn an_address_of_another_machine_is_said_to_be_the_wrong_one() {
        let elsewhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let error = format!("{:#}", peers(elsewhere, 1).unwrap_err());
        assert!(error.contains("cannot listen on 192.0.2.1:0"), "{error}");
    }
}
