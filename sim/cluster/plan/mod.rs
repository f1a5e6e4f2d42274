//! What one seed draws: the size of the cluster, its links, disks and clocks, the load, and which faults come how often.
//!
//! Each seed leaves most faults out: a mixture of everything hides what only long runs of few things show (swarm testing).

mod fault;
mod members;
mod pages;

use kv_storage::api::DEADLINE_MS_DEFAULT;
use kv_storage::http::FrontConfig;
use kv_storage::node::Limits;
use kv_storage::planted::Bug;
use kv_storage::shard::ShardConfig;

use super::env::Pace;
use super::lie::Lie;
use super::net::{Link, Streams};
use crate::rng::Rng;

pub use fault::Fault;

pub const SECOND_US: u64 = 1_000_000;
const SMALL_SEGMENT_BYTES: usize = 100;
const SHORT_TEXT_BYTES_MAX: u64 = 200;
/// Tells what is drawn of the guests from all else that one seed gives.
const GUESTS: u64 = 0x6e57_5e75;
/// And what is drawn of members that are lost for good.
const MEMBERS: u64 = 0x3e3b_e125;

/// How the nodes belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Each node is a store of its own, and each key has one home among them.
    Separate,
    /// All are members of one.
    Cluster,
}

/// What happens in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Clients work and faults come (`workload`).
    Swarm,
    /// What a cluster of this size costs (`scale`).
    Scale,
}

#[derive(Debug, Clone)]
pub struct Load {
    pub clients: u8,
    pub users: u8,
    pub keys: u8,
    pub think_ms_max: u64,
    pub timeout_ms: u64,
    pub attempts_max: u64,
    /// Of a hundred ops, so many are none: a client sends a request again that was answered.
    pub again_percent: u64,
    pub part_percent: u64,
    pub clear_percent: u64,
    pub batch_percent: u64,
    /// Of a hundred calls, so many at `one` and at `all`; the rest at `quorum`.
    pub one_percent: u64,
    pub all_percent: u64,
    /// Of a hundred calls, so many leave the nodes less time than a slow disk or link takes.
    pub hasty_percent: u64,
    pub text_bytes_max: u64,
    /// Of a hundred texts, so many may be as long as that; the others are short.
    pub long_percent: u64,
}

/// The clients that are the product's own; they have the load of the others.
#[derive(Debug, Clone, Default)]
pub struct Product {
    /// How many: the first ones.
    pub clients: u8,
    /// Rounds through all nodes after the first one.
    pub retries: u32,
    /// How long a call may take, all tries together; none: as long as the client has patience by itself.
    pub deadline_ms: Option<u64>,
    /// Longest text of one request.
    pub part_bytes: usize,
    /// Of a hundred ops, so many are values of several such texts.
    pub in_parts_percent: u64,
}

impl Product {
    /// In place of so many of the clients.
    fn draw(rng: &mut Rng, clients: u8, load: &Load) -> Self {
        Self {
            clients,
            retries: *rng.pick(&[0, 1, 4, 100]),
            deadline_ms: *rng.pick(&[None, None, Some(3_000), Some(8_000)]),
            // Texts that are drawn go whole.
            part_bytes: load.text_bytes_max as usize + 32,
            in_parts_percent: *rng.pick(&[0, 5, 20]),
        }
    }
}

/// How much a node lets wait.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    pub are_tight: bool,
    pub node: Limits,
    pub front: FrontConfig,
}

impl Bounds {
    /// So little that the usual load comes to it.
    fn tight(rng: &mut Rng) -> Self {
        let mut bounds = Self {
            are_tight: true,
            ..Self::default()
        };
        // Behind a narrow door nothing else is met.
        match rng.below(3) {
            0 => {
                bounds.front.requests_in_flight_max = *rng.pick(&[2, 4]);
                bounds.front.requests_at_work_max = *rng.pick(&[1, 2]);
                bounds.front.body_bytes_in_flight_max = 64 << 10;
                bounds.front.short_body_bytes_in_flight_max = 0;
            }
            1 => {
                bounds.node.shard_requests = *rng.pick(&[1, 2]);
                bounds.node.shard_bytes = *rng.pick(&[2_000, 8_000]);
            }
            _ => bounds.node.peer_calls = *rng.pick(&[2, 4]),
        }
        bounds
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub script: Script,
    pub topology: Topology,
    pub nodes: u8,
    pub replication: u8,
    /// Over which the nodes are spread, one after the other; one is none.
    pub zones: u8,
    pub link: Link,
    pub streams: Streams,
    pub shards: u16,
    pub shard: ShardConfig,
    pub pace: Pace,
    /// Of each node, milliseconds and parts per million.
    pub skews: Vec<(i64, i64)>,
    pub load: Load,
    pub product: Product,
    /// With the mean time between two of a kind.
    pub faults: Vec<(Fault, u64)>,
    /// How many nodes may lose what their disk holds: fewer than a quorum.
    pub lossy_nodes: u8,
    /// A disk is put back to what was durable on it at a moment when its node ran, not to what it held after a crash.
    pub running_images: bool,
    pub faults_end_us: u64,
    /// In the end all keys are cleared, and their space must come free.
    pub clears_all: bool,
    /// After that an hour passes, and no request id may be left.
    pub forgets: bool,
    /// How long all nodes may take to be alike after the faults have ended.
    pub converge_us: u64,
    /// The mean time between two surveys of all disks.
    pub survey_us: u64,
    pub bounds: Bounds,
    /// Between two looks at the metrics.
    pub watch_ms: u64,
    /// How long the nodes have for a clear: after a short time without an answer it is soon certain that it covers nothing any more.
    pub clear_deadline_ms: u64,
    /// Users come and go beside those of the load (`workload/guests`).
    pub has_guests: bool,
    /// Before anybody stores anything, this node is removed from the cluster, and comes again as a new one (`workload/operator.rs`).
    pub leaves: Option<u8>,
    /// A bug that this world has, for the proof that it is found.
    pub planted: Option<Lie>,
    /// A bug that the nodes have, for the same.
    pub bug: Option<Bug>,
}

impl Plan {
    /// The default swarm: everything drawn.
    pub fn swarm(rng: &mut Rng) -> Self {
        // Drawn apart, so that old seeds stay what they were.
        let mut apart = Rng::new(rng.clone().next() ^ GUESTS);
        let mut members = Rng::new(rng.clone().next() ^ MEMBERS);
        let nodes = *rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7]);
        let mut plan = Self::draw(rng, Topology::Cluster, nodes);
        // Where all is cleared in the end, no key of them is.
        plan.has_guests = !plan.clears_all && apart.percent(50);
        plan.draw_member_changes(&mut members);
        plan
    }

    /// Five nodes, as the speed of the simulation is measured.
    pub fn five(rng: &mut Rng) -> Self {
        Self::draw(rng, Topology::Cluster, 5)
    }

    /// The swarm, in which disks are put back to what was copied from them while their nodes ran.
    pub fn set_back(rng: &mut Rng) -> Self {
        let nodes = *rng.pick(&[3, 3, 3, 4, 5]);
        let mut plan = Self::draw(rng, Topology::Cluster, nodes);
        plan.replication = plan.replication.max(3);
        plan.lossy_nodes = plan.replication / 2;
        plan.running_images = true;
        plan.faults.retain(|(fault, _)| *fault != Fault::OldDisk);
        plan.faults.push((Fault::OldDisk, 3 * SECOND_US));
        plan
    }

    /// The swarm, in which sectors become unreadable and nodes start again, and little else happens.
    pub fn bad_sectors(rng: &mut Rng) -> Self {
        let nodes = *rng.pick(&[3, 3, 4, 5]);
        let mut plan = Self::draw(rng, Topology::Cluster, nodes);
        plan.replication = plan.replication.max(3);
        plan.lossy_nodes = plan.replication / 2;
        plan.faults = vec![(Fault::BadSector, SECOND_US), (Fault::Kill, 20 * SECOND_US)];
        plan
    }

    /// The swarm, in which some clients or all are the product's own, and nodes or the ways to them fail.
    pub fn product(rng: &mut Rng) -> Self {
        let nodes = *rng.pick(&[2, 3, 3, 3, 4, 5]);
        let mut plan = Self::draw(rng, Topology::Cluster, nodes);
        let clients = rng.between(1, plan.load.clients.into()) as u8;
        plan.product = Product::draw(rng, clients, &plan.load);
        plan.be_hard_to_reach(rng);
        plan
    }

    /// What makes a client go on with the next node.
    fn be_hard_to_reach(&mut self, rng: &mut Rng) {
        let away = *rng.pick(&[
            Fault::Pause,
            Fault::Kill,
            Fault::PowerLoss,
            Fault::ClientAway,
            Fault::Partition,
            Fault::SlowLink,
        ]);
        let more = [away, Fault::CutConnection];
        self.faults.retain(|(fault, _)| !more.contains(fault));
        self.faults
            .extend([(away, 4 * SECOND_US), (Fault::CutConnection, SECOND_US)]);
    }

    /// The product's own clients alone.
    pub fn only_product(&mut self, rng: &mut Rng) {
        self.product = Product::draw(rng, self.load.clients, &self.load);
    }

    /// No faults at all, and nobody in such haste that the nodes cannot be in time.
    pub fn calm(rng: &mut Rng) -> Self {
        let mut plan = Self::swarm(rng);
        plan.faults.clear();
        plan.load.hasty_percent = 0;
        plan.link.loss_percent = 0;
        plan.link.repeat_percent = 0;
        plan
    }

    /// No faults, and many clients for little room.
    pub fn crowded(rng: &mut Rng) -> Self {
        let mut plan = Self::calm(rng);
        plan.nodes = 3;
        plan.replication = 3;
        plan.skews.resize(3, (0, 0));
        plan.clears_all = false;
        plan.has_guests = false;
        plan.leaves = None;
        plan.bounds = Bounds::tight(rng);
        plan.watch_ms = 20;
        // So that things queue.
        plan.pace = Pace {
            slow_percent: 100,
            slow_ms_max: 10,
        };
        plan.faults_end_us = 6 * SECOND_US;
        plan.load.keys = 3;
        plan.load.clients = 10;
        plan.load.think_ms_max = 20;
        plan.load.batch_percent = 20;
        plan.load.text_bytes_max = 4_000;
        plan
    }

    /// A cluster without faults in one data centre, for its figures.
    pub fn scale(rng: &mut Rng, nodes: u8) -> Self {
        let mut plan = Self::calm(rng);
        plan.script = Script::Scale;
        plan.has_guests = false;
        plan.leaves = None;
        plan.nodes = nodes;
        plan.replication = 3;
        plan.link = Link {
            delay_us: 200,
            jitter_us: 300,
            loss_percent: 0,
            repeat_percent: 0,
            bytes_per_ms: 125_000,
            blocked: false,
        };
        plan.streams.segment_bytes = 64 << 10;
        plan.streams.window_bytes = 256 << 10;
        plan.shards = 1;
        plan.shard.idle_ms = 20_000;
        plan.pace = Pace::default();
        plan.skews = vec![(0, 0); nodes.into()];
        plan.load.clients = 8;
        plan
    }

    /// Nodes that stand alone.
    pub fn alone(rng: &mut Rng) -> Self {
        Self::draw(rng, Topology::Separate, 3)
    }

    fn draw(rng: &mut Rng, topology: Topology, nodes: u8) -> Self {
        let replication = (*rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5])).min(nodes);
        let calm_links = rng.percent(40);
        let skew_ms = *rng.pick(&[0, 0, 50, 5_000, 300_000]);
        let mut plan = Self {
            script: Script::Swarm,
            topology,
            nodes,
            replication,
            zones: *rng.pick(&[1, 1, 1, 2, 3]),
            link: Link {
                delay_us: *rng.pick(&[100, 300, 1_000, 10_000]),
                jitter_us: *rng.pick(&[100, 500, 2_000, 20_000]),
                loss_percent: if calm_links { 0 } else { rng.below(6) },
                repeat_percent: if calm_links { 0 } else { rng.below(4) },
                bytes_per_ms: *rng.pick(&[125_000, 12_500, 1_250]),
                blocked: false,
            },
            streams: Streams {
                window_bytes: *rng.pick(&[4 << 10, 64 << 10, 256 << 10]),
                segment_bytes: *rng.pick(&[SMALL_SEGMENT_BYTES, 1_400, 16 << 10, 64 << 10]),
                give_up_us: *rng.pick(&[3, 15, 60]) * SECOND_US,
            },
            shards: *rng.pick(&[1, 1, 2]),
            shard: ShardConfig {
                log_bytes: *rng.pick(&[68 << 10, 80 << 10, 160 << 10]),
                fill_bytes: *rng.pick(&[4 << 10, 16 << 10, 64 << 10]),
                frozen_max: *rng.pick(&[1, 2]),
                fan_out: *rng.pick(&[2, 4]),
                idle_ms: *rng.pick(&[1_000, 3_000, 20_000]),
                ..ShardConfig::default()
            },
            pace: Pace {
                slow_percent: *rng.pick(&[0, 5, 50]),
                slow_ms_max: *rng.pick(&[1, 5, 20]),
            },
            skews: (0..nodes)
                .map(|_| (draw_signed(rng, skew_ms), draw_signed(rng, 200)))
                .collect(),
            load: Load::draw(rng),
            product: Product::default(),
            faults: draw_faults(rng, topology),
            lossy_nodes: replication / 2,
            running_images: false,
            faults_end_us: 42 * SECOND_US,
            clears_all: topology == Topology::Cluster && rng.percent(15),
            forgets: true,
            converge_us: 30 * SECOND_US,
            survey_us: rng.between(5, 15) * SECOND_US,
            bounds: if rng.percent(20) {
                Bounds::tight(rng)
            } else {
                Bounds::default()
            },
            watch_ms: 5_000,
            clear_deadline_ms: *rng.pick(&[1_000, DEADLINE_MS_DEFAULT]),
            has_guests: false,
            leaves: None,
            planted: None,
            bug: None,
        };
        plan.load.again_percent = *rng.pick(&[0, 5, 20]);
        // Each packet that is lost holds up those behind it for 200 ms: a list of long texts in so small ones would come in no client's time.
        if plan.streams.segment_bytes == SMALL_SEGMENT_BYTES && plan.link.loss_percent > 0 {
            plan.load.text_bytes_max = plan.load.text_bytes_max.min(SHORT_TEXT_BYTES_MAX);
        }
        if topology == Topology::Cluster && rng.percent(20) {
            plan.faults.push((Fault::HourPasses, 15 * SECOND_US));
        }
        plan
    }
}

impl Load {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            clients: rng.between(2, 6) as u8,
            users: rng.between(1, 3) as u8,
            keys: *rng.pick(&[1, 3, 8, 20]),
            think_ms_max: *rng.pick(&[100, 300, 1_000]),
            timeout_ms: *rng.pick(&[1_000, 5_000, 10_000]),
            attempts_max: *rng.pick(&[1, 3, 8]),
            again_percent: 0,
            part_percent: *rng.pick(&[0, 20, 60]),
            clear_percent: *rng.pick(&[0, 2, 6, 20]),
            batch_percent: *rng.pick(&[0, 0, 10]),
            one_percent: *rng.pick(&[0, 0, 10, 40]),
            all_percent: *rng.pick(&[0, 0, 5]),
            hasty_percent: *rng.pick(&[0, 0, 10, 40]),
            text_bytes_max: *rng.pick(&[16, SHORT_TEXT_BYTES_MAX, 4_000]),
            long_percent: 10,
        }
    }
}

fn draw_signed(rng: &mut Rng, most: i64) -> i64 {
    rng.between(0, 2 * most.unsigned_abs()) as i64 - most
}

fn draw_faults(rng: &mut Rng, topology: Topology) -> Vec<(Fault, u64)> {
    let percent = *rng.pick(&[10, 25, 50]);
    let possible = Fault::ALL
        .into_iter()
        // Alone, a node has nobody to bring back what its disk lost.
        .filter(|fault| topology != Topology::Separate || !fault.loses_disk());
    let mut drawn = Vec::new();
    for fault in possible {
        if rng.percent(percent) {
            drawn.push((fault, rng.between(2, 15) * SECOND_US));
        }
    }
    drawn
}
