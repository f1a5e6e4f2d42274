//! The member table: who belongs to the cluster. Pure.
//!
//! It is kept as the values of one key of the system's own key range, one record per change; the table is the fold of the records in
//! the order of their stamps, so all nodes that hold the same records see the same table. The last record of a node counts.
//!
//! A member sits on a *seat*; placement knows seats alone. `replace` puts another node on a seat, and nothing has to move but the copy of
//! what the old one held.
//!
//! Invariant: on each seat sits one node: of two records that say otherwise the later one counts. Who sits elsewhere keeps its seat, whatever is
//! done with another one, and a seat keeps its zone and weight, so no record but that of a new seat moves data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::core::placement::Seat;
use crate::types::NodeId;

/// What the table says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    Up,
    /// It belongs no more; its seat is empty or another's.
    Removed,
    /// It was let in at the same time as another one, which has the seat. No record says so; it follows from two of them. It has to ask again.
    Displaced,
}

/// One record, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 16 hex digits.
    pub node: String,
    pub peer: SocketAddr,
    pub http: SocketAddr,
    pub zone: String,
    pub weight: u32,
    pub state: MemberState,
    pub seat: u32,
    /// The node that had the seat until this record.
    #[serde(default)]
    pub replaces: Option<String>,
    /// Replicas of each slot; the first record's counts.
    pub replication: u32,
}

impl Record {
    /// The node whose seat this gives away. What cannot be read is nobody.
    pub(super) fn lost(&self) -> Option<NodeId> {
        self.replaces.as_ref()?.parse().ok()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberTable {
    members: BTreeMap<NodeId, Record>,
    /// Who was ever put on whose seat, also if others had it since: the new node, and the one that it replaced.
    replacements: BTreeSet<(NodeId, NodeId)>,
    replication: u32,
}

impl MemberTable {
    /// What cannot be read is passed over: it is not of this version.
    pub fn of(records: &[String]) -> Self {
        let mut table = Self::default();
        for text in records {
            match serde_json::from_str::<Record>(text) {
                Ok(record) => table.take(record),
                Err(error) => tracing::warn!(%error, "a record of the member table cannot be read"),
            }
        }
        table
    }

    fn take(&mut self, mut record: Record) {
        let Ok(node) = record.node.parse::<NodeId>() else {
            return;
        };
        if self.replication == 0 {
            self.replication = record.replication.max(1);
        }
        let replaced = record.lost();
        if record.state == MemberState::Up {
            self.replacements.extend(replaced.map(|old| (node, old)));
            if let Some(taken) = self.taken_by(node, replaced, &record) {
                let (seat, zone, weight) = (taken.seat, taken.zone.clone(), taken.weight);
                record = Record {
                    seat,
                    zone,
                    weight,
                    ..record
                };
            }
            for (other, held) in &mut self.members {
                if *other == node || held.state != MemberState::Up {
                    continue;
                }
                if held.seat == record.seat {
                    held.state = match held.peer == record.peer || replaced == Some(*other) {
                        true => MemberState::Removed,
                        false => MemberState::Displaced,
                    };
                }
            }
        }
        self.members.insert(node, record);
    }

    /// Whose seat the record puts the node on: its own, that of the one it replaces or whose address it has; or a new one.
    fn taken_by(&self, node: NodeId, replaced: Option<NodeId>, record: &Record) -> Option<&Record> {
        let own = self.get(node).filter(|held| held.state == MemberState::Up);
        let replaced = || self.get(replaced?);
        let at_address = || self.up().map(|(_, held)| held).find(|held| held.peer == record.peer);
        own.or_else(replaced).or_else(at_address)
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn replication(&self) -> usize {
        self.replication as usize
    }

    pub fn is_removed(&self, node: NodeId) -> bool {
        self.members
            .get(&node)
            .is_some_and(|record| record.state == MemberState::Removed)
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.members
            .get(&node)
            .is_some_and(|record| record.state == MemberState::Up)
    }

    pub fn has_replaced(&self, new: NodeId, old: NodeId) -> bool {
        self.replacements.contains(&(new, old))
    }

    pub fn get(&self, node: NodeId) -> Option<&Record> {
        self.members.get(&node)
    }

    /// Those who belong.
    pub fn up(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.members().filter(|(_, record)| record.state == MemberState::Up)
    }

    /// All that ever belonged.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.members.iter().map(|(node, record)| (*node, record))
    }

    /// The seats that are taken, in their order.
    pub fn seats(&self) -> Vec<Seat> {
        let seat = |(node, record): (NodeId, &Record)| {
            let (zone, weight) = (record.zone.clone(), record.weight);
            (record.seat, Seat { node, zone, weight })
        };
        let seats: BTreeMap<u32, Seat> = self.up().map(seat).collect();
        seats.into_values().collect()
    }

    /// How many seats somebody has, or had: those who are gone for good count, for nobody waits for them; who took over the seat of another one
    /// does not count twice, and of two that were let in to one seat, the one that has to ask again is still on its way.
    pub fn seats_ever(&self) -> usize {
        let seats: BTreeSet<u32> = self.members.values().map(|record| record.seat).collect();
        seats.len()
    }

    /// A seat that nobody ever had.
    pub fn next_seat(&self) -> u32 {
        self.members
            .values()
            .map(|record| record.seat.saturating_add(1))
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
impl Record {
    /// As it is written, of a node on this machine in a cluster of one zone that keeps three replicas.
    pub(super) fn written(node: u64, port: u16, seat: u32, state: MemberState) -> String {
        let record = Self {
            node: NodeId(node).to_string(),
            peer: ([127, 0, 0, 1], port).into(),
            http: ([127, 0, 0, 1], 2).into(),
            zone: "z".to_owned(),
            weight: 100,
            state,
            seat,
            replaces: None,
            replication: 3,
        };
        serde_json::to_string(&record).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node: u64, seat: u32, state: MemberState) -> String {
        Record::written(node, node as u16, seat, state)
    }

    fn sitting(records: &[String]) -> Vec<u64> {
        MemberTable::of(records)
            .seats()
            .iter()
            .map(|seat| seat.node.0)
            .collect()
    }

    #[test]
    fn the_last_record_of_a_node_counts_and_seats_keep_their_order() {
        let mut records = vec![
            record(9, 0, MemberState::Up),
            record(5, 1, MemberState::Up),
            record(7, 2, MemberState::Up),
        ];
        assert_eq!(sitting(&records), [9, 5, 7]);
        records.extend([record(5, 1, MemberState::Removed), record(3, 1, MemberState::Up)]);
        assert_eq!(sitting(&records), [9, 3, 7]);
        assert_eq!(MemberTable::of(&records).next_seat(), 3);
        assert!(!MemberTable::of(&records).is_up(NodeId(5)));
    }

    #[test]
    fn of_two_at_one_address_the_later_one_belongs() {
        let records = [
            Record::written(9, 1, 0, MemberState::Up),
            Record::written(5, 2, 1, MemberState::Up),
            Record::written(7, 2, 1, MemberState::Up),
        ];
        assert_eq!(sitting(&records), [9, 7]);
        assert!(!MemberTable::of(&records).is_up(NodeId(5)));
    }

    #[test]
    fn of_two_that_claim_one_seat_the_later_one_sits_and_the_other_may_ask_again() {
        let mut records = vec![
            record(9, 0, MemberState::Up),
            record(5, 1, MemberState::Up),
            record(7, 1, MemberState::Up),
        ];
        assert_eq!(sitting(&records), [9, 7]);
        let table = MemberTable::of(&records);
        assert_eq!(table.get(NodeId(5)).unwrap().state, MemberState::Displaced);
        assert_eq!(table.seats_ever(), 2, "it is not in yet");
        records.push(record(5, table.next_seat(), MemberState::Up));
        assert_eq!(sitting(&records), [9, 7, 5]);
        assert_eq!(MemberTable::of(&records).seats_ever(), 3);
        records.push(record(7, 1, MemberState::Removed));
        assert_eq!(MemberTable::of(&records).seats_ever(), 3, "nobody waits for it");
    }

    #[test]
    fn nobody_moves_when_another_seat_changes_hands() {
        let on_seat = |node: u64, port: u16, seat| Record::written(node, port, seat, MemberState::Up);
        let mut records = vec![on_seat(9, 1, 0), on_seat(5, 2, 1), on_seat(7, 3, 1), on_seat(5, 2, 2)];
        for (node, sits) in [(1, [9, 7, 1]), (8, [9, 7, 8]), (5, [9, 7, 5])] {
            // From the address of the one before, whatever seat the record names.
            records.push(on_seat(node, 2, 1));
            assert_eq!(sitting(&records), sits);
        }
    }

    #[test]
    fn a_seat_keeps_its_zone_and_weight_whoever_sits_there() {
        let mut records = vec![
            Record::written(9, 1, 0, MemberState::Up),
            Record::written(5, 2, 1, MemberState::Up),
        ];
        let before = MemberTable::of(&records).seats();
        for (node, replaces) in [(5, None), (7, None), (8, Some(7))] {
            let mut other: Record = serde_json::from_str(&Record::written(node, 2, 1, MemberState::Up)).unwrap();
            other.zone = "elsewhere".to_owned();
            other.weight = 900;
            other.replaces = replaces.map(|old| NodeId(old).to_string());
            records.push(serde_json::to_string(&other).unwrap());
            let seats = MemberTable::of(&records).seats();
            assert_eq!(seats[1].node, NodeId(node));
            assert_eq!((&seats[1].zone, seats[1].weight), (&before[1].zone, before[1].weight));
        }
    }

    /// Its old disk came back after another one had its seat.
    #[test]
    fn who_replaced_somebody_did_so_also_if_others_had_the_seat_since() {
        let on_seat = |node: u64, replaces: Option<u64>| {
            let mut taken: Record = serde_json::from_str(&Record::written(node, 2, 1, MemberState::Up)).unwrap();
            taken.replaces = replaces.map(|old| NodeId(old).to_string());
            serde_json::to_string(&taken).unwrap()
        };
        let records = [
            on_seat(5, None),
            on_seat(7, Some(5)),
            on_seat(8, Some(7)),
            on_seat(7, Some(8)),
        ];
        let table = MemberTable::of(&records);
        let replaced = |new: u64, old: u64| table.has_replaced(NodeId(new), NodeId(old));
        assert!(replaced(7, 5) && replaced(8, 7) && replaced(7, 8));
        assert!(!replaced(8, 5) && !replaced(5, 7));
    }

    #[test]
    fn who_moves_to_the_address_of_another_one_leaves_it_on_its_seat() {
        let records = [
            Record::written(9, 1, 0, MemberState::Up),
            Record::written(5, 2, 1, MemberState::Up),
            Record::written(7, 3, 2, MemberState::Up),
            Record::written(5, 3, 1, MemberState::Up),
        ];
        assert_eq!(sitting(&records), [9, 5, 7]);
    }

    #[test]
    fn records_that_cannot_be_read_are_passed_over() {
        assert_eq!(
            sitting(&["{".to_owned(), record(1, 0, MemberState::Up), "{\"node\":1}".to_owned()]),
            [1]
        );
    }
}
