//! A cluster of real processes.
//!
//! Each node has a loopback address of its own (all of 127/8 is loopback), drawn from this process' number, so the ports are fixed and
//! no two runs meet.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::wires::Wires;
use crate::common::calls::{Caller, strings};
use crate::common::http::{get, send};
use crate::common::{ADMIN, ADMIN_PASSWORD, Home, Node, kv, password_hash, run};

/// Only ever waited for in full when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
const HTTP_PORT: u16 = 8000;
const PEER_PORT: u16 = 7000;
/// Small, so that there are segments, and little memory that a test could take for a leak.
const SMALL: [&str; 6] = [
    "--active-segment-bytes",
    "1MiB",
    "--block-cache-bytes",
    "1MiB",
    "--shards",
    "2",
];
/// Clusters that run at once: each waits most of the time.
const CLUSTERS_MAX: usize = 4;

/// Until it gives something; `what` and the last reason why not are told when it does not.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if Instant::now() > until => panic!("not in time: {what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

pub fn ensure(is_so: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(why()) }
}

/// What the environment says, for longer and other runs.
pub fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Tells a thread of the test to end, also when the test fails.
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The right to run a cluster.
struct Turn;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let mut running = RUNNING.lock();
        ENDED.wait_while(&mut running, |running| *running >= CLUSTERS_MAX);
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock() -= 1;
        ENDED.notify_one();
    }
}

/// A place for a node: its addresses and its folder stay, whatever becomes of its processes.
struct Place {
    http: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
    node: Option<Node>,
    /// It began the cluster, and was not started since.
    founds: bool,
    /// What it alone is started with.
    own: Vec<String>,
}

/// Dropped, all its processes are killed.
pub struct Cluster {
    places: Vec<Place>,
    /// So many of the places make up the cluster.
    count: usize,
    home: Home,
    more: Vec<String>,
    wires: Option<Wires>,
    _turn: Turn,
}

impl Cluster {
    /// Three nodes, each of which holds all that it should.
    pub fn new() -> Self {
        Self::of(3, |_, _| Vec::new())
    }

    /// So many nodes, each with arguments of its own, which may name files below the given folder.
    pub fn of(count: usize, own: impl Fn(usize, &Path) -> Vec<String>) -> Self {
        let turn = Turn::take();
        let pid = std::process::id();
        static CLUSTERS: AtomicU8 = AtomicU8::new(0);
        let first = CLUSTERS.fetch_add(8, Ordering::Relaxed);
        let ip = |place: u8| Ipv4Addr::new(127, 64 + (pid >> 8) as u8 % 64, pid as u8, first + place + 1);
        let ips = (0..6).map(|place| (ip(place), ip(place)));
        Self::at(turn, ips, count, None, own)
    }

    /// Three nodes in three namespaces; none where those are not permitted.
    pub fn in_namespaces() -> Option<Self> {
        let turn = Turn::take();
        let wires = Wires::new()?;
        let ips: Vec<_> = (0..3)
            .map(|place| (wires.client_ip(place), wires.peer_ip(place)))
            .collect();
        Some(Self::at(turn, ips.into_iter(), 3, Some(wires), |_, _| Vec::new()))
    }

    fn at(
        turn: Turn,
        ips: impl Iterator<Item = (Ipv4Addr, Ipv4Addr)>,
        count: usize,
        wires: Option<Wires>,
        own: impl Fn(usize, &Path) -> Vec<String>,
    ) -> Self {
        let home = Home::new();
        let key = run({
            let mut command = kv();
            command.args(["cluster", "keygen"]).arg(home.path().join("key"));
            command
        });
        assert!(key.status.success());
        let place = |(index, (http, peer)): (usize, (Ipv4Addr, Ipv4Addr))| Place {
            http: SocketAddr::from((http, HTTP_PORT)),
            peer: SocketAddr::from((peer, PEER_PORT)),
            data: home.path().join(format!("data-{index}")),
            node: None,
            founds: index == 0,
            own: own(index, home.path()),
        };
        let mut cluster = Self {
            places: ips.enumerate().map(place).collect(),
            count,
            home,
            more: Vec::new(),
            wires,
            _turn: turn,
        };
        for index in 0..count {
            cluster.start(index);
        }
        cluster.wait_whole();
        cluster
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn data(&self, index: usize) -> &Path {
        &self.places[index].data
    }

    pub fn peer(&self, index: usize) -> SocketAddr {
        self.places[index].peer
    }

    /// From its next start on, the node takes gossip and peers at another port.
    pub fn move_peer(&mut self, index: usize) -> SocketAddr {
        let peer = &mut self.places[index].peer;
        peer.set_port(peer.port() + 100);
        *peer
    }

    pub fn http(&self, index: usize) -> SocketAddr {
        self.places[index].http
    }

    pub fn url(&self, index: usize) -> String {
        format!("http://{}", self.http(index))
    }

    pub fn wires(&self) -> &Wires {
        self.wires.as_ref().unwrap()
    }

    pub fn node(&self, index: usize) -> &Node {
        self.places[index].node.as_ref().unwrap()
    }

    /// The places whose nodes run.
    pub fn running(&self) -> Vec<usize> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, place)| place.node.is_some())
            .map(|(index, _)| index)
            .collect()
    }

    /// What the node of this place is started with. The founder begins alone; everyone else, and itself later on, joins the others.
    pub fn command(&self, index: usize) -> Command {
        self.command_with_key(index, &self.home.path().join("key"))
    }

    pub fn command_with_key(&self, index: usize, key: &Path) -> Command {
        let place = &self.places[index];
        let mut command = match &self.wires {
            Some(wires) => wires.command(index, env!("CARGO_BIN_EXE_kv")),
            None => kv(),
        };
        command.arg("serve").arg("--data").arg(&place.data);
        command.args(["--listen", &place.http.to_string()]);
        command.args(["--cluster-listen", &place.peer.to_string()]);
        command.arg("--cluster-key-file").arg(key);
        if index == 0 {
            command
                .args(["--user", ADMIN, "--password-file"])
                .arg(self.home.password_file());
        }
        if !place.founds {
            let others = self.places.iter().take(self.count).map(|other| other.peer.to_string());
            command.args(["--join", &others.collect::<Vec<_>>().join(",")]);
        }
        command.args(SMALL).args(&place.own).args(&self.more);
        // Neither a profile nor a settings file of the machine may play a part.
        command.current_dir(self.home.path()).env("HOME", self.home.path());
        command.env("XDG_CONFIG_HOME", self.home.path().join("config"));
        command
    }

    /// From here on nodes are started with these arguments too.
    pub fn start_with(&mut self, more: &[&str]) {
        self.more = more.iter().map(|text| (*text).to_owned()).collect();
    }

    /// Starts the node; it listens when this returns.
    pub fn start(&mut self, index: usize) {
        let node = Node::start(self.command(index));
        let place = &mut self.places[index];
        place.founds = false;
        place.node = Some(node);
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        self.places[index].node.take().unwrap().kill();
    }

    /// Stops it in order.
    pub fn stop(&mut self, index: usize) {
        let node = self.places[index].node.take().unwrap();
        node.terminate();
        assert!(node.wait().success());
    }

    pub fn freeze(&self, index: usize) {
        kill_process(self.node(index).pid(), Signal::STOP).unwrap();
    }

    pub fn thaw(&self, index: usize) {
        kill_process(self.node(index).pid(), Signal::CONT).unwrap();
    }

    pub fn admin(&self, index: usize) -> Caller {
        Caller::new(self.http(index), ADMIN, &password_hash(ADMIN_PASSWORD))
    }

    /// Makes a user; its calls go to the first node.
    pub fn user(&self, name: &str) -> Caller {
        let hash = password_hash(name);
        self.admin(0).add_user(name, &hash);
        Caller::new(self.http(0), name, &hash)
    }

    /// Carries out a command of the admin's at the node.
    pub fn cli(&self, index: usize, words: &[&str]) -> Output {
        let mut command = kv();
        command.args(words).env("KV_URL", self.url(index));
        command.env("KV_USER", ADMIN).env("KV_PASSWORD", ADMIN_PASSWORD);
        run(command)
    }

    /// What the node says of each member.
    pub fn status(&self, index: usize) -> Result<Vec<Value>, String> {
        let answer = self.admin(index).try_post("/cluster/status", json!({}));
        let answer = answer.map_err(|error| error.to_string())?;
        ensure(answer.status == 200, || answer.text())?;
        Ok(answer.json()["members"].as_array().unwrap().clone())
    }

    /// The lines of those that belong.
    pub fn up(&self, index: usize) -> Result<Vec<Value>, String> {
        let members = self.status(index)?.into_iter();
        Ok(members.filter(|member| member["state"] == "up").collect())
    }

    /// The id of the node at this place, as all know it.
    pub fn id(&self, index: usize) -> String {
        let peer = self.peer(index).to_string();
        wait_for("the node is a member", || {
            let members = self.up(self.running()[0])?.into_iter();
            let found = members.into_iter().find(|member| member["peer"] == peer);
            found
                .map(|member| member["node"].as_str().unwrap().to_owned())
                .ok_or_else(|| "it is none".to_owned())
        })
    }

    /// The sum of a metric over all its labels that contain this text.
    pub fn metric(&self, index: usize, name: &str, label: &str) -> u64 {
        let text = get(self.http(index), "/metrics").text();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let lines = lines.filter(|rest| rest.starts_with([' ', '{']) && rest.contains(label));
        let values = lines.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.sum::<f64>() as u64
    }

    /// Until each running node holds all that it should, and is connected to all others.
    pub fn wait_whole(&self) {
        let running = self.running();
        wait_for("every node is whole", || {
            for index in &running {
                self.is_whole(*index, running.len())?;
            }
            Ok(())
        });
    }

    fn is_whole(&self, index: usize, count: usize) -> Result<(), String> {
        let ready = send(self.http(index), "GET", "/readyz", b"").map_err(|error| error.to_string())?;
        ensure(ready.status == 200, || format!("node {index} is not ready"))?;
        let members = self.up(index)?;
        let whole = members
            .iter()
            .filter(|member| member["alive"] == true && member["unsynced_slots"] == 0 && member["lag_ops"] == 0);
        ensure(whole.count() == count, || format!("node {index} sees {members:?}"))?;
        if count == members.len() {
            // Only a read that reaches all shows that all count for each other.
            read(&self.admin(index), "probe", "all").map_err(|error| format!("node {index}: {error}"))?;
        }
        Ok(())
    }

    /// What the node itself holds of a key.
    pub fn held(&self, caller: &Caller, index: usize, key: &str) -> Result<Vec<String>, String> {
        read(&caller.at(self.http(index)), key, "one")
    }

    /// Until all running nodes hold the same of these keys; what that is.
    pub fn wait_equal(&self, caller: &Caller, keys: &[String]) -> Vec<Vec<String>> {
        let running = self.running();
        wait_for("all replicas are equal", || {
            let mut all = Vec::new();
            for key in keys {
                let mut held = running.iter().map(|index| self.held(caller, *index, key));
                let first = held.next().unwrap()?;
                for other in held {
                    let other = other?;
                    ensure(other == first, || {
                        format!("{key}: {} and {} values", first.len(), other.len())
                    })?;
                }
                all.push(first);
            }
            Ok(all)
        })
    }
}

/// A key's values at this level; the answer's text when it is refused.
pub fn read(caller: &Caller, key: &str, consistency: &str) -> Result<Vec<String>, String> {
    let body = json!({"key": key, "consistency": consistency});
    let response = caller.try_post("/get_value", body).map_err(|error| error.to_string())?;
    ensure(response.status == 200, || response.text())?;
    Ok(strings(&response.json()["value"]))
}
