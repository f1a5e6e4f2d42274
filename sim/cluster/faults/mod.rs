//! The faults of a run: each kind that the plan has comes again and again, at moments drawn, and goes.

mod members;

use std::collections::BTreeMap;

use kv_storage::core::clock::SlotClocks;

use super::env::Pace;
use super::history::{Loss, Trouble};
use super::net::{HostId, Link};
use super::plan::{Fault, Plan, SECOND_US};
use super::survey;
use super::workload::FIRST_CLIENT;
use super::world::World;
use crate::disk;
use crate::rng::Rng;

/// How long those who may know better are there after a disk that was put back has started.
const WATCHED_US: u64 = 5 * SECOND_US;
/// How long it takes a node at most to tell all others what is durable, while they hear each other.
const TELLING_US: u64 = 3 * SECOND_US;

/// How long an hour takes that passes: more than request ids are kept, also where two clocks are ten minutes apart.
const HOUR_MS_MIN: u64 = 75 * 60 * 1000;
const HOUR_MS_MAX: u64 = 180 * 60 * 1000;

/// What happens to the world at a moment.
#[derive(Debug, Clone)]
pub enum Action {
    Strike(Fault),
    /// The links between these hosts are as they should be.
    Mend(Vec<(HostId, HostId)>),
    DiskHasRoom(HostId),
    DiskIsFast(HostId),
    /// The disk is what its image holds; all others were told by now what this one held when this was planned.
    SetBack(HostId),
    EndOfFaults,
    StopClients,
}

pub struct Faults {
    rng: Rng,
    kinds: Vec<(Fault, u64)>,
    end_us: u64,
    is_begun: bool,
    planned: BTreeMap<(u64, u64), Action>,
    next: u64,
    /// The nodes that may lose what their disk holds.
    lossy: Vec<HostId>,
    /// Until then all who may have met a later life of a disk that is put back are there.
    watched_until_us: u64,
    /// What each of them held at some moment, when it was down, or, with its clocks, while it ran.
    pub images: BTreeMap<HostId, disk::Image>,
    running_images: BTreeMap<HostId, (disk::Image, SlotClocks)>,
    pub struck: BTreeMap<Fault, u64>,
}

impl Faults {
    pub fn new(plan: &Plan, mut rng: Rng) -> Self {
        let first = rng.below(plan.nodes.into()) as u8;
        let lossy = (0..plan.lossy_nodes)
            .map(|nth| HostId((first + nth) % plan.nodes))
            .collect();
        Self {
            rng,
            kinds: plan.faults.clone(),
            end_us: plan.faults_end_us,
            is_begun: false,
            planned: BTreeMap::new(),
            next: 0,
            lossy,
            watched_until_us: 0,
            images: BTreeMap::new(),
            running_images: BTreeMap::new(),
            struck: BTreeMap::new(),
        }
    }

    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether a node may crash now.
    pub fn may_take_away(&self, now_us: u64) -> bool {
        self.is_begun && now_us < self.end_us && now_us >= self.watched_until_us
    }

    pub fn begin(&mut self, now_us: u64) {
        self.is_begun = true;
        for (fault, _) in self.kinds.clone() {
            self.plan_next(fault, now_us);
        }
        self.plan(self.end_us.max(now_us + SECOND_US), Action::EndOfFaults);
    }

    pub fn plan(&mut self, at_us: u64, action: Action) {
        self.next += 1;
        self.planned.insert((at_us, self.next), action);
    }

    fn plan_next(&mut self, fault: Fault, now_us: u64) {
        let mean_us = self
            .kinds
            .iter()
            .find(|(kind, _)| *kind == fault)
            .map(|(_, mean_us)| *mean_us);
        let at_us = now_us + self.rng.between(1, 2 * mean_us.unwrap_or(SECOND_US));
        if at_us < self.end_us {
            self.plan(at_us, Action::Strike(fault));
        }
    }

    pub fn next_us(&self) -> Option<u64> {
        self.planned.keys().next().map(|(at_us, _)| *at_us)
    }

    pub fn due(&mut self, now_us: u64) -> Option<Action> {
        let entry = self.planned.first_entry()?;
        (entry.key().0 <= now_us).then(|| entry.remove())
    }

    pub fn count(&mut self, fault: Fault) {
        *self.struck.entry(fault).or_default() += 1;
    }
}

impl World {
    pub fn act(&mut self, action: Action, now_us: u64) {
        self.trace.note("act", &[now_us], || format!("{action:?}"));
        match action {
            Action::Strike(fault) => {
                self.faults.plan_next(fault, now_us);
                self.strike(fault, now_us);
            }
            Action::Mend(links) => {
                let usual = self.plan.link;
                for (from, to) in links {
                    self.network.change_link(from, to, |link| *link = usual);
                }
            }
            Action::DiskHasRoom(id) => self.nodes[usize::from(id.0)].disk.set_capacity(u64::MAX),
            Action::DiskIsFast(id) => self.nodes[usize::from(id.0)].pace.set(self.plan.pace),
            Action::SetBack(id) => self.set_back(id, now_us),
            Action::EndOfFaults | Action::StopClients => {}
        }
    }

    fn strike(&mut self, fault: Fault, now_us: u64) {
        let id = HostId(self.rng.below(self.plan.nodes.into()) as u8);
        let id = match fault.loses_disk() {
            true => match self.faults.lossy.as_slice() {
                [] => return,
                lossy => *self.rng.pick(lossy),
            },
            false => id,
        };
        if fault.takes_away() && now_us < self.faults.watched_until_us {
            return;
        }
        let running = self.nodes[usize::from(id.0)].is_running();
        let short_us = self.rng.between(100, 3_000) * 1000;
        let long_us = self.rng.between(1_000, 12_000) * 1000;
        match fault {
            Fault::Partition | Fault::OneWay => self.part(fault, now_us, long_us),
            Fault::BrokenLink => {
                let other = HostId(self.rng.below(self.plan.nodes.into()) as u8);
                if other == id {
                    return;
                }
                self.block(vec![(id, other), (other, id)], now_us, long_us);
                self.trouble(None, now_us, now_us + long_us);
            }
            Fault::ClientAway => self.send_client_away(id, now_us, long_us),
            Fault::SlowLink => {
                let delay_us = self.rng.between(20, 800) * 1000;
                let bytes_per_ms = self.rng.between(10, 200);
                self.worsen(id, now_us, long_us, |link| {
                    link.delay_us = delay_us;
                    link.bytes_per_ms = bytes_per_ms;
                });
            }
            Fault::LossyLink => {
                let loss = self.rng.between(10, 60);
                self.worsen(id, now_us, long_us, |link| {
                    link.loss_percent = loss;
                    link.repeat_percent = loss / 2;
                });
            }
            Fault::HourPasses => self.let_an_hour_pass(now_us),
            Fault::CutConnection => {
                self.recorder.change(|history| history.cuts_us.push(now_us));
                for _ in 0..self.rng.between(1, 4) {
                    self.network.cut_one(|_, _| true);
                }
            }
            _ if !running => return,
            Fault::PowerLoss => self.power_off(id, now_us + short_us),
            Fault::Kill => self.kill(id, now_us + short_us),
            Fault::LongAbsence => self.power_off(id, now_us + 10 * SECOND_US + long_us),
            Fault::Restart => {
                self.nodes[usize::from(id.0)].ask_to_stop();
                self.ready_now(id);
                self.trouble(Some(id), now_us, now_us + SECOND_US);
            }
            Fault::CrashInWrite => {
                let most = *self.rng.pick(&[4, 60]);
                let nth = self.rng.between(1, most);
                self.nodes[usize::from(id.0)].disk.crash_after(nth);
                // It counts when it comes.
                return;
            }
            Fault::Pause => {
                self.nodes[usize::from(id.0)].paused_until_us = Some(now_us + long_us);
                self.trouble(Some(id), now_us, now_us + long_us);
            }
            Fault::ClockJump => {
                let by_ms = self.rng.between(0, 600_000) as i64 - 300_000;
                self.nodes[usize::from(id.0)].wall.jump(by_ms);
            }
            Fault::ReadError => self.fail_disk(id, disk::Fault::Read, now_us),
            Fault::WriteError => self.fail_disk(id, disk::Fault::Write, now_us),
            Fault::SyncError => self.fail_disk(id, disk::Fault::Sync, now_us),
            Fault::SyncDirError => self.fail_disk(id, disk::Fault::SyncDir, now_us),
            Fault::NameError => self.fail_disk(id, disk::Fault::Name, now_us),
            Fault::FullDisk => {
                let spare = self.rng.below(100_000);
                let disk = &self.nodes[usize::from(id.0)].disk;
                disk.set_capacity(disk.used_bytes() + spare);
                self.faults.plan(now_us + long_us, Action::DiskHasRoom(id));
                self.trouble(Some(id), now_us, now_us + long_us);
            }
            Fault::SlowDisk => {
                self.nodes[usize::from(id.0)].pace.set(Pace {
                    slow_percent: 100,
                    slow_ms_max: 200,
                });
                self.faults.plan(now_us + long_us, Action::DiskIsFast(id));
                self.trouble(Some(id), now_us, now_us + long_us);
            }
            Fault::OldDisk if self.plan.running_images => return self.copy_running(id, now_us),
            Fault::OldDisk if self.faults.images.contains_key(&id) && !self.all_others_are_there(id) => return,
            Fault::EmptyDisk | Fault::OldDisk => {
                if !self.lose_disk(id, fault, now_us + short_us) {
                    return;
                }
            }
            Fault::MemberLost => self.lose_member(id, now_us, now_us + short_us),
            Fault::BitFlip | Fault::BadSector => self.spoil(id, fault),
        }
        self.faults.count(fault);
    }

    pub fn let_an_hour_pass(&mut self, now_us: u64) {
        let by_ms = self.rng.between(HOUR_MS_MIN, HOUR_MS_MAX) as i64;
        self.nodes.iter().for_each(|node| node.wall.jump(by_ms));
        self.recorder.change(|history| history.hours_us.push(now_us));
    }

    fn fail_disk(&mut self, id: HostId, fault: disk::Fault, now_us: u64) {
        let nth = self.rng.between(1, 20);
        self.nodes[usize::from(id.0)].disk.fail(fault, nth);
        // When it strikes is open.
        self.trouble(Some(id), now_us, now_us + 10 * SECOND_US);
    }

    fn hosts(&self) -> Vec<HostId> {
        (0..self.plan.nodes).map(HostId).collect()
    }

    /// Some nodes, drawn, no longer hear from the others; in a total partition neither side from the other.
    fn part(&mut self, fault: Fault, now_us: u64, for_us: u64) {
        let hosts = self.hosts();
        let side: Vec<HostId> = hosts.iter().copied().filter(|_| self.rng.percent(40)).collect();
        let mut links = Vec::new();
        for from in &hosts {
            for to in &hosts {
                let crosses = side.contains(from) && !side.contains(to);
                if crosses {
                    links.push((*from, *to));
                    if fault == Fault::Partition {
                        links.push((*to, *from));
                    }
                }
            }
        }
        self.block(links, now_us, for_us);
        self.trouble(None, now_us, now_us + for_us);
    }

    /// One client and a node do not hear each other, or one not the other.
    fn send_client_away(&mut self, id: HostId, now_us: u64, for_us: u64) {
        let client = HostId(FIRST_CLIENT + self.rng.below(self.plan.load.clients.into()) as u8);
        let links = match self.rng.below(3) {
            0 => vec![(client, id)],
            1 => vec![(id, client)],
            _ => vec![(client, id), (id, client)],
        };
        self.block(links, now_us, for_us);
        self.trouble(Some(id), now_us, now_us + for_us);
    }

    fn block(&mut self, links: Vec<(HostId, HostId)>, now_us: u64, for_us: u64) {
        for (from, to) in &links {
            self.network.change_link(*from, *to, |link| link.blocked = true);
        }
        self.faults.plan(now_us + for_us, Action::Mend(links));
    }

    /// All links of one node, or those to one other.
    fn worsen(&mut self, id: HostId, now_us: u64, for_us: u64, change: impl Fn(&mut Link)) {
        let only = self
            .rng
            .percent(50)
            .then(|| HostId(self.rng.below(self.plan.nodes.into()) as u8));
        let clients = (0..self.plan.load.clients).map(|client| HostId(FIRST_CLIENT + client));
        let others = self.hosts().into_iter().chain(clients);
        let others: Vec<HostId> = others
            .filter(|other| *other != id && only.is_none_or(|only| only == *other))
            .collect();
        let links: Vec<_> = others
            .into_iter()
            .flat_map(|other| [(id, other), (other, id)])
            .collect();
        for (from, to) in &links {
            self.network.change_link(*from, *to, &change);
        }
        self.faults.plan(now_us + for_us, Action::Mend(links));
        self.recorder.trouble(Trouble {
            node: None,
            from_us: now_us,
            to_us: now_us + for_us + 3 * SECOND_US,
        });
    }

    /// A disk that is put back is noticed by those who met its later life, and where these are away not at all: that is no promise of the
    /// store. So it is put back only when all others run and hear each other.
    fn all_others_are_there(&self, id: HostId) -> bool {
        let others = self.nodes.iter().filter(|node| node.id != id);
        let run = others
            .clone()
            .all(|node| node.is_running() && node.paused_until_us.is_none());
        if run {
            others.for_each(|node| node.disk.cancel_crash());
        }
        run && self.network.is_as_usual(|host| host < HostId(FIRST_CLIENT))
    }

    /// The machine goes down and comes back with nothing on its disk, or with what was there at some moment before. False if it is this moment
    /// that it is put back to some time later.
    fn lose_disk(&mut self, id: HostId, fault: Fault, back_us: u64) -> bool {
        self.power_off(id, back_us);
        let node = &mut self.nodes[usize::from(id.0)];
        let image = self.faults.images.get(&id);
        let loss = match (fault, image) {
            (Fault::OldDisk, Some(image)) => {
                node.disk.restore(image);
                self.faults.watched_until_us = back_us + WATCHED_US;
                Loss::Newer
            }
            (Fault::OldDisk, None) => {
                self.faults.images.insert(id, node.disk.image());
                return false;
            }
            _ => {
                node.disk.wipe();
                // That of another node by now.
                self.faults.running_images.remove(&id);
                Loss::All
            }
        };
        self.recorder.lost_disk(id.0, loss);
        true
    }

    /// Copies what is durable on the disk of a node that runs; or, if there is such a copy and the disk holds more by now, plans to put it
    /// back. Only what the node has told the others is missed, so it has the time to tell this.
    fn copy_running(&mut self, id: HostId, now_us: u64) {
        let disk = &self.nodes[usize::from(id.0)].disk;
        let Ok(survey) = survey::of_disk(disk, &self.plan, &self.recorder) else {
            return;
        };
        match self.faults.running_images.get(&id) {
            None => {
                let image = disk.after_power_loss().image();
                self.faults.running_images.insert(id, (image, survey.clocks));
            }
            Some((_, clocks)) if clocks.covers(&survey.clocks) => {}
            Some(_) if self.all_others_are_there(id) => {
                let set_back_us = now_us + TELLING_US;
                self.faults.watched_until_us = set_back_us;
                self.faults.plan(set_back_us, Action::SetBack(id));
            }
            Some(_) => {}
        }
    }

    fn set_back(&mut self, id: HostId, now_us: u64) {
        if now_us >= self.plan.faults_end_us
            || !self.nodes[usize::from(id.0)].is_running()
            || !self.all_others_are_there(id)
        {
            return;
        }
        let Some((image, _)) = self.faults.running_images.remove(&id) else {
            return;
        };
        let back_us = now_us + self.rng.between(100, 1_000) * 1000;
        self.power_off(id, back_us);
        self.nodes[usize::from(id.0)].disk.restore(&image);
        self.faults.watched_until_us = back_us + WATCHED_US;
        self.recorder.lost_disk(id.0, Loss::Newer);
        self.faults.count(Fault::OldDisk);
    }

    /// Somewhere in what lies on the disk, a bit is another one, or a sector can no longer be read.
    fn spoil(&mut self, id: HostId, fault: Fault) {
        let node = &self.nodes[usize::from(id.0)];
        let mut files = node.disk.files();
        if fault == Fault::BadSector {
            // A node that cannot read who it is does not start, until somebody looks at its disk.
            files.retain(|(path, _)| !path.ends_with("node.json"));
        }
        if let Some((path, len)) = files.get(self.rng.below(files.len() as u64) as usize) {
            let (offset, bit) = (self.rng.below(*len), self.rng.below(8) as u8);
            match fault {
                Fault::BadSector => node.disk.spoil_sector(path, offset),
                _ => node.disk.flip_bit(path, offset, bit),
            }
            self.recorder.lost_disk(id.0, Loss::Bits);
        }
    }
}
