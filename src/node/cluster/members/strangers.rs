//! Who is there with this cluster's key, and stands in no record of this node's member table.
//!
//! Mostly such a node waits to be let in, or was let in a moment ago. But the table may be much too old: that of a disk that was rolled back to before
//! all the others joined names nobody who could say so. And of two that were told to join nobody, or did not see each other, each may have
//! founded a cluster. So whoever is there for a while and unknown, or at once where this node's word waits for that, is asked for its table, which
//! changes nothing:
//! - it names all that this one names: it is the later one, and is taken. By it this node meets those who know better;
//! - the two have nobody in common: they are two clusters, of which a client would see now this one and now that one. They are not merged: the one that
//!   has not more members takes and shows no user's data while the other is there.
//!
//! Limits: whom gossip does not show is not known to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::change::MemberRefused;
use super::table::MemberTable;
use crate::core::slot::SYSTEM_SLOT;
use crate::node::OpError;
use crate::node::cluster::{Inner, TICK};
use crate::types::NodeId;
use crate::wire::{Request, Response, WireError};

/// A node without a list founds a cluster when nobody showed for so long: those who know it by its address call it every second.
pub(in crate::node::cluster) const SHOWING_MAX: Duration = Duration::from_secs(3);
/// Who was let in is known by the stream long before.
const UNKNOWN_MIN: Duration = Duration::from_secs(2);
/// Between two questions to the same node.
const ASK_PAUSE: Duration = Duration::from_secs(5);
/// The same while this node's word waits for what it says.
const AWAITED_PAUSE: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// So many are asked at once.
const ASKED_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Strangers {
    there: Mutex<BTreeMap<NodeId, Stranger>>,
    /// Who took this node for a member, and was none by its own table.
    introduced: Mutex<BTreeSet<NodeId>>,
}

struct Stranger {
    since: Instant,
    asked_at: Option<Instant>,
    /// What it said last.
    is: Option<Found>,
}

/// What a stranger's table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is of no cluster, or its table comes from this one's and lacks something of it: the stream does the rest.
    Nothing,
    /// The table names all that this one does.
    Later,
    /// It names nobody that this one names, and has so many members.
    OtherCluster { members: usize },
}

impl Found {
    fn of(own: &MemberTable, theirs: &MemberTable) -> Self {
        let is_known = |node| theirs.get(node).is_some();
        match own.members().filter(|(node, _)| is_known(*node)).count() {
            0 => Self::OtherCluster {
                members: theirs.up().count(),
            },
            known if known == own.members().count() => Self::Later,
            _ => Self::Nothing,
        }
    }
}

impl Strangers {
    /// These are there now. Gives those of them that are to be asked; at once, where this node's word waits for what they say.
    fn look(&self, there: Vec<(NodeId, SocketAddr)>, are_awaited: bool) -> Vec<(NodeId, SocketAddr)> {
        let now = Instant::now();
        let mut all = self.there.lock();
        all.retain(|node, _| there.iter().any(|(other, _)| other == node));
        let mut due = Vec::new();
        for (node, address) in there {
            let stranger = all.entry(node).or_insert(Stranger {
                since: now,
                asked_at: None,
                is: None,
            });
            let is_recent = |at: Instant, time| now.duration_since(at) < time;
            let (shown_min, pause) = match are_awaited && stranger.is.is_none() {
                true => (Duration::ZERO, AWAITED_PAUSE),
                false => (UNKNOWN_MIN, ASK_PAUSE),
            };
            let asked_lately = stranger.asked_at.is_some_and(|at| is_recent(at, pause));
            if !is_recent(stranger.since, shown_min) && !asked_lately {
                due.push((stranger.asked_at, node, address));
            }
        }
        // Of many that are silent, each has its turn.
        due.sort_by_key(|(asked_at, ..)| *asked_at);
        due.truncate(ASKED_MAX);
        for (_, node, _) in &due {
            if let Some(stranger) = all.get_mut(node) {
                stranger.asked_at = Some(now);
            }
        }
        due.into_iter().map(|(_, node, address)| (node, address)).collect()
    }

    fn note(&self, node: NodeId, found: Found) {
        if let Some(stranger) = self.there.lock().get_mut(&node) {
            stranger.is = Some(found);
        }
    }

    fn has_said(&self, node: NodeId) -> bool {
        self.there
            .lock()
            .get(&node)
            .is_some_and(|stranger| stranger.is.is_some())
    }

    /// A member of another cluster that has at least so many members.
    fn of_larger(&self, members: usize) -> Option<NodeId> {
        let all = self.there.lock();
        let is_larger = |stranger: &Stranger| matches!(stranger.is, Some(Found::OtherCluster { members: theirs }) if theirs >= members);
        all.iter()
            .find(|(_, stranger)| is_larger(stranger))
            .map(|(node, _)| *node)
    }
}

/// Looks for strangers for as long as the node runs.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let mut said = None;
    loop {
        tokio::time::sleep(TICK).await;
        // Who is not in asks everybody to be let in.
        let is_in = inner.layout().table.is_up(inner.me) && !inner.clocks.is_new();
        let there = if is_in { inner.strangers_there() } else { Vec::new() };
        let due = inner.members.strangers.look(there, !inner.lives.is_known_for_good());
        join_all(due.into_iter().map(|(node, address)| inner.ask_stranger(node, address))).await;
        let why = inner.why_other_cluster();
        if let Some(why) = why.as_ref().filter(|_| said != why) {
            tracing::error!("{why}");
        }
        said = why;
    }
}

impl Inner {
    fn strangers_there(&self) -> Vec<(NodeId, SocketAddr)> {
        let (layout, view) = (self.layout(), self.members.view.borrow());
        let is_stranger = |node: NodeId| node != self.me && layout.table.get(node).is_none();
        let alive = view.nodes.iter().filter(|(_, seen)| seen.alive);
        alive
            .filter(|(node, _)| is_stranger(**node))
            .map(|(node, seen)| (*node, seen.about.peer))
            .collect()
    }

    /// A peer introduces itself. Whom the table lacks may have a later one.
    pub(in crate::node::cluster) fn note_introduced(&self, node: NodeId) {
        if !self.lives.is_known_for_good() && self.layout().table.get(node).is_none() {
            self.members.strangers.introduced.lock().insert(node);
        }
    }

    /// Whether somebody is there who may know of a later table, and was not asked yet.
    pub(in crate::node::cluster) fn may_be_unknown(&self) -> bool {
        let table = self.layout().table.clone();
        let introduced = self.members.strangers.introduced.lock();
        let introduced = introduced.iter().copied().filter(|node| table.get(*node).is_none());
        let there = self.strangers_there().into_iter().map(|(node, _)| node);
        there
            .chain(introduced)
            .any(|node| !self.members.strangers.has_said(node))
    }

    /// Why the only member of its table does nothing yet: its disk may be from before the others joined.
    pub(in crate::node::cluster) fn why_unknown(&self) -> Option<String> {
        if self.is_known() {
            return None;
        }
        let layout = self.layout();
        let is_alone = layout.table.is_up(self.me) && layout.table.up().count() == 1;
        let why = "the node was just started, and nobody else is in its member table: it waits whether somebody shows who knows a later one";
        is_alone.then(|| why.to_owned())
    }

    async fn ask_stranger(&self, node: NodeId, address: SocketAddr) {
        let asked = self.peers.call_address(address, Request::Table, ANSWER_MAX).await;
        let own = self.layout().table.clone();
        let (theirs, found) = match asked {
            Ok((found, Response::Admitted { records, .. })) if found == node => {
                let theirs = MemberTable::of(&records);
                let found = Found::of(&own, &theirs);
                (theirs, found)
            }
            Ok((found, Response::Failed(WireError::Refused(_)))) if found == node => {
                (MemberTable::default(), Found::Nothing)
            }
            _ => return,
        };
        self.members.strangers.note(node, found);
        match found {
            Found::Nothing => {}
            Found::Later => {
                tracing::info!(%node, "a node that this one's member table lacks knows a later one: it is taken");
                // Before the table: by it alone this node's word might count.
                self.lives.meet_anew();
                self.take_told_table(theirs);
            }
            Found::OtherCluster { members } => {
                tracing::debug!(%node, members, "another cluster has the same key and name");
            }
        }
    }

    /// Why this node takes and shows no user's data although it belongs to a cluster: there is another one.
    pub(in crate::node::cluster) fn why_other_cluster(&self) -> Option<String> {
        let members = self.layout().table.up().count();
        let node = self.members.strangers.of_larger(members)?;
        Some(format!(
            "node {node} belongs to another cluster with the same key and name, which has no fewer members than this one's {members}, and no node in common \
             with it: one of the two was founded by mistake. Stop its nodes, and start them with empty data folders and --join"
        ))
    }

    pub(in crate::node::cluster) async fn answer_table(&self) -> Result<Response, OpError> {
        let is_new = self.clocks.is_new();
        let is_whole = !is_new && self.local.is_whole(SYSTEM_SLOT);
        // What it is told of the table, or what it held, may be later than what whoever asks knows: that it is of no cluster would be wrong.
        let may_know = || !is_new || !self.layout().table.is_empty();
        // Its shard may just have opened.
        if (is_whole && self.load_table().await.is_err()) || (!is_whole && may_know()) {
            return Err(OpError::ShardUnavailable { maybe_applied: false });
        }
        if !is_whole || !self.layout().table.is_up(self.me) {
            let why = MemberRefused::NotMember.to_string();
            return Ok(Response::Failed(WireError::Refused(why)));
        }
        Ok(Response::Admitted {
            cluster: self.config.name.clone(),
            records: self.own_records().await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{MemberState, Record};
    use super::*;

    fn table(nodes: &[u64]) -> MemberTable {
        let record = |(seat, node): (usize, &u64)| Record {
            node: NodeId(*node).to_string(),
            peer: ([127, 0, 0, 1], *node as u16).into(),
            http: ([127, 0, 0, 1], 1).into(),
            zone: "z".to_owned(),
            weight: 100,
            state: MemberState::Up,
            seat: seat as u32,
            replaces: None,
            replication: 3,
        };
        let records = nodes.iter().enumerate().map(record);
        let texts: Vec<_> = records.map(|record| serde_json::to_string(&record).unwrap()).collect();
        MemberTable::of(&texts)
    }

    #[test]
    fn tables_without_a_common_node_are_two_clusters_and_a_longer_one_is_later() {
        let found = |own: &[u64], theirs: &[u64]| Found::of(&table(own), &table(theirs));
        assert_eq!(found(&[1], &[1, 2, 3]), Found::Later);
        assert_eq!(found(&[1, 2, 4], &[1, 2, 3]), Found::Nothing);
        assert_eq!(found(&[1], &[2, 3]), Found::OtherCluster { members: 2 });
    }

    fn one_there() -> (NodeId, Vec<(NodeId, SocketAddr)>) {
        let node = NodeId(7);
        (node, vec![(node, SocketAddr::from(([127, 0, 0, 1], 1)))])
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_awaited_is_asked_at_once_and_again_until_it_has_said() {
        let strangers = Strangers::default();
        let (node, there) = one_there();
        for _ in 0..2 {
            assert_eq!(strangers.look(there.clone(), true), there);
            assert!(strangers.look(there.clone(), true).is_empty());
            tokio::time::advance(AWAITED_PAUSE).await;
        }
        strangers.note(node, Found::Nothing);
        assert!(strangers.look(there.clone(), true).is_empty());
        tokio::time::advance(ASK_PAUSE).await;
        assert_eq!(strangers.look(there.clone(), true), there);
    }

    #[tokio::test(start_paused = true)]
    async fn of_very_many_that_are_silent_each_has_its_turn() {
        let strangers = Strangers::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let there: Vec<_> = (0..2 * ASKED_MAX as u64).map(|node| (NodeId(node), address)).collect();
        let mut asked = strangers.look(there.clone(), true);
        tokio::time::advance(AWAITED_PAUSE).await;
        asked.extend(strangers.look(there.clone(), true));
        asked.sort();
        assert_eq!(asked, there);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_asked_when_it_stays_and_forgotten_when_it_goes() {
        let strangers = Strangers::default();
        let (node, there) = one_there();
        let there = || there.clone();
        assert!(strangers.look(there(), false).is_empty());
        tokio::time::advance(UNKNOWN_MIN).await;
        assert_eq!(strangers.look(there(), false), there());
        assert!(strangers.look(there(), false).is_empty() && !strangers.has_said(node));
        strangers.note(node, Found::OtherCluster { members: 3 });
        assert!(strangers.has_said(node));
        assert_eq!(
            strangers.of_larger(3),
            Some(node),
            "of two that are alike, neither goes on"
        );
        assert_eq!(strangers.of_larger(4), None);
        tokio::time::advance(ASK_PAUSE).await;
        assert_eq!(strangers.look(there(), false), there());
        strangers.look(Vec::new(), false);
        assert_eq!(strangers.of_larger(1), None);
    }
}
