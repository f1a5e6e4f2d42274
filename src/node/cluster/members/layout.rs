//! The member table as it is now, and the placement that follows from it.
//!
//! The table changes when its records do, wherever they were written: they come by the same stream as everything else. Links to the
//! members follow the table, and their addresses the gossip.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::table::{MemberTable, Record};
use crate::core::placement::Placement;
use crate::core::slot::{SLOT_COUNT, SYSTEM_SLOT, SlotId};
use crate::node::cluster::{ClusterError, Inner, TICK};
use crate::node::membership::ClusterView;
use crate::types::NodeId;

/// One state of the table.
#[derive(Default)]
pub(in crate::node::cluster) struct Layout {
    pub(in crate::node::cluster) table: MemberTable,
    pub(in crate::node::cluster) placement: Placement,
    /// Of every node, its slots of users' data. Rounds of catching up ask for them again and again.
    slots: BTreeMap<NodeId, NodeSlots>,
}

/// The slots of one node, in order, as another one sees them.
#[derive(Default)]
struct NodeSlots {
    /// That both hold.
    shared: Vec<SlotId>,
    /// That the other one does not hold.
    foreign: Vec<SlotId>,
}

impl Layout {
    /// As `me` sees it.
    fn of(table: MemberTable, me: NodeId) -> Self {
        let placement = Placement::of(&table.seats(), table.replication());
        let mut slots: BTreeMap<NodeId, NodeSlots> = BTreeMap::new();
        for slot in (0..SLOT_COUNT).map(SlotId) {
            let replicas = placement.replicas(slot);
            let is_shared = replicas.contains(&me);
            for node in replicas {
                let node = slots.entry(*node).or_default();
                let part = if is_shared { &mut node.shared } else { &mut node.foreign };
                part.push(slot);
            }
        }
        Self {
            table,
            placement,
            slots,
        }
    }

    /// How many slots of users' data the node holds.
    pub(in crate::node::cluster) fn slots_of(&self, node: NodeId) -> usize {
        let slots = self.slots.get(&node);
        slots.map_or(0, |slots| slots.shared.len() + slots.foreign.len())
    }

    /// The slots of users' data that both this node and `node` hold, in order: of this node, all that it holds.
    pub(in crate::node::cluster) fn shared_with(&self, node: NodeId) -> &[SlotId] {
        self.slots.get(&node).map_or(&[], |slots| &slots.shared)
    }

    /// The slots that `node` holds and this node does not, in order.
    pub(in crate::node::cluster) fn foreign_of(&self, node: NodeId) -> &[SlotId] {
        self.slots.get(&node).map_or(&[], |slots| &slots.foreign)
    }
}

#[derive(Default)]
pub(super) struct Layouts {
    current: ArcSwap<Layout>,
    /// The digest of the system slot's clock that the table was read at.
    read_at: parking_lot::Mutex<Option<u64>>,
    /// One reads it at a time, or who read less would come last.
    reading: tokio::sync::Mutex<()>,
}

impl Inner {
    /// The member table as this node goes by it now.
    pub(in crate::node::cluster) fn layout(&self) -> Arc<Layout> {
        self.members.layouts.current.load_full()
    }

    pub(in crate::node::cluster) async fn load_table(&self) -> Result<(), ClusterError> {
        let _one = self.members.layouts.reading.lock().await;
        let digest = self
            .local
            .digest(SYSTEM_SLOT)
            .map_err(|error| ClusterError::Table(error.to_string()))?;
        if *self.members.layouts.read_at.lock() == Some(digest) {
            return Ok(());
        }
        // A new node's disk may hold some records and lack others: it goes by what it was told when it was let in.
        if self.clocks.is_new() {
            return Ok(());
        }
        let records = self.own_records().await;
        let records = records.map_err(|error| ClusterError::Table(error.to_string()))?;
        *self.members.layouts.read_at.lock() = Some(digest);
        if !records.is_empty() {
            self.take_table(MemberTable::of(&records));
        }
        Ok(())
    }

    /// Whether this is the table as this disk has it now.
    pub(in crate::node::cluster) fn is_as_on_disk(&self, layout: &Arc<Layout>) -> bool {
        let read_at = *self.members.layouts.read_at.lock();
        let is_last = read_at.is_some() && read_at == self.local.digest(SYSTEM_SLOT).ok();
        is_last && Arc::ptr_eq(layout, &self.layout())
    }

    /// A table that another member told. It may be older than what this disk holds, which is looked at once more.
    pub(in crate::node::cluster) fn take_told_table(&self, table: MemberTable) {
        self.take_table(table);
        *self.members.layouts.read_at.lock() = None;
    }

    /// Goes by this table from here on, unless it lacks members that are known already: records are never taken back, so it is one that has
    /// not come whole yet.
    pub(super) fn take_table(&self, table: MemberTable) {
        let current = self.layout();
        let is_behind = current.table.members().any(|(node, _)| table.get(node).is_none());
        if current.table == table || is_behind {
            return;
        }
        tracing::info!(members = table.up().count(), "the member table changed");
        let layout = Layout::of(table, self.me);
        self.members.layouts.current.store(Arc::new(layout));
    }

    fn set_links(&self, view: &ClusterView) {
        let layout = self.layout();
        let others = layout.table.up().filter(|(node, _)| *node != self.me);
        let address = |node: NodeId, record: &Record| -> SocketAddr {
            let gossip = view.nodes.get(&node).filter(|seen| seen.alive);
            gossip.map_or(record.peer, |seen| seen.about.peer)
        };
        let members: BTreeMap<NodeId, SocketAddr> =
            others.map(|(node, record)| (node, address(node, record))).collect();
        self.peers.set_members(&members);
    }
}

/// Follows the table and the gossip for as long as the node runs.
pub(in crate::node::cluster) async fn watch(inner: Arc<Inner>, mut view: watch::Receiver<ClusterView>) {
    loop {
        if let Err(error) = inner.load_table().await {
            tracing::warn!(%error, "the member table cannot be read now");
        }
        let seen = view.borrow_and_update().clone();
        inner.set_links(&seen);
        tokio::select! {
            biased;
            changed = view.changed() => if changed.is_err() {
                // Gossip has ended: the node is going down, or goes on by the table alone.
                tokio::time::sleep(TICK).await;
            },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::MemberState;
    use super::*;

    #[test]
    fn each_slot_of_a_node_is_either_shared_or_foreign() {
        let record = |seat: u32| Record::written(seat.into(), 1, seat, MemberState::Up);
        let records: Vec<String> = (0..7).map(record).collect();
        // One of the members, and one that waits to be let in.
        for me in [NodeId(2), NodeId(9)] {
            let layout = Layout::of(MemberTable::of(&records), me);
            for node in (0..7).map(NodeId) {
                let holds = |slot: &SlotId| layout.placement.replicas(*slot).contains(&node);
                let is_mine = |slot: &SlotId| layout.placement.replicas(*slot).contains(&me);
                let slots = (0..SLOT_COUNT).map(SlotId).filter(holds);
                let (shared, foreign): (Vec<SlotId>, Vec<SlotId>) = slots.partition(is_mine);
                assert_eq!(layout.shared_with(node), shared);
                assert_eq!(layout.foreign_of(node), foreign);
                assert_eq!(layout.slots_of(node), shared.len() + foreign.len());
            }
            assert!(layout.shared_with(NodeId(9)).is_empty() && layout.foreign_of(NodeId(9)).is_empty());
        }
    }
}
