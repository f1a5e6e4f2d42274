//! Network namespaces, one for each node, and what can be cut between them.
//!
//! ```text
//! this process ── client wire of each node      10.A.B.(1 + 4 i) here, the next address there
//! node ── wire to a bridge ── node              10.A.B.(128 + i)
//! ```
//!
//! Clients have wires of their own, so they reach a node that is cut off from the others. A wire between two nodes is cut one way by
//! telling the sender a hardware address that nobody has: its packets go out, and nobody hears them. That needs no part of the kernel
//! that may be missing.
//!
//! Invariant: everything made here has this process' number in its name, and goes when this is dropped.

use std::net::Ipv4Addr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};

const NOBODY: &str = "02:00:00:00:00:99";
const NODES: usize = 3;

pub struct Wires {
    /// Part of all names.
    name: String,
    net: [u8; 2],
}

fn ip(words: &str) -> Output {
    let output = Command::new("ip").args(words.split(' ')).output();
    output.unwrap_or_else(|error| panic!("ip {words}: {error}"))
}

fn must(words: &str) {
    let output = ip(words);
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Wires {
    /// None, and said why, where namespaces are not permitted.
    pub fn new() -> Option<Self> {
        static MADE: AtomicU8 = AtomicU8::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let wires = Self {
            name: format!("kv{}x{made}", pid % 1_000_000),
            net: [64 + (pid >> 8) as u8 % 64, (pid as u8).wrapping_add(made)],
        };
        let missing = Command::new("ip").arg("-V").output().is_err();
        if missing {
            println!("SKIPPED: there is no `ip` (iproute2) to make network namespaces with");
            return None;
        }
        let made = ip(&format!("netns add {}", wires.space(0)));
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            println!("SKIPPED: network namespaces are not permitted here: {}", why.trim());
            return None;
        }
        let bridged = ip(&format!("link add {} type bridge", wires.bridge()));
        if !bridged.status.success() {
            let why = String::from_utf8_lossy(&bridged.stderr).into_owned();
            println!("SKIPPED: a bridge cannot be made here: {}", why.trim());
            return None;
        }
        must(&format!("link set {} up", wires.bridge()));
        for index in 0..NODES {
            wires.make(index);
        }
        Some(wires)
    }

    fn make(&self, index: usize) {
        let (space, name) = (self.space(index), &self.name);
        if index > 0 {
            must(&format!("netns add {space}"));
        }
        must(&format!("-n {space} link set lo up"));
        must(&format!(
            "link add {name}c{index} type veth peer name client netns {space}"
        ));
        must(&format!(
            "link add {name}p{index} type veth peer name peers netns {space}"
        ));
        must(&format!("link set {name}p{index} master {}", self.bridge()));
        let [a, b] = self.net;
        let here = Ipv4Addr::new(10, a, b, 1 + 4 * index as u8);
        must(&format!("addr add {here}/30 dev {name}c{index}"));
        must(&format!("-n {space} addr add {}/30 dev client", self.client_ip(index)));
        must(&format!("-n {space} addr add {}/25 dev peers", self.peer_ip(index)));
        for end in ["c", "p"] {
            must(&format!("link set {name}{end}{index} up"));
        }
        for end in ["client", "peers"] {
            must(&format!("-n {space} link set {end} up"));
        }
    }

    fn space(&self, index: usize) -> String {
        format!("{}-{index}", self.name)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    /// Where clients reach the node.
    pub fn client_ip(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net[0], self.net[1], 2 + 4 * index as u8)
    }

    /// Where the others reach the node.
    pub fn peer_ip(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net[0], self.net[1], 128 + index as u8)
    }

    /// What runs a program where the node is.
    pub fn command(&self, index: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(index), program]);
        command
    }

    /// Nothing gets from the one node to the other any more.
    pub fn cut(&self, from: usize, to: usize) {
        let (space, to) = (self.space(from), self.peer_ip(to));
        must(&format!(
            "-n {space} neigh replace {to} lladdr {NOBODY} nud permanent dev peers"
        ));
    }

    pub fn cut_both_ways(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// All can hear all again.
    pub fn heal(&self) {
        for from in 0..NODES {
            must(&format!("-n {} neigh flush nud permanent dev peers", self.space(from)));
        }
    }

    /// Packets between the nodes are late and get lost; false where this kernel cannot do that.
    pub fn disturb(&self, how: &str) -> bool {
        let disturb = |index| {
            let mut command = Command::new("tc");
            command.args([
                "-n",
                &self.space(index),
                "qdisc",
                "add",
                "dev",
                "peers",
                "root",
                "netem",
            ]);
            let output = command.args(how.split(' ')).output();
            output.is_ok_and(|output| output.status.success())
        };
        (0..NODES).all(disturb)
    }

    pub fn calm(&self) {
        for index in 0..NODES {
            let mut command = Command::new("tc");
            command.args(["-n", &self.space(index), "qdisc", "del", "dev", "peers", "root"]);
            assert!(command.output().unwrap().status.success());
        }
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // What was not made cannot be removed; its wires go with a namespace, and both ends with one.
        for index in 0..NODES {
            ip(&format!("link del {}c{index}", self.name));
            ip(&format!("link del {}p{index}", self.name));
            ip(&format!("netns del {}", self.space(index)));
        }
        ip(&format!("link del {}", self.bridge()));
    }
}
