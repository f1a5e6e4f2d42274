//! Planted bugs: worlds that lie, each in one way, to prove that the checks find it.
//!
//! Some lie to the nodes (a disk that does not sync, entropy that repeats), which is what a node with that bug would look like; others
//! lie to a client in the place of a node, about one call in thirty.

use std::collections::BTreeMap;

use super::history::{Answer, Level, Outcome, Place, Value, What};
use super::plan::{Fault, Plan, SECOND_US, Topology};
use super::record::Asked;
use crate::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// `sync_data` returns, and nothing was synced.
    SyncSkipped,
    /// The same for directories.
    DirSyncSkipped,
    /// An add is acknowledged and was never carried out.
    AckWithoutWrite,
    /// An add is carried out twice.
    WrittenTwice,
    /// A read shows what an earlier one showed.
    OldList,
    /// Values that a clear took come back.
    ClearedShown,
    /// Two neighbours change places.
    Swapped,
    /// A value lacks its first part.
    PartLost,
    /// The last value is not there yet.
    LastMissing,
    /// A value of another key is in the list.
    ForeignText,
    CountOff,
    KeyUnlisted,
    /// One replica ends without the last value.
    ReplicaBehind,
    /// Some calls are never answered.
    NeverAnswered,
}

impl Lie {
    pub const ALL: [Self; 14] = [
        Self::SyncSkipped,
        Self::DirSyncSkipped,
        Self::AckWithoutWrite,
        Self::WrittenTwice,
        Self::OldList,
        Self::ClearedShown,
        Self::Swapped,
        Self::PartLost,
        Self::LastMissing,
        Self::ForeignText,
        Self::CountOff,
        Self::KeyUnlisted,
        Self::ReplicaBehind,
        Self::NeverAnswered,
    ];

    /// The check that is there for this lie and has to find it, whatever others see as well.
    pub fn found_by(self) -> &'static str {
        match self {
            Self::SyncSkipped | Self::DirSyncSkipped => "G1 durable",
            Self::AckWithoutWrite | Self::OldList | Self::LastMissing | Self::CountOff | Self::KeyUnlisted => {
                "G4 reads"
            }
            Self::WrittenTwice => "G6 exactly once",
            Self::ClearedShown => "G8 no resurrection",
            Self::Swapped => "G5 order",
            Self::PartLost => "G7 parts",
            Self::ForeignText => "G9, and nothing is invented",
            Self::ReplicaBehind => "G2 nothing acknowledged is lost",
            Self::NeverAnswered => "answers in time",
        }
    }

    /// A world in which this lie can be told, and little else happens.
    pub fn plan(self, rng: &mut Rng) -> Plan {
        let mut plan = Plan::alone(rng);
        plan.planted = Some(self);
        plan.topology = Topology::Separate;
        plan.nodes = 1;
        plan.skews.truncate(1);
        plan.faults = match self {
            Self::SyncSkipped | Self::DirSyncSkipped => vec![(Fault::PowerLoss, 4 * SECOND_US)],
            _ => Vec::new(),
        };
        plan.faults_end_us = 20 * SECOND_US;
        plan.link.loss_percent = 0;
        plan.load.clients = 4;
        plan.load.users = 2;
        plan.load.keys = 3;
        plan.load.think_ms_max = 100;
        plan.load.timeout_ms = 10_000;
        plan.load.part_percent = 20;
        plan.load.clear_percent = if self == Self::ClearedShown { 6 } else { 1 };
        plan.load.one_percent = 0;
        plan
    }

    pub fn is_now(rng: &mut Rng) -> bool {
        rng.percent(3)
    }
}

/// What a lying node remembers.
#[derive(Debug, Default)]
pub struct Memory {
    lists: BTreeMap<Place, Vec<Value>>,
}

impl Memory {
    /// What the client hears in place of `outcome`.
    pub fn tell(&mut self, lie: Lie, rng: &mut Rng, asked: &Asked, outcome: Outcome) -> Outcome {
        let Outcome::Answered(answer) = outcome else {
            return outcome;
        };
        let is_now = Lie::is_now(rng) || asked.is_last;
        let told = match (&asked.what, answer) {
            (What::Get, Answer::Values(values)) => self.list(lie, is_now, asked, values),
            (What::Count, Answer::Count(count)) if lie == Lie::CountOff && is_now => Answer::Count(count + 1),
            (What::List(_), Answer::Keys { mut keys, next }) if lie == Lie::KeyUnlisted => {
                keys.pop();
                Answer::Keys { keys, next }
            }
            (_, answer) => answer,
        };
        Outcome::Answered(told)
    }

    fn list(&mut self, lie: Lie, is_now: bool, asked: &Asked, values: Vec<Value>) -> Answer {
        let kept = match lie {
            // From before a clear: the longest that was seen.
            Lie::ClearedShown => self.lists.get(&asked.place).filter(|kept| kept.len() > values.len()),
            _ => self.lists.get(&asked.place),
        };
        let mut told = values.clone();
        if is_now {
            match lie {
                Lie::OldList | Lie::ClearedShown => told = kept.cloned().unwrap_or(told),
                Lie::Swapped if told.len() > 1 => {
                    let last = told.len() - 1;
                    told.swap(0, last);
                }
                Lie::PartLost => {
                    if let Some(value) = told.iter_mut().find(|value| value.len() > 1) {
                        value.remove(0);
                    }
                }
                Lie::LastMissing if asked.level >= Level::Quorum => drop(told.pop()),
                Lie::ForeignText => {
                    let foreign = self
                        .lists
                        .iter()
                        .find(|(place, list)| **place != asked.place && !list.is_empty());
                    told.extend(foreign.map(|(_, list)| list[0].clone()));
                }
                Lie::ReplicaBehind if asked.is_last => drop(told.pop()),
                _ => {}
            }
        }
        if lie != Lie::ClearedShown || kept.is_none() {
            self.lists.insert(asked.place, values);
        }
        Answer::Values(told)
    }
}
