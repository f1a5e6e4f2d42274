//! One run: hosts, network and faults on one clock that jumps to whatever comes next.
//!
//! Invariant: everything that happens comes from the seed. In one moment: faults first, then what the network delivers, then each
//! host's turn in the order of their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::faults::{Action, Faults};
use super::history::{History, Survey};
use super::host::Host;
use super::lie::Lie;
use super::net::{HostId, Network, Traffic};
use super::node::{Node, Status};
use super::os;
use super::plan::{Fault, Plan, SECOND_US, Script, Topology};
use super::record::Recorder;
use super::scale::{self, Order, Row, Serving};
use super::survey;
use super::trace::Trace;
use super::workload::operator::Machines;
use super::workload::{self, FIRST_CLIENT, Shared};
use crate::rng::Rng;

/// How long a process that ended by itself stays away.
const RESTART_US: u64 = SECOND_US;
/// How long the clients go on once the faults have ended.
const AFTERMATH_US: u64 = 2 * SECOND_US;
/// What a trouble held up comes so long after it at most: a packet that was lost is sent again, a node that came back opens its files.
const HELD_UP_US: u64 = 3 * SECOND_US;
/// How long everything is left alone in the end, and for how long of that the traffic is counted.
const IDLE_US: u64 = 5 * SECOND_US;
const COUNTED_US: u64 = 2 * SECOND_US;
/// Packets that one node may send another per second when there is nothing to say.
const IDLE_PACKETS_MAX: u64 = 60;
/// No run lasts longer. To read all lists from all nodes once can take more than two minutes on the slowest network.
const END_US: u64 = 400 * SECOND_US;
const SCALE_END_US: u64 = 1_000 * SECOND_US;

/// Of a hundred starts while such crashes are drawn, so many come to a crash in one of the first changes of the disk: most of them in the middle of
/// what recovery does with the disk that the last one left.
const CRASH_IN_START_PERCENT: u64 = 15;
const CRASH_IN_START_CHANGES_MAX: u64 = 60;

type TrafficTable = BTreeMap<(HostId, HostId), Traffic>;

pub struct World {
    pub plan: Arc<Plan>,
    pub network: Network,
    pub nodes: Vec<Node>,
    pub recorder: Recorder,
    pub trace: Trace,
    pub rng: Rng,
    /// Of crashes in a start: no draw of the others depends on it.
    starts: Rng,
    pub faults: Faults,
    clients: Host,
    pub shared: Shared,
    ready: BTreeSet<HostId>,
    /// The first acknowledgement after this moment is followed by a survey.
    survey_us: u64,
    /// When the node's process is started, if it is down.
    pub restart_us: BTreeMap<HostId, u64>,
}

/// What is left when a run is over.
pub struct Outcome {
    pub history: History,
    pub problems: Vec<String>,
    pub faults: BTreeMap<Fault, u64>,
    pub simulated_us: u64,
    pub statuses: BTreeMap<u16, u64>,
    pub row: Option<Row>,
}

impl World {
    pub fn new(plan: Plan, mut rng: Rng, trace: Trace) -> Self {
        let plan = Arc::new(plan);
        let starts = Rng::new(!rng.clone().next());
        let network = Network::new(rng.fork(), trace.clone(), plan.link, plan.streams);
        let recorder = Recorder::new(trace.clone());
        let serving = Serving::default();
        let mut nodes: Vec<Node> = (0..plan.nodes)
            .map(|id| Node::new(HostId(id), &plan, serving.clone(), rng.fork()))
            .collect();
        for node in &mut nodes {
            let (trace, id) = (trace.clone(), node.id);
            node.disk.watch(move |line| {
                let crc = crc32c::crc32c(line.as_bytes());
                trace.note("disk", &[id.0.into(), crc.into()], || line.to_owned());
            });
            network.set_up(node.id);
            let skipped = |lie| plan.planted == Some(lie);
            node.disk
                .skip_syncs(skipped(Lie::SyncSkipped), skipped(Lie::DirSyncSkipped));
        }
        for machine in workload::machines(&plan) {
            network.set_up(machine);
        }
        let shared = Shared {
            plan: plan.clone(),
            network: network.clone(),
            recorder: recorder.clone(),
            stop: Arc::new(AtomicBool::new(false)),
            is_set_up: Arc::new(AtomicBool::new(false)),
            serving,
            orders: Arc::default(),
            machines: Machines::new(&nodes),
            row: Arc::default(),
            verdict: Arc::default(),
        };
        let clients = Host::new();
        let mut restart_us: BTreeMap<HostId, u64> = nodes.iter().map(|node| (node.id, 0)).collect();
        match plan.script {
            Script::Swarm => clients.spawn(workload::run(shared.clone(), rng.fork())),
            Script::Scale => {
                clients.spawn(scale::run(shared.clone()));
                restart_us.pop_last();
                // So that what all do periodically does not fall together.
                for (id, at_us) in &mut restart_us {
                    *at_us = u64::from(id.0) * 17_000;
                }
            }
        }
        Self {
            faults: Faults::new(&plan, rng.fork()),
            plan,
            network,
            nodes,
            recorder,
            trace,
            rng,
            starts,
            clients,
            shared,
            ready: [HostId(FIRST_CLIENT)].into(),
            survey_us: 0,
            restart_us,
        }
    }

    /// Runs to the end and says what went wrong.
    pub fn run(mut self) -> Outcome {
        let mut problems = Vec::new();
        let mut idle_from: Option<(u64, TrafficTable)> = None;
        let mut done_us = None;
        loop {
            self.settle();
            if done_us.is_none()
                && let Some(verdict) = self.verdict()
            {
                problems.extend(verdict.err());
                done_us = Some(os::now_us());
            }
            let now_us = os::now_us();
            let count_from_us = done_us.map(|done_us| done_us + IDLE_US - COUNTED_US);
            if count_from_us.is_some_and(|from_us| now_us >= from_us) && idle_from.is_none() {
                idle_from = Some((now_us, self.network.traffic()));
            }
            let last_us = self.last_us();
            let end_us = done_us.map_or(last_us, |done_us| done_us + IDLE_US);
            let next_us = self.next_us().unwrap_or(last_us).max(now_us);
            let next_us = match count_from_us.filter(|from_us| *from_us > now_us) {
                Some(from_us) => next_us.min(from_us),
                None => next_us.min(end_us),
            };
            if next_us >= end_us {
                break;
            }
            os::set_now_us(next_us);
        }
        if done_us.is_none() {
            problems.push("the run did not come to its end".to_owned());
        }
        if let Some((from_us, before)) = idle_from {
            problems.extend(self.storm(from_us, &before));
        }
        self.survey();
        self.recorder.change(|history| {
            history.bounds = self.plan.bounds.clone();
            history.timeout_ms = self.plan.load.timeout_ms;
            history.nodes = self.plan.nodes.into();
            history.in_haste = self.plan.load.hasty_percent > 0;
            history.have_peers = self.plan.topology == Topology::Cluster && self.plan.nodes > 1;
            history.log_bytes_max = survey::log_bytes_max(&self.plan);
            history.replicas = match self.plan.topology {
                Topology::Separate => 1,
                Topology::Cluster => self.plan.replication.into(),
            };
            for node in &self.nodes {
                let retried = node.disk.retried_syncs().into_iter();
                history.retried_syncs.extend(retried.map(|path| (node.id.0, path)));
            }
        });
        let history = self.recorder.take_history();
        problems.extend(super::check::judge(&history));
        Outcome {
            history,
            problems,
            faults: self.faults.struck.clone(),
            simulated_us: os::now_us(),
            statuses: self.recorder.statuses(),
            row: self
                .shared
                .row
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(),
        }
    }

    pub fn ready_now(&mut self, id: HostId) {
        self.ready.insert(id);
    }

    fn last_us(&self) -> u64 {
        match self.plan.script {
            Script::Swarm => END_US,
            Script::Scale => SCALE_END_US,
        }
    }

    fn verdict(&self) -> Option<Result<(), String>> {
        let verdict = self.shared.verdict.lock();
        verdict.unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Everything that happens at this moment.
    fn settle(&mut self) {
        let now_us = os::now_us();
        self.change_the_world(now_us);
        let concerned = self.network.deliver();
        // All clients are programs on one host.
        self.ready
            .extend(concerned.into_iter().map(|id| id.min(HostId(FIRST_CLIENT))));
        if self.clients.timer_us.is_some_and(|at_us| at_us <= now_us) {
            self.ready.insert(HostId(FIRST_CLIENT));
        }
        for node in &self.nodes {
            if node.timer_us().is_some_and(|at_us| at_us <= now_us) {
                self.ready.insert(node.id);
            }
        }
        for id in std::mem::take(&mut self.ready) {
            self.take_turn(id, now_us);
        }
        // The clients had the last turn: no node has done anything since the acknowledgement came.
        if self.recorder.take_acknowledged() && now_us >= self.survey_us {
            self.survey_us = now_us + self.rng.between(1, 2 * self.plan.survey_us);
            self.survey();
        }
    }

    /// Reads what is durable on every disk.
    fn survey(&mut self) {
        for node in &self.nodes {
            let read = survey::of_disk(&node.disk, &self.plan, &self.recorder);
            let survey = read.unwrap_or_else(|error| Survey {
                damage: vec![error],
                ..Survey::default()
            });
            self.trace.note("survey", &[node.id.0.into()], || {
                format!("{} ops {:?}", survey.ops.len(), survey.damage)
            });
            self.recorder.change(|history| {
                history.surveys.push(Survey {
                    node: node.id.0,
                    at_us: os::now_us(),
                    ..survey
                });
            });
        }
    }

    fn take_turn(&mut self, id: HostId, now_us: u64) {
        self.trace.note("turn", &[id.0.into()], String::new);
        if id == HostId(FIRST_CLIENT) {
            return self.clients.run();
        }
        let node = &mut self.nodes[usize::from(id.0)];
        if node.paused_until_us.is_some_and(|until_us| until_us > now_us) {
            return;
        }
        node.run();
        if node.lost_power() {
            self.faults.count(Fault::CrashInWrite);
            let away_us = self.rng.between(10, 3_000) * 1000;
            return self.power_off(id, now_us + away_us);
        }
        match node.status() {
            Some(Status::Failed(why)) => {
                self.trace.note("failed", &[id.0.into()], || why.clone());
                tracing::warn!(node = id.0, why, "a process ended");
                self.kill(id, now_us + RESTART_US);
            }
            Some(Status::Stopped) => self.kill(id, now_us + 1000),
            _ => {}
        }
    }

    fn change_the_world(&mut self, now_us: u64) {
        let orders = std::mem::take(&mut *self.shared.orders());
        for order in orders {
            match order {
                Order::Start(id) => _ = self.restart_us.insert(id, whole_ms(now_us)),
                Order::PowerOff(id) => self.power_off(id, SCALE_END_US),
                Order::Empty(id) => self.empty(id, now_us),
                Order::HourPasses => self.let_an_hour_pass(now_us),
            }
        }
        let due: Vec<HostId> = self
            .restart_us
            .iter()
            .filter(|(_, at_us)| **at_us <= now_us)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.restart_us.remove(&id);
            self.plan_crash_in_start(id, now_us);
            self.network.set_up(id);
            let (network, plan) = (self.network.clone(), self.plan.clone());
            let peers: Vec<_> = self.nodes.iter().map(|node| node.peer).collect();
            self.nodes[usize::from(id.0)].start(&network, &plan, &peers);
            self.trace.note("start", &[id.0.into()], String::new);
            self.ready.insert(id);
        }
        for node in &mut self.nodes {
            if node.paused_until_us.is_some_and(|until_us| until_us <= now_us) {
                node.paused_until_us = None;
                self.ready.insert(node.id);
            }
        }
        if !self.faults.is_begun() && self.shared.is_set_up.load(Relaxed) {
            self.faults.begin(now_us);
        }
        while let Some(action) = self.faults.due(now_us) {
            if matches!(action, Action::EndOfFaults) {
                self.end_faults(now_us);
            } else if matches!(action, Action::StopClients) {
                self.shared.stop.store(true, Relaxed);
            } else {
                self.act(action, now_us);
            }
        }
    }

    fn plan_crash_in_start(&mut self, id: HostId, now_us: u64) {
        let mut kinds = self.plan.faults.iter();
        let is_drawn = kinds.any(|(fault, _)| *fault == Fault::CrashInWrite);
        if is_drawn && self.faults.may_take_away(now_us) && self.starts.percent(CRASH_IN_START_PERCENT) {
            let nth = self.starts.between(1, CRASH_IN_START_CHANGES_MAX);
            self.nodes[usize::from(id.0)].disk.crash_after(nth);
        }
    }

    /// From here on nothing more goes wrong.
    fn end_faults(&mut self, now_us: u64) {
        self.network.heal();
        for node in &mut self.nodes {
            node.paused_until_us = None;
            node.disk.cancel_crash();
            node.disk.cancel_faults();
            node.disk.set_capacity(u64::MAX);
            node.pace.set(self.plan.pace);
            self.ready.insert(node.id);
        }
        for at_us in self.restart_us.values_mut() {
            *at_us = (*at_us).min(whole_ms(now_us));
        }
        // Some were to go on.
        self.recorder.change(|history| {
            for trouble in &mut history.troubles {
                trouble.to_us = trouble.to_us.min(now_us + HELD_UP_US);
            }
        });
        self.faults.plan(now_us + AFTERMATH_US, Action::StopClients);
    }

    /// The machine goes down as if its plug was pulled; it is back at `back_us`.
    pub fn power_off(&mut self, id: HostId, back_us: u64) {
        self.network.power_off(id);
        let node = &mut self.nodes[usize::from(id.0)];
        if !node.lost_power() {
            node.disk.crash();
        }
        self.gone(id, back_us);
    }

    /// The process dies, the machine stays.
    pub fn kill(&mut self, id: HostId, back_us: u64) {
        self.network.kill(id);
        self.nodes[usize::from(id.0)].disk.kill();
        self.gone(id, back_us);
    }

    fn gone(&mut self, id: HostId, back_us: u64) {
        self.trace.note("gone", &[id.0.into(), back_us], String::new);
        self.nodes[usize::from(id.0)].end();
        self.ready.remove(&id);
        self.restart_us.insert(id, whole_ms(back_us));
        self.trouble(Some(id), os::now_us(), back_us);
    }

    pub fn trouble(&self, node: Option<HostId>, from_us: u64, to_us: u64) {
        self.recorder.trouble(super::history::Trouble {
            node: node.map(|id| id.0),
            from_us,
            to_us: to_us + HELD_UP_US,
        });
    }

    fn next_us(&self) -> Option<u64> {
        let hosts = self.nodes.iter().filter_map(Node::timer_us);
        let pauses = self.nodes.iter().filter_map(|node| node.paused_until_us);
        let next = [
            self.network.next_event_us(),
            self.faults.next_us(),
            self.clients.timer_us,
        ];
        hosts
            .chain(pauses)
            .chain(self.restart_us.values().copied())
            .chain(next.into_iter().flatten())
            .min()
    }

    /// Idle after the end: a node has next to nothing to say to another.
    fn storm(&self, from_us: u64, before: &TrafficTable) -> Option<String> {
        let seconds = ((os::now_us() - from_us) / SECOND_US).max(1);
        for ((from, to), after) in self.network.traffic() {
            let before = before.get(&(from, to)).copied().unwrap_or_default();
            let packets = after.packets - before.packets;
            if from < HostId(FIRST_CLIENT) && to < HostId(FIRST_CLIENT) && packets / seconds > IDLE_PACKETS_MAX {
                return Some(format!("idle, {from:?} sends {to:?} {packets} packets in {seconds} s"));
            }
        }
        None
    }
}

/// Processes start at whole milliseconds.
fn whole_ms(us: u64) -> u64 {
    us.div_ceil(1000) * 1000
}
