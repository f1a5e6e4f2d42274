//! The view of the cluster, as plain data, and how it follows from what gossip says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::types::NodeId;

/// Nodes that a view holds. Beyond, those are forgotten that are neither alive nor heard of.
const NODES_MAX: usize = 1024;
/// Longer texts about a node are not read.
const ABOUT_BYTES_MAX: usize = 1024;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Where it takes connections of its peers.
    pub peer: SocketAddr,
    /// Where it serves clients.
    pub http: SocketAddr,
    pub zone: String,
}

impl About {
    /// JSON, so that a later version can say more.
    pub(super) fn encode(&self) -> String {
        serde_json::json!({ "peer": self.peer, "http": self.http, "zone": self.zone }).to_string()
    }

    fn decode(text: &str) -> Option<Self> {
        (text.len() <= ABOUT_BYTES_MAX).then(|| serde_json::from_str(text).ok())?
    }
}

/// A node, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    pub about: About,
    /// The newest that was heard of.
    pub generation: u64,
    pub alive: bool,
}

/// Every node that was ever seen, and which of them are alive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    pub nodes: BTreeMap<NodeId, NodeView>,
}

/// One generation of a node, as gossip knows it.
pub struct Heard<'a> {
    pub node: NodeId,
    pub generation: u64,
    pub gossip: SocketAddr,
    /// As encoded by its node.
    pub about: &'a str,
    pub alive: bool,
    /// Grows while it lives, and begins anew with each generation.
    pub heartbeat: u64,
}

#[derive(Debug, Clone)]
struct Node {
    view: NodeView,
    gossip: SocketAddr,
    /// In what gossip knows now.
    heard: bool,
    /// The newest of what gossip knows now: its generation and number.
    heartbeat: (u64, u64),
    /// When that was last seen to change.
    heartbeat_at: Instant,
}

/// What is known of all nodes.
pub struct Known {
    own: NodeId,
    nodes: BTreeMap<NodeId, Node>,
}

impl Known {
    /// Knows this node only.
    pub fn new(own: NodeId, generation: u64, gossip: SocketAddr, about: About, now: Instant) -> Self {
        let view = NodeView {
            about,
            generation,
            alive: true,
        };
        let node = Node {
            view,
            gossip,
            heard: true,
            heartbeat: (generation, 0),
            heartbeat_at: now,
        };
        Self {
            own,
            nodes: BTreeMap::from([(own, node)]),
        }
    }

    pub fn view(&self) -> ClusterView {
        let nodes = self.nodes.iter().map(|(node, known)| (*node, known.view.clone()));
        ClusterView { nodes: nodes.collect() }
    }

    /// Takes over what gossip knows now. While `catching_up`, nobody dies. Gives the generation by which others know this very node, if that is
    /// higher than its own.
    ///
    /// A restarted node is there in both generations for a while, the old one alive still and the new one not yet: it counts as alive if any
    /// of them is, and is described by the newest.
    pub fn update<'a>(
        &mut self,
        heard: impl Iterator<Item = Heard<'a>>,
        now: Instant,
        catching_up: bool,
    ) -> Option<u64> {
        let before = std::mem::take(&mut self.nodes);
        let mut newer_self = None;
        for (node, known) in &before {
            let mut known = known.clone();
            known.heard = *node == self.own;
            known.heartbeat = (0, 0);
            known.view.alive &= catching_up || known.heard;
            self.nodes.insert(*node, known);
        }
        for heard in heard {
            if heard.node == self.own {
                let own = before.get(&self.own).map_or(0, |own| own.view.generation);
                newer_self = newer_self.max((heard.generation > own).then_some(heard.generation));
            } else if let Some(about) = About::decode(heard.about) {
                self.hear(&heard, about, now);
            }
        }
        for (id, node) in &mut self.nodes {
            let last = before.get(id).map(|known| known.heartbeat);
            if node.heard && last != Some(node.heartbeat) {
                node.heartbeat_at = now;
            }
        }
        self.forget();
        newer_self
    }

    fn hear(&mut self, heard: &Heard, about: About, now: Instant) {
        let node = self.nodes.entry(heard.node).or_insert_with(|| Node {
            view: NodeView {
                about: about.clone(),
                generation: heard.generation,
                alive: false,
            },
            gossip: heard.gossip,
            heard: true,
            heartbeat: (0, 0),
            heartbeat_at: now,
        });
        node.heard = true;
        node.heartbeat = node.heartbeat.max((heard.generation, heard.heartbeat));
        node.view.alive |= heard.alive;
        if heard.generation >= node.view.generation {
            node.view.generation = heard.generation;
            node.view.about = about;
            node.gossip = heard.gossip;
        }
    }

    fn forget(&mut self) {
        let mut too_many = self.nodes.len().saturating_sub(NODES_MAX);
        self.nodes.retain(|_, node| {
            let forgotten = too_many > 0 && !node.heard && !node.view.alive;
            too_many -= usize::from(forgotten);
            !forgotten
        });
    }

    /// The next node after `last` that is not alive, and where to call it.
    pub fn next_dead(&self, last: Option<NodeId>) -> Option<(NodeId, SocketAddr)> {
        self.next(last, |_, node| !node.view.alive)
    }

    /// The next node after `last` that is alive, but whose last heartbeat is not newer than `heard_before`, and where to ask it.
    pub fn next_silent(&self, last: Option<NodeId>, heard_before: Instant) -> Option<(NodeId, SocketAddr)> {
        self.next_alive(last, |node| node.heartbeat_at <= heard_before)
    }

    /// The next node after `last` that is alive and was heard of after `heard_before`, and where to ask it about others.
    pub fn next_heard(&self, last: Option<NodeId>, heard_before: Instant) -> Option<(NodeId, SocketAddr)> {
        self.next_alive(last, |node| node.heartbeat_at > heard_before)
    }

    fn next_alive(&self, last: Option<NodeId>, is_one: impl Fn(&Node) -> bool) -> Option<(NodeId, SocketAddr)> {
        self.next(last, |id, node| id != self.own && node.view.alive && is_one(node))
    }

    /// How many nodes are alive, with this one.
    pub fn alive(&self) -> usize {
        self.nodes.values().filter(|node| node.view.alive).count()
    }

    fn next(&self, last: Option<NodeId>, is_one: impl Fn(NodeId, &Node) -> bool) -> Option<(NodeId, SocketAddr)> {
        let after = last.map_or(Unbounded, Excluded);
        self.nodes
            .range((after, Unbounded))
            .chain(self.nodes.iter())
            .find(|(id, node)| is_one(**id, node))
            .map(|(id, node)| (*id, node.gossip))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn about(port: u16) -> About {
        About {
            peer: addr(port),
            http: addr(port + 1),
            zone: "a".to_owned(),
        }
    }

    fn known() -> Known {
        Known::new(OWN, 5, addr(1), about(1), Instant::now())
    }

    fn hear(known: &mut Known, heard: &[(NodeId, u64, u16, bool)], catching_up: bool) -> Option<u64> {
        let texts: Vec<String> = heard.iter().map(|heard| about(heard.2).encode()).collect();
        let heard = heard
            .iter()
            .zip(&texts)
            .map(|((node, generation, port, alive), about)| Heard {
                node: *node,
                generation: *generation,
                gossip: addr(*port),
                about,
                alive: *alive,
                heartbeat: 1,
            });
        known.update(heard, Instant::now(), catching_up)
    }

    fn state(known: &Known, node: NodeId) -> (u64, u16, bool) {
        let view = &known.view().nodes[&node];
        (view.generation, view.about.peer.port(), view.alive)
    }

    #[test]
    fn the_node_itself_is_always_there_and_alive() {
        let mut known = known();
        assert_eq!(hear(&mut known, &[], false), None);
        assert_eq!(state(&known, OWN), (5, 1, true));
        // What others still know of its life before.
        assert_eq!(hear(&mut known, &[(OWN, 4, 9, false)], false), None);
        assert_eq!(state(&known, OWN), (5, 1, true));
    }

    #[test]
    fn a_generation_that_others_know_and_that_is_higher_is_told() {
        let heard = [(OWN, 4, 1, true), (OWN, 9, 1, false), (OWN, 7, 1, true)];
        assert_eq!(hear(&mut known(), &heard, false), Some(9));
    }

    #[test]
    fn a_restarted_node_is_described_by_its_newest_generation_and_alive_by_any() {
        let mut known = known();
        hear(&mut known, &[(OTHER, 1, 10, true)], false);
        hear(&mut known, &[(OTHER, 1, 10, true), (OTHER, 2, 20, false)], false);
        assert_eq!(state(&known, OTHER), (2, 20, true));
        hear(&mut known, &[(OTHER, 2, 20, true), (OTHER, 1, 10, false)], false);
        assert_eq!(state(&known, OTHER), (2, 20, true));
        hear(&mut known, &[(OTHER, 2, 20, false)], false);
        assert_eq!(state(&known, OTHER), (2, 20, false));
    }

    #[test]
    fn a_dead_node_stays_in_the_view_after_gossip_forgot_it() {
        let mut known = known();
        hear(&mut known, &[(OTHER, 1, 10, true)], false);
        hear(&mut known, &[], false);
        assert_eq!(state(&known, OTHER), (1, 10, false));
        assert_eq!(known.next_dead(None), Some((OTHER, addr(10))));
    }

    #[test]
    fn nobody_dies_while_this_node_catches_up() {
        let mut known = known();
        hear(&mut known, &[(OTHER, 1, 10, true), (NodeId(3), 1, 30, false)], false);
        hear(&mut known, &[(OTHER, 1, 10, false), (NodeId(3), 1, 30, false)], true);
        assert!(state(&known, OTHER).2 && !state(&known, NodeId(3)).2);
        hear(&mut known, &[], true);
        assert!(state(&known, OTHER).2);
        hear(&mut known, &[(OTHER, 1, 10, false)], false);
        assert!(!state(&known, OTHER).2);
    }

    #[test]
    fn those_that_are_not_alive_are_called_in_turn() {
        let mut known = known();
        let heard: Vec<_> = (2..6).map(|node| (NodeId(node), 1, node as u16, node == 3)).collect();
        hear(&mut known, &heard, false);
        let (mut last, mut called) = (None, Vec::new());
        for _ in 0..5 {
            last = known.next_dead(last).map(|(node, _)| node);
            called.extend(last.map(|node| node.0));
        }
        assert_eq!(called, [2, 4, 5, 2, 4]);
    }

    #[test]
    fn those_that_are_alive_and_silent_are_asked_in_turn_until_a_heartbeat_or_a_new_start_is_seen() {
        let mut known = known();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let texts = about(1).encode();
        let mut hear = |second, heard: &[(u64, u64, u64, bool)]| {
            let heard = heard.iter().map(|(node, generation, heartbeat, alive)| Heard {
                node: NodeId(*node),
                generation: *generation,
                gossip: addr(*node as u16),
                about: &texts,
                alive: *alive,
                heartbeat: *heartbeat,
            });
            known.update(heard, at(second), false);
            let mut asked = Vec::new();
            let mut last = None;
            for _ in 0..4 {
                last = known.next_silent(last, at(second - 1)).map(|(node, _)| node);
                asked.extend(last.map(|node| node.0));
            }
            let witness = known.next_heard(None, at(second - 1)).map(|(node, _)| node.0);
            (asked, witness)
        };
        let first = [(2, 1, 7, true), (3, 1, 7, true), (4, 1, 7, false)];
        assert_eq!(hear(1, &first), (vec![], Some(2)));
        // Not this node itself, and not who is dead.
        assert_eq!(hear(2, &first), (vec![2, 3, 2, 3], None));
        assert_eq!(hear(3, &[(2, 1, 8, true), (3, 1, 7, true)]), (vec![3; 4], Some(2)));
        let restarted = [(2, 1, 9, true), (3, 1, 7, true), (3, 2, 1, false)];
        assert_eq!(hear(4, &restarted), (vec![], Some(2)));
        // What is still known of its life before is no news.
        let again = [(2, 1, 10, true), (3, 2, 1, true), (3, 1, 9, true)];
        assert_eq!(hear(5, &again), (vec![3; 4], Some(2)));
        // Its counter was set back, and gossip has forgotten the higher one.
        assert_eq!(hear(6, &[(2, 1, 11, true), (3, 1, 10, true)]), (vec![], Some(2)));
    }

    #[test]
    fn what_cannot_be_understood_is_left_out_and_what_is_new_in_it_is_skipped() {
        let mut known = known();
        let heard = |about| Heard {
            node: OTHER,
            generation: 1,
            gossip: addr(1),
            about,
            alive: true,
            heartbeat: 1,
        };
        let long = "x".repeat(ABOUT_BYTES_MAX + 1);
        for text in ["", "{}", "{\"peer\":1}", &long] {
            known.update(std::iter::once(heard(text)), Instant::now(), false);
            assert_eq!(known.view().nodes.len(), 1, "{text}");
        }
        let newer = about(7).encode().replacen('{', "{\"weight\":3,", 1);
        known.update(std::iter::once(heard(&newer)), Instant::now(), false);
        assert_eq!(state(&known, OTHER), (1, 7, true));
    }

    #[test]
    fn the_view_does_not_grow_without_bound() {
        let mut known = known();
        for round in 0..5u64 {
            let nodes: Vec<_> = (0..500).map(|at| (NodeId(2 + round * 500 + at), 1, 1, true)).collect();
            hear(&mut known, &nodes, false);
            assert!(known.view().nodes.len() <= NODES_MAX);
        }
        assert_eq!(known.view().nodes.values().filter(|node| node.alive).count(), 501);
    }
}
