//! Nodes that asked lately to be let in, and what that says of the members whose address they come from.
//!
//! A replica that lost something waits for all that every other replica *still* has, whether the others vote or not. An empty node that comes
//! from the address of a member which is not there itself is what is left of that one: its disk is lost, nothing can be had from
//! it, and to wait for it would be to wait for ever, for the empty node is let in only at a quorum, which may need this very node's vote.
//! That is as much as [`join`](super::join) goes by when it gives the seat away. One that lost its name alone is waited for a while: where it can be
//! let in without this node, what it holds comes first.
//!
//! Invariant: somebody must be there whose word counts, and who was asked for all that it has. If nobody is, more was lost than is promised to be
//! kept, and whatever is left is not taken for the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::gather;
use crate::types::NodeId;
use crate::wire::{Request, Response};

/// Three round trips on a slow line: a connection, who is who, the question.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A node that wants in asks twice a second.
const ASKED_LATELY: Duration = Duration::from_secs(10);
/// A new node that is not let in for so long waits for who waits for it. Where it can be let in, that takes a second.
const ASKED_IN_VAIN: Duration = Duration::from_secs(10);

struct JoinRequest {
    /// The first time, and the last.
    since: Instant,
    at: Instant,
    is_empty: bool,
    peer: SocketAddr,
}

#[derive(Default)]
pub(super) struct JoinRequests(Mutex<BTreeMap<NodeId, JoinRequest>>);

impl JoinRequests {
    /// The node asks, from this address; `is_empty`: its word counts nowhere, and it says so itself.
    pub(super) fn note(&self, node: NodeId, peer: SocketAddr, is_empty: bool) {
        let at = Instant::now();
        let mut asking = self.0.lock();
        asking.retain(|_, asked| at.duration_since(asked.at) < ASKED_LATELY);
        let before = asking.get(&node).filter(|asked| asked.is_empty == is_empty);
        let since = before.map_or(at, |asked| asked.since);
        let asked = JoinRequest {
            since,
            at,
            is_empty,
            peer,
        };
        asking.insert(node, asked);
    }

    pub(super) fn is_empty_node(&self, node: NodeId) -> bool {
        self.empty().any(|(asking, _)| asking == node)
    }

    fn asks_in_vain(&self, node: NodeId) -> bool {
        let asking = self.0.lock();
        asking
            .get(&node)
            .is_some_and(|asked| asked.since.elapsed() >= ASKED_IN_VAIN)
    }

    /// The empty node that says that it comes from the address of this one, and is not it itself.
    fn successor(&self, node: NodeId, peer: SocketAddr) -> Option<NodeId> {
        let mut successors = self.empty().filter(|(asking, from)| *asking != node && *from == peer);
        successors.next().map(|(asking, _)| asking)
    }

    fn empty(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        let asking = self.0.lock();
        let empty = asking
            .iter()
            .filter(|(_, asked)| asked.is_empty && asked.at.elapsed() < ASKED_LATELY);
        let empty: Vec<_> = empty.map(|(node, asked)| (*node, asked.peer)).collect();
        empty.into_iter()
    }
}

impl Inner {
    /// Members of which nothing can be had any more: their disks are lost, and others stand at their addresses.
    pub(in crate::node::cluster) async fn lost_members(&self) -> BTreeSet<NodeId> {
        let layout = self.layout();
        let is_there = |node| self.peers.get(node).is_some_and(|peer| peer.is_up());
        let others = layout.table.up().filter(|(node, _)| *node != self.me);
        let away = others.filter(|(node, _)| !is_there(*node));
        let mut lost = BTreeSet::new();
        for (node, held) in away {
            if let Some(successor) = self.members.join_requests.successor(node, held.peer)
                && self.is_left_at(successor, held.peer).await
            {
                lost.insert(node);
            }
        }
        if lost.is_empty() {
            return lost;
        }
        let peers = self.up_peers(layout.placement.nodes());
        let counts = |response| matches!(response, Response::Digest { votes: true, .. }).then_some(());
        let voter = gather(&peers, 1, || Request::Digest { slot: SYSTEM_SLOT.0 }, counts);
        match tokio::time::timeout(ANSWER_MAX, voter).await {
            Ok(Ok(_)) => lost,
            _ => BTreeSet::new(),
        }
    }

    /// Whether the node is found at this address, and nobody can wait for what it holds. One that only says that it is there, by mistake, must not make a
    /// member's disk count as lost. One that has lost no more than its name still holds what the member had, and brings it when it is let in;
    /// where that takes the vote of who waits for it, it comes in first.
    async fn is_left_at(&self, node: NodeId, address: SocketAddr) -> bool {
        let asked = self.peers.call_address(address, Request::HasData, ANSWER_MAX).await;
        match asked {
            Ok((found, Response::HasData(has_data))) => {
                found == node && (!has_data || self.members.join_requests.asks_in_vain(node))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_empty_node_stands_for_who_had_its_address_as_long_as_it_asks() {
        let requests = JoinRequests::default();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (lost, new) = (NodeId(1), NodeId(2));
        requests.note(NodeId(3), address(1), false);
        assert_eq!(requests.successor(lost, address(1)), None, "one that is not empty");
        requests.note(new, address(1), true);
        assert!(requests.successor(lost, address(1)) == Some(new) && requests.is_empty_node(new));
        assert_eq!(requests.successor(lost, address(2)), None, "another address");
        assert_eq!(requests.successor(new, address(1)), None, "it itself");
        tokio::time::advance(ASKED_LATELY).await;
        assert!(requests.successor(lost, address(1)).is_none() && !requests.is_empty_node(new));
    }
}
