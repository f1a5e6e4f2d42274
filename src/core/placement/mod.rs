//! Placement: which nodes hold each slot, as a pure function of the seats that every node computes alike.
//!
//! # How
//!
//! A *place* is one replica of one slot, so there are 1024 times `replication` of them. The first `replication` seats hold every slot;
//! each later seat, in the order of the seats, then takes its share of places from those before it:
//!
//! 1. [`share`] says how many slots each seat should hold now, by its weight and by what the zones allow.
//! 2. Let the newest seat hold every slot as well. Then each slot is held once too often, and one of its seats has to leave it: the newest
//!    itself, or one that it replaces. Only seats may leave whose zone can spare them ([`Fold::may_leave`]).
//! 3. [`choice`] picks who leaves, such that each seat ends as near to its share as can be, going through the slots in the order of
//!    a hash of slot and newest seat.
//! 4. Where zones are so unequal that this leaves a seat two slots off, [`relocation`] moves those few between other seats.
//!
//! Last, the first of each slot's order of preference is chosen, by [`choice`] too, such that each seat comes first in one of
//! `replication` of its slots; the others follow in the order of a hash of slot and seat.
//!
//! The hash takes the seat's number and not its node: whoever sits there holds the same.
//!
//! # What follows
//!
//! - A new seat gains its share, and but for relocation nobody else gains anything. No share grows when a seat is added, so taking is all
//!   that a new seat has to do.
//! - A seat holds its share, rounded to whole slots (less than two off in all that was tried), and comes first in its part of them, rounded too.
//! - Zones come before balance: each slot is spread over the zones as evenly as their seats allow ([`share::Room`]).
//!
//! # Where it is from
//!
//! Choosing by a hash of slot and member is rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit
//! rates", 1998), which alone leaves the fullest of 100 nodes almost half as full again as the mean. That a new device takes its share from
//! the fullest is how the ring builder of OpenStack Swift works; here the choice is exact (Harvey, Ladner, Lovász and Tamir,
//! "Semi-matchings for bipartite graphs and load balancing", 2006). Zones as capacities are those of Garage (Oulamara and Auvolat, "An
//! algorithm for geo-distributed and redundant storage in Garage", 2023), whose layout is computed once and then stored; a fold over
//! the seats needs nothing stored but the seats.
//!
//! Invariant: the result for given seats never changes, in any version: two nodes that differ in it would look for a slot in different
//! places.

mod balance;
mod choice;
mod relocation;
mod share;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::slot::{SLOT_COUNT, SYSTEM_SLOT, SlotId};
use crate::types::NodeId;
use share::{Member, ONE, Room};

const SLOTS: usize = SLOT_COUNT as usize;

/// A place in the cluster: who sits there now, in which zone, with what weight. Seats are in the order in which they were taken;
/// `replace` changes who sits, never the seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub node: NodeId,
    pub zone: String,
    /// 1 to 1000: the share of this seat relative to that of the others.
    pub weight: u32,
}

/// Who holds which slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    nodes: Vec<NodeId>,
    /// How many nodes hold each slot.
    width: usize,
    /// `width` nodes for each slot in turn.
    replicas: Vec<NodeId>,
}

impl Placement {
    /// Of seats with distinct nodes, which the caller sees to. A `replication` of none counts as one.
    pub fn of(seats: &[Seat], replication: usize) -> Self {
        let nodes: Vec<NodeId> = seats.iter().map(|seat| seat.node).collect();
        let width = replication.clamp(1, seats.len().max(1));
        if seats.is_empty() {
            let replicas = Vec::new();
            return Self { nodes, width, replicas };
        }
        let mut fold = Fold::of_first(width, members(seats));
        for newest in width..seats.len() {
            fold.seat(newest);
        }
        let order = fold.in_order_of_preference();
        let replicas = order.into_iter().flatten().map(|seat| nodes[seat]).collect();
        Self { nodes, width, replicas }
    }

    /// The nodes that hold `slot`, the preferred one first: as many as `replication` says, or all while there are fewer. Every node holds the
    /// system slot; none holds a slot that does not exist.
    pub fn replicas(&self, slot: SlotId) -> &[NodeId] {
        if slot == SYSTEM_SLOT {
            return &self.nodes;
        }
        let start = usize::from(slot.0) * self.width;
        self.replicas.get(start..start + self.width).unwrap_or_default()
    }

    /// All nodes, in the order of their seats.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }
}

/// The seats with their zones as numbers. What a zone is called must not matter, so they count from the first seat on.
fn members<'a>(seats: &'a [Seat]) -> Vec<Member> {
    let mut zones = BTreeMap::new();
    let member = |seat: &'a Seat| {
        let next = zones.len();
        Member::new(*zones.entry(seat.zone.as_str()).or_insert(next), seat.weight)
    };
    seats.iter().map(member).collect()
}

fn hash(slot: usize, seat: usize) -> u64 {
    xxh3_64(&((slot as u64) << 32 | seat as u64).to_le_bytes())
}

/// The state of the fold over the seats: who holds what, of the seats that had their turn.
struct Fold {
    members: Vec<Member>,
    /// For each slot, the seats that hold it.
    held: Vec<Vec<usize>>,
    /// For each seat, how many slots it holds.
    load: Vec<i64>,
}

impl Fold {
    fn of_first(width: usize, members: Vec<Member>) -> Self {
        let mut load = vec![0; members.len()];
        load[..width].fill(SLOTS as i64);
        Self {
            members,
            held: vec![(0..width).collect(); SLOTS],
            load,
        }
    }

    /// Gives `newest` its share of what the seats before it hold.
    fn seat(&mut self, newest: usize) {
        let members = &self.members[..=newest];
        let width = self.held[0].len();
        let rooms = Room::of_zones(members, width);
        let shares = share::of_members(members, &rooms, width);
        let mut due = self.excess(&shares);
        due[newest] += SLOTS as i64 * ONE;
        let may_leave = |held: &Vec<usize>| self.may_leave(held, newest, &rooms);
        let candidates: Vec<Vec<usize>> = self.held.iter().map(may_leave).collect();
        let mut order: Vec<usize> = (0..SLOTS).collect();
        order.sort_by_cached_key(|slot| hash(*slot, newest));
        let leaving = choice::choose(&candidates, &order, &due);
        for (slot, leaving) in leaving.into_iter().enumerate() {
            if leaving != newest {
                self.replace(slot, leaving, newest);
            }
        }
        relocation::even_out(self, &shares, &rooms, &order);
    }

    /// How much more than its share each seat holds, of those that shares are given for.
    fn excess(&self, shares: &[i64]) -> Vec<i64> {
        let seats = self.load.iter().zip(shares);
        seats.map(|(load, share)| load * ONE - share).collect()
    }

    fn replace(&mut self, slot: usize, leaving: usize, joining: usize) {
        if let Some(place) = self.held[slot].iter_mut().find(|seat| **seat == leaving) {
            *place = joining;
            self.load[leaving] -= 1;
            self.load[joining] += 1;
        }
    }

    /// The seats of which one has to leave a slot that `newest` joins, `newest` first. All must be left in the slot's zones that they need,
    /// and none may hold more than it has room for.
    fn may_leave(&self, held: &[usize], newest: usize, rooms: &[Room]) -> Vec<usize> {
        let zone = |seat: &usize| self.members[*seat].zone;
        let all = || std::iter::once(&newest).chain(held);
        let count = |of: usize| all().filter(|seat| zone(seat) == of).count();
        let crowded = all().map(zone).find(|zone| count(*zone) > rooms[*zone].most);
        let spared = |seat: &&usize| match crowded {
            Some(crowded) => zone(seat) == crowded,
            None => count(zone(seat)) > rooms[zone(seat)].least,
        };
        all().filter(spared).copied().collect()
    }

    /// The seats of each slot, the preferred one first.
    fn in_order_of_preference(mut self) -> Vec<Vec<usize>> {
        for (slot, held) in self.held.iter_mut().enumerate() {
            held.sort_by_cached_key(|seat| hash(slot, *seat));
        }
        let width = self.held[0].len() as i64;
        let due: Vec<i64> = self.load.iter().map(|load| load * ONE / width).collect();
        let slots: Vec<usize> = (0..SLOTS).collect();
        let first = choice::choose(&self.held, &slots, &due);
        for (held, first) in self.held.iter_mut().zip(first) {
            held.sort_by_key(|seat| *seat != first);
        }
        self.held
    }
}
