//! The records of the member table: those on this disk, and how one is added.
//!
//! They are written as any other value is, at a quorum of the members.

use std::time::Duration;

use super::layout::Layout;
use super::table::{MemberState, MemberTable, Record};
use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::{ClusterError, Inner};
use crate::node::{OpError, Terms};
use crate::types::{Consistency, Key, NodeId, UserId};

/// The key of the system's range that holds the table.
const TABLE_KEY: &str = "cluster/members";
/// Records read at once, bytes.
const READ_BYTES: usize = 64 << 10;
/// Who asks to be let in waits some seconds for the whole of it.
const SETTLING_MAX: Duration = Duration::from_secs(2);

pub(super) fn table_key() -> Result<Key, OpError> {
    Key::new(TABLE_KEY).map_err(|error| OpError::Internal(error.to_string()))
}

fn members_but(layout: &Layout, lost: Option<NodeId>) -> Vec<NodeId> {
    let members = layout.placement.nodes().iter().copied();
    members.filter(|node| Some(*node) != lost).collect()
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

    pub(in crate::node::cluster) fn own_record(&self, seat: u32, replication: u32) -> Record {
        Record {
            node: self.me.to_string(),
            peer: self.config.advertise,
            http: self.config.http,
            zone: self.config.zone.clone(),
            weight: self.config.weight,
            state: MemberState::Up,
            seat,
            replaces: None,
            replication,
        }
    }

    /// Adds a record to the table, at a quorum of the members that it has now.
    /// Not asked is the one whose seat the record gives away: it is lost.
    pub(in crate::node::cluster) async fn add_record(&self, record: &Record) -> Result<(), OpError> {
        let text = serde_json::to_string(record).map_err(|error| OpError::Internal(error.to_string()))?;
        let asked = members_but(&self.layout(), record.lost());
        self.add_system_value(&table_key()?, text, &asked).await?;
        // The others hear of it by the stream.
        self.go_by_disk().await
    }

    /// Sees to it that this node and a quorum of the members, without the one that is `lost`, hold the same of the table, and goes by that.
    ///
    /// So whoever changes the table does it by no less than what was changed before, through whichever node: each change is at a quorum of those
    /// who were members then, and a node that knows an older table hears of it. Members may be others by what it hears, who are asked then.
    /// And a change that failed may have left its record here alone; it is a quorum's on Ok.
    pub(super) async fn settle_table(&self, lost: Option<NodeId>) -> Result<(), OpError> {
        let (system, key) = (UserId::system(), table_key()?);
        let settle = async {
            loop {
                let layout = self.layout();
                let asked = members_but(&layout, lost);
                // The repair counts this node in.
                let need = Terms::usual().consistency.needed(asked.len()) + usize::from(!self.votes(SYSTEM_SLOT));
                let peers = self.up_peers(&asked);
                let alike = self.repair(&system, &key, SYSTEM_SLOT, &peers, need).await;
                // Also what came before others could not take what they lack.
                self.go_by_disk().await?;
                alike?;
                // By its own disk it goes only when it has copied all that the others hold; but of the table that is here now.
                if self.clocks.is_new() {
                    self.take_told_table(MemberTable::of(&self.own_records().await?));
                }
                if self.layout().table == layout.table {
                    return Ok(());
                }
            }
        };
        let settled = tokio::time::timeout(SETTLING_MAX, settle).await;
        settled.unwrap_or(Err(OpError::Deadline { maybe_applied: false }))
    }

    /// The table to change, settled as far as that goes. Where a member's disk is full or hangs, others may still be a quorum for what is changed;
    /// and who has to start over is told so without one.
    pub(super) async fn table_to_change(&self, lost: Option<NodeId>) -> MemberTable {
        if let Err(error) = self.settle_table(lost).await {
            tracing::debug!(%error, "the member table is changed as this node knows it");
        }
        self.layout().table.clone()
    }

    async fn go_by_disk(&self) -> Result<(), OpError> {
        let loaded = self.load_table().await;
        loaded.map_err(|error| OpError::Disk(error.to_string()))
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
}
