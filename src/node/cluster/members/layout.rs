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
use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::{ClusterError, Inner, TICK};
use crate::node::membership::ClusterView;
use crate::types::NodeId;

/// One state of the table.
#[derive(Default)]
pub(in crate::node::cluster) struct Layout {
    pub(in crate::node::cluster) table: MemberTable,
    pub(in crate::node::cluster) placement: Placement,
}

impl Layout {
    /// How many slots of users' data the node holds.
    pub(in crate::node::cluster) fn slots_of(&self, node: NodeId) -> usize {
        // Everybody holds the system's.
        let slots = self.placement.slots_of(node);
        slots.filter(|slot| *slot != SYSTEM_SLOT).count()
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
        let placement = Placement::of(&table.seats(), table.replication());
        tracing::info!(members = table.up().count(), "the member table changed");
        self.members
            .layouts
            .current
            .store(Arc::new(Layout { table, placement }));
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
