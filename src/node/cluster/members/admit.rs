//! Letting in, also in somebody's place.

use super::change::MemberRefused;
use super::table::{MemberState, MemberTable, Record};
use crate::core::slot::SYSTEM_SLOT;
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::types::{NodeId, WEIGHT_MAX};
use crate::wire::{Admission, Response};

/// What becomes of a node that asks to be let in.
#[derive(Debug, PartialEq, Eq)]
enum Seating {
    /// It is given the seat of this record, its own or another one's.
    Given(Record),
    /// It is given a seat of its own if the cluster holds no user data.
    IfNoData(Record),
    /// It has to empty its data folder and ask as a new node.
    StartOver,
}

/// The record that a node asks for.
fn asked_record(admission: &Admission, table: &MemberTable) -> Result<Record, MemberRefused> {
    let wrong = |what: &str| MemberRefused::Store(OpError::Peer(format!("not an address: {what}")));
    Ok(Record {
        node: NodeId(admission.node).to_string(),
        peer: admission.peer.parse().map_err(|_| wrong(&admission.peer))?,
        http: admission.http.parse().map_err(|_| wrong(&admission.http))?,
        zone: admission.zone.clone(),
        weight: admission.weight.clamp(1, WEIGHT_MAX.into()),
        state: MemberState::Up,
        seat: table.next_seat(),
        replaces: None,
        replication: table.replication() as u32,
    })
}

/// Where a node that asks for this record sits. `before` has its address, and is not there.
fn seating(
    node: NodeId,
    asked: Record,
    is_new: bool,
    table: &MemberTable,
    before: Option<(NodeId, &Record)>,
) -> Result<Seating, MemberRefused> {
    match table.get(node) {
        Some(held) if held.state == MemberState::Up => Ok(Seating::Given(Record {
            seat: held.seat,
            zone: held.zone.clone(),
            weight: held.weight,
            replaces: held.replaces.clone(),
            // Two at one address: gossip knows where this one is.
            peer: if before.is_some() { held.peer } else { asked.peer },
            ..asked
        })),
        // Another one had its address since, and is gone in turn.
        Some(held) if held.state == MemberState::Removed && before.is_none() => Err(MemberRefused::Removed(node)),
        None if !is_new && before.is_none() => Err(MemberRefused::NotEmpty(node)),
        _ if !is_new => Ok(Seating::StartOver),
        _ => Ok(match before {
            Some((lost, held)) => Seating::Given(Record {
                seat: held.seat,
                replaces: Some(lost.to_string()),
                ..asked
            }),
            None => Seating::IfNoData(asked),
        }),
    }
}

impl Inner {
    /// Lets a node in, or says why not.
    pub(in crate::node::cluster) async fn admit(&self, admission: Admission) -> Result<Response, MemberRefused> {
        let _one = self.members.changing.lock().await;
        let node = NodeId(admission.node);
        let mut table = self.layout().table.clone();
        let peer = asked_record(&admission, &table)?.peer;
        self.members.join_requests.note(node, peer, admission.is_new);
        let mut seating = self.seating_by(&table, &admission).await?;
        let (changes, lost) = match &seating {
            Seating::Given(record) | Seating::IfNoData(record) => (table.get(node) != Some(record), record.lost()),
            Seating::StartOver => (true, None),
        };
        if changes {
            let settled = self.table_to_change(lost).await;
            if settled != table {
                table = settled;
                seating = self.seating_by(&table, &admission).await?;
            }
        }
        let record = match seating {
            Seating::Given(record) => record,
            Seating::IfNoData(record) => {
                self.check_no_data(&table).await?;
                record
            }
            Seating::StartOver => return Ok(Response::StartOver),
        };
        if table.get(node) != Some(&record) {
            self.add_record(&record).await?;
            if let Some(lost) = &record.replaces {
                tracing::warn!(lost, %node, "an empty node takes the seat of the one that had its address");
            }
        }
        Ok(Response::Admitted {
            cluster: self.config.name.clone(),
            records: self.own_records().await?,
        })
    }

    async fn seating_by(&self, table: &MemberTable, admission: &Admission) -> Result<Seating, MemberRefused> {
        self.check_may_admit(table)?;
        let (node, asked) = (NodeId(admission.node), asked_record(admission, table)?);
        let at_address = table.up().filter(|(_, held)| held.peer == asked.peer);
        let before = at_address.filter(|(other, _)| *other != node).last();
        if let Some((other, _)) = before
            && (other == self.me || self.peers.get(other).is_some_and(|peer| peer.is_up()))
        {
            return Err(MemberRefused::Taken(asked.peer, other));
        }
        if before.is_some() && !table.is_up(node) {
            self.check_is_at(node, asked.peer).await?;
        }
        seating(node, asked, admission.is_new, table, before)
    }

    /// Whether this node is one that may let others in.
    fn check_may_admit(&self, table: &MemberTable) -> Result<(), MemberRefused> {
        // One that still copies what the others hold, and was restarted, knows only by its disk that there are others.
        let belonged = || !self.local.clock(SYSTEM_SLOT).is_ok_and(|clock| clock.is_empty());
        if table.is_empty() && self.clocks.is_new() && !belonged() {
            return Err(MemberRefused::NotMember);
        }
        // It would hand out what it has of the table for the whole of it.
        if self.clocks.is_new() {
            return Err(MemberRefused::ComingIn(self.me));
        }
        match table.is_up(self.me) {
            true => Ok(()),
            false => Err(MemberRefused::NotWhole(self.me)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node: u64, port: u16, seat: u32) -> Record {
        Record {
            node: NodeId(node).to_string(),
            peer: ([127, 0, 0, 1], port).into(),
            http: ([127, 0, 0, 1], port + 1).into(),
            zone: format!("zone-{seat}"),
            weight: 100 + seat,
            state: MemberState::Up,
            seat,
            replaces: None,
            replication: 3,
        }
    }

    fn table(records: &[Record]) -> MemberTable {
        let texts: Vec<String> = records
            .iter()
            .map(|record| serde_json::to_string(record).unwrap())
            .collect();
        MemberTable::of(&texts)
    }

    #[test]
    fn a_member_that_moves_keeps_its_seat_zone_and_weight() {
        let (held, asked) = (record(1, 7000, 0), record(1, 7100, 2));
        let table = table(&[held.clone(), record(2, 7002, 1)]);
        let moved = Record {
            peer: asked.peer,
            http: asked.http,
            ..held.clone()
        };
        for is_new in [true, false] {
            let seat = seating(NodeId(1), asked.clone(), is_new, &table, None);
            assert_eq!(seat, Ok(Seating::Given(moved.clone())));
        }
        // At the address of another one, which is away.
        let asked = record(1, 7002, 2);
        let before = table.get(NodeId(2)).map(|held| (NodeId(2), held));
        let Ok(Seating::Given(given)) = seating(NodeId(1), asked, false, &table, before) else {
            panic!("a member is a member");
        };
        assert_eq!((given.peer, given.seat, given.replaces), (held.peer, 0, None));
    }

    #[test]
    fn an_empty_node_takes_the_seat_of_the_lost_one_at_its_address() {
        let table = table(&[record(1, 7000, 0), record(2, 7002, 1)]);
        let before = table.get(NodeId(2)).map(|held| (NodeId(2), held));
        let Ok(Seating::Given(given)) = seating(NodeId(3), record(3, 7002, 2), true, &table, before) else {
            panic!("an empty node is given the lost one's seat");
        };
        assert_eq!((given.seat, given.replaces), (1, Some(NodeId(2).to_string())));
        // One that holds data has to be emptied first.
        let seat = seating(NodeId(3), record(3, 7002, 2), false, &table, before);
        assert_eq!(seat, Ok(Seating::StartOver));
    }

    #[test]
    fn a_stranger_sits_on_a_new_seat_if_it_is_empty() {
        let table = table(&[record(1, 7000, 0)]);
        let asked = record(3, 7004, 1);
        let seat = seating(NodeId(3), asked.clone(), true, &table, None);
        assert_eq!(seat, Ok(Seating::IfNoData(asked.clone())));
        let refused = seating(NodeId(3), asked, false, &table, None);
        assert_eq!(refused, Err(MemberRefused::NotEmpty(NodeId(3))));
    }

    #[test]
    fn a_removed_node_comes_back_only_in_the_place_of_a_lost_one() {
        let removed = Record {
            state: MemberState::Removed,
            ..record(2, 7002, 1)
        };
        let table = table(&[record(1, 7000, 0), record(2, 7002, 1), removed]);
        for is_new in [true, false] {
            let refused = seating(NodeId(2), record(2, 7002, 2), is_new, &table, None);
            assert_eq!(refused, Err(MemberRefused::Removed(NodeId(2))));
        }
        let before = table.get(NodeId(1)).map(|held| (NodeId(1), held));
        let seat = seating(NodeId(2), record(2, 7000, 2), true, &table, before);
        let Ok(Seating::Given(given)) = seat else {
            panic!("an empty node is given the lost one's seat");
        };
        assert_eq!((given.seat, given.replaces), (0, Some(NodeId(1).to_string())));
    }
}
