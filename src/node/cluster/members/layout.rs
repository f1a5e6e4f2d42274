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
use crate::node::{OpError, Terms};
use crate::types::{Consistency, Key, NodeId, UserId};

/// The key of the system's range that holds the table.
const TABLE_KEY: &str = "cluster/members";
/// Records read at once, bytes.
const READ_BYTES: usize = 64 << 10;

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
pub(in crate::node::cluster) struct Layouts {
    current: ArcSwap<Layout>,
    /// The digest of the system slot's clock that the table was read at.
    read_at: parking_lot::Mutex<Option<u64>>,
}

impl Layouts {
    pub(in crate::node::cluster) fn current(&self) -> Arc<Layout> {
        self.current.load_full()
    }
}

pub(super) fn table_key() -> Result<Key, OpError> {
    Key::new(TABLE_KEY).map_err(|error| OpError::Internal(error.to_string()))
}

impl Inner {
    /// The table's records, by this disk.
    pub(super) async fn own_records(&self) -> Result<Vec<String>, OpError> {
        let mut reader = self.local.get(&UserId::system(), &table_key()?, 0, u64::MAX)?;
        let (mut records, mut open) = (Vec::new(), String::new());
        loop {
            let fragments = reader.next(READ_BYTES).await?;
            if fragments.is_empty() {
                return Ok(records);
            }
            for fragment in fragments {
                open.push_str(fragment.text.as_ref());
                if fragment.ends_value {
                    records.push(std::mem::take(&mut open));
                }
            }
        }
    }

    pub(in crate::node::cluster) async fn load_table(&self) -> Result<(), ClusterError> {
        let digest = self
            .local
            .digest(SYSTEM_SLOT)
            .map_err(|error| ClusterError::Table(error.to_string()))?;
        if *self.layouts.read_at.lock() == Some(digest) {
            return Ok(());
        }
        // A new node's disk may hold some records and lack others: it goes by what it was told when it was let in.
        if self.clocks.is_new() {
            return Ok(());
        }
        let records = self.own_records().await;
        let records = records.map_err(|error| ClusterError::Table(error.to_string()))?;
        *self.layouts.read_at.lock() = Some(digest);
        if !records.is_empty() {
            self.take_table(MemberTable::of(&records));
        }
        Ok(())
    }

    /// A table that another member told. It may be older than what this disk holds, which is looked at once more.
    pub(in crate::node::cluster) fn take_told_table(&self, table: MemberTable) {
        self.take_table(table);
        *self.layouts.read_at.lock() = None;
    }

    /// Goes by this table from here on, unless it lacks members that are known already: records are never taken back, so it is one that has
    /// not come whole yet.
    pub(super) fn take_table(&self, table: MemberTable) {
        let current = self.layouts.current();
        let is_behind = current.table.members().any(|(node, _)| table.get(node).is_none());
        if current.table == table || is_behind {
            return;
        }
        let placement = Placement::of(&table.seats(), table.replication());
        tracing::info!(members = table.up().count(), "the member table changed");
        self.layouts.current.store(Arc::new(Layout { table, placement }));
    }

    /// Adds a record to the table, at a quorum of the members that it has now.
    /// Not asked is the one whose seat the record gives away: it is lost.
    pub(in crate::node::cluster) async fn add_record(&self, record: &Record) -> Result<(), OpError> {
        let text = serde_json::to_string(record).map_err(|error| OpError::Internal(error.to_string()))?;
        let lost = record.replaces.as_ref().and_then(|text| text.parse::<NodeId>().ok());
        let layout = self.layouts.current();
        let asked = layout.placement.nodes().iter().copied();
        let asked: Vec<NodeId> = asked.filter(|node| Some(*node) != lost).collect();
        self.add_system_value(&table_key()?, text, &asked).await?;
        // The others hear of it by the stream.
        self.load_table()
            .await
            .map_err(|error| OpError::Disk(error.to_string()))
    }

    /// Sees to it that a quorum of the members holds what this disk has of the table. A change that failed may have left its record here alone.
    pub(super) async fn spread_table(&self) -> Result<(), OpError> {
        let (layout, terms) = (self.layouts.current(), Terms::usual());
        let members = layout.placement.replicas(SYSTEM_SLOT);
        let need = terms.consistency.needed(members.len());
        let (system, key, peers) = (UserId::system(), table_key()?, self.up_peers(members));
        let spread = self.repair(&system, &key, SYSTEM_SLOT, &peers, need);
        let spread = tokio::time::timeout_at(terms.deadline, spread).await;
        spread
            .unwrap_or(Err(OpError::Deadline { maybe_applied: true }))
            .map(drop)
    }

    /// The first member of a new cluster.
    pub(super) async fn found(&self) -> Result<(), ClusterError> {
        let record = self.own_record(0, self.config.replication as u32);
        let fail = |error: OpError| ClusterError::Table(error.to_string());
        let text = serde_json::to_string(&record).map_err(|error| ClusterError::Table(error.to_string()))?;
        // It is alone: its own disk is the quorum.
        let key = table_key().map_err(fail)?;
        let terms = Terms {
            consistency: Consistency::One,
            ..Terms::usual()
        };
        self.add_alone(&key, text, terms).await.map_err(fail)?;
        self.load_table().await
    }

    fn set_links(&self, view: &ClusterView) {
        let layout = self.layouts.current();
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
