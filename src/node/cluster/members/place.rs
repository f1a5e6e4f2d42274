//! Whose place it is: an address, that of whoever answers there; the only seat of a table, that of the node whose disk the table is on.
//!
//! Invariants:
//! - nobody is given a member's place because it says so: it has to be found at the member's address. Of two nodes that advertise one address by
//!   mistake, the one that is not there is told so, and the other one keeps its place while it is away too;
//! - a node takes over its own lost place only when nobody who may know better is silent: as if it founded the cluster.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::change::MemberRefused;
use super::records::table_key;
use super::table::{MemberState, Record};
use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::Inner;
use crate::node::{OpError, Terms};
use crate::types::{Consistency, NodeId};
use crate::wire::Request;

/// Who asks waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Gossip takes some seconds to forget who had the address before.
const TWIN_ROUNDS_MIN: u32 = 20;

/// Between two tries to have a new address noted in the table.
const TELL_PAUSE: Duration = Duration::from_secs(5);

/// What was noticed of this node's place, and told once.
#[derive(Default)]
pub(super) struct Noticed {
    twin: Option<(NodeId, u32)>,
    is_lost: bool,
    address_told: Option<Instant>,
}

impl Inner {
    /// Whether the node answers at this address, which is a member's.
    pub(super) async fn check_is_at(&self, node: NodeId, address: SocketAddr) -> Result<(), MemberRefused> {
        match self.peers.call_address(address, Request::Ping, ANSWER_MAX).await {
            Ok((found, _)) if found == node => Ok(()),
            Ok((found, _)) => Err(MemberRefused::Elsewhere(address, node, found)),
            Err(_) => Err(MemberRefused::NotReached(address, node)),
        }
    }

    /// The record of the only member, where that is another node at this one's own address: then this one has lost its name. None ever had
    /// another address, or it may have been a part of the table that was being copied.
    fn lost_place(&self) -> Option<Record> {
        let layout = self.layout();
        let (mut members, mut up) = (layout.table.members(), layout.table.up());
        let (Some((node, record)), None) = (up.next(), up.next()) else {
            return None;
        };
        let is_own = self.config.founds && members.all(|(_, record)| record.peer == self.config.advertise);
        let is_whole = !self.clocks.is_new() && self.local.is_whole(SYSTEM_SLOT);
        (is_own && is_whole && node != self.me).then(|| record.clone())
    }

    /// Why this node does not get on although nobody refuses it.
    pub(super) fn why_lost(&self, noticed: &mut Noticed) -> Option<String> {
        let held = self.lost_place()?;
        let why = format!(
            "this data folder belongs to node {}, and this is node {}: `node.json` was lost or damaged. The others in the list decide whether it \
             belongs to a cluster; if there is no other node, start it once without --join",
            held.node, self.me
        );
        if !std::mem::replace(&mut noticed.is_lost, true) {
            tracing::error!("{why}");
        }
        Some(why)
    }

    /// Takes the only seat of the table on this disk, which was this node's under another name.
    pub(super) async fn take_own_place(&self) {
        let Some(held) = self.lost_place() else {
            return;
        };
        tracing::warn!(lost = held.node, node = %self.me, "the only node of its cluster lost its name: it takes its place under a new one");
        let record = Record {
            node: self.me.to_string(),
            http: self.config.http,
            replaces: Some(held.node.clone()),
            ..held
        };
        if let Err(error) = self.add_own_record(&record).await {
            tracing::error!(%error, "cannot take the own place again; it is tried again");
        }
    }

    async fn add_own_record(&self, record: &Record) -> Result<(), OpError> {
        let text = serde_json::to_string(record).map_err(|error| OpError::Internal(error.to_string()))?;
        let terms = Terms {
            consistency: Consistency::One,
            ..Terms::usual()
        };
        self.add_alone(&table_key()?, text, terms).await?;
        self.load_table()
            .await
            .map_err(|error| OpError::Disk(error.to_string()))
    }

    /// Notes this member's addresses in the table when they are others than before: whoever comes to a former one, empty, must not get its seat.
    pub(super) async fn tell_address(&self, noticed: &mut Noticed) {
        let table = self.layout().table.clone();
        let (peer, http) = (self.config.advertise, self.config.http);
        let Some(held) = table.get(self.me) else {
            return;
        };
        // Of a front that takes any port, the number is not known here.
        let http = if http.port() == 0 { held.http } else { http };
        let has_moved = (held.peer, held.http) != (peer, http);
        let is_anothers = || table.up().any(|(node, record)| node != self.me && record.peer == peer);
        let told_lately = noticed.address_told.is_some_and(|told| told.elapsed() < TELL_PAUSE);
        if !has_moved || told_lately || is_anothers() {
            return;
        }
        noticed.address_told = Some(Instant::now());
        match self.add_own_address(peer, http).await {
            Ok(()) => tracing::info!(%peer, %http, "the member table has this node's new addresses"),
            Err(error) => tracing::warn!(%error, "this node's new addresses cannot be noted yet"),
        }
    }

    async fn add_own_address(&self, peer: SocketAddr, http: SocketAddr) -> Result<(), MemberRefused> {
        let _one = self.members.changing.lock().await;
        let table = self.table_to_change(None).await;
        let held = table.get(self.me).filter(|held| held.state == MemberState::Up);
        let held = held.cloned().ok_or(MemberRefused::NotMember)?;
        let record = Record { peer, http, ..held };
        Ok(self.add_record(&record).await?)
    }

    /// What the table says of this node's zone and weight, where its settings say something else.
    pub(super) fn overruled_settings(&self) -> Option<String> {
        let table = &self.layout().table;
        let held = table.get(self.me)?;
        let zone = (held.zone != self.config.zone).then(|| format!("the zone {:?}", held.zone));
        let weight = (held.weight != self.config.weight).then(|| format!("the weight {}", held.weight));
        let kept: Vec<String> = zone.into_iter().chain(weight).collect();
        (!kept.is_empty()).then(|| kept.join(" and "))
    }

    /// Tells of another node that says for a while that it is reached where this one is.
    pub(super) fn notice_twin(&self, noticed: &mut Noticed) {
        let view = self.view();
        let is_twin = |node: NodeId, peer| node != self.me && peer == self.config.advertise;
        let mut seen = view.nodes.iter().filter(|(_, seen)| seen.alive);
        let twin = seen
            .find(|(node, seen)| is_twin(**node, seen.about.peer))
            .map(|(node, _)| *node);
        let rounds = noticed
            .twin
            .filter(|(before, _)| twin == Some(*before))
            .map_or(0, |(_, rounds)| rounds);
        noticed.twin = twin.map(|twin| (twin, rounds.saturating_add(1)));
        if let Some((twin, TWIN_ROUNDS_MIN)) = noticed.twin {
            tracing::error!(
                %twin, address = %self.config.advertise,
                "another node advertises the same address as this one: others reach only one of the two; check --advertise of both"
            );
        }
    }
}
