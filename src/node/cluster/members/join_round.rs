//! A round of asking to be let in, and what came of it.
//!
//! One after the other is asked, so that mostly one alone changes the table; but nobody waits for the answer of one that takes its time: an
//! address that swallows packets takes a second and a half.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::change::MemberRefused;
use super::table::MemberTable;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::error_of;
use crate::node::peers::CallError;
use crate::types::NodeId;
use crate::wire::{Admission, Request, Response, WireError};

const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The next one is asked when the last one has not answered by then; sooner where there are many.
const TURN: Duration = Duration::from_millis(200);
const TURNS_MAX: Duration = Duration::from_secs(2);
/// So long is asked before the first in the list founds a cluster although some addresses are silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Addresses whose words are told; gossip may know very many.
const TOLD_MAX: usize = 8;

#[derive(Default)]
pub(super) struct JoinRound {
    /// Of the list: addresses that did not answer.
    pub silent: usize,
    /// Of the list: nodes that belong to no cluster.
    pub without: BTreeSet<NodeId>,
    pub admitted: bool,
    /// A cluster knows this node, or the one whose place it has.
    pub is_known: bool,
    /// What the last one said that refused it.
    pub refused: Option<String>,
    /// Of each address that did not let it in, why.
    words: Vec<(SocketAddr, String)>,
}

impl JoinRound {
    pub fn note(&mut self, address: SocketAddr, why: String) {
        self.words.push((address, why));
    }

    pub fn note_refusal(&mut self, address: SocketAddr, why: String) {
        self.refused = Some(format!("{address}: {why}"));
        self.note(address, why);
    }

    /// Of an address that says neither yes nor no.
    pub fn note_silence(&mut self, address: SocketAddr, answer: Result<Response, CallError>) {
        let why = match answer {
            Err(CallError::Unreachable(why)) => why,
            Err(error) => error.to_string(),
            Ok(Response::Failed(error)) => error_of(error).to_string(),
            Ok(_) => "it gives an answer to something else".to_owned(),
        };
        self.note(address, why);
    }

    /// Why nobody let it in, address by address.
    pub fn why(&self) -> Option<String> {
        let told = self.words.iter().take(TOLD_MAX);
        let mut told: Vec<String> = told.map(|(address, why)| format!("{address}: {why}")).collect();
        if self.words.len() > told.len() {
            told.push(format!("and {} more", self.words.len() - told.len()));
        }
        (!told.is_empty() && !self.admitted).then(|| told.join("; "))
    }

    /// Whether who refused before has changed its mind, or is another one now. While anybody is silent, it may be that one.
    pub fn refused_by_nobody(&self) -> bool {
        self.refused.is_none() && self.silent == 0 && !self.is_known
    }

    /// Whether there can be no cluster yet: all say so, or, after a while, a majority of all, for where most belong to none a quorum of no
    /// cluster is left. Silence says nothing: those who are silent may be a cluster that this node, its disk lost, belongs to.
    pub fn shows_no_cluster(&self, for_long: Duration) -> bool {
        let without = self.without.len() + 1;
        let all = without + self.silent;
        !self.admitted && !self.is_known && (self.silent == 0 || for_long >= SILENCE_MAX && without > all / 2)
    }
}

/// Questions to several addresses, begun in their order.
struct StaggeredCalls<Q, A> {
    left: std::vec::IntoIter<SocketAddr>,
    turn: Duration,
    ask: Q,
    waiting: FuturesUnordered<A>,
}

impl<Q: Fn(SocketAddr) -> A, A: Future> StaggeredCalls<Q, A> {
    fn of(addresses: Vec<SocketAddr>, ask: Q) -> Self {
        let count = u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        Self {
            left: addresses.into_iter(),
            turn: TURN.min(TURNS_MAX / count),
            ask,
            waiting: FuturesUnordered::new(),
        }
    }

    /// The next answer that comes.
    async fn next(&mut self) -> Option<A::Output> {
        loop {
            if let Some(address) = self.left.next() {
                self.waiting.push((self.ask)(address));
            }
            if self.left.len() == 0 {
                return self.waiting.next().await;
            }
            if let Ok(answer) = tokio::time::timeout(self.turn, self.waiting.next()).await {
                return answer;
            }
        }
    }
}

impl Inner {
    /// Asks everybody in the list, until one lets this node in.
    pub(super) async fn ask_in(&self) -> JoinRound {
        let mut asked = JoinRound::default();
        let admission = Admission {
            node: self.me.0,
            peer: self.config.advertise.to_string(),
            http: self.config.http.to_string(),
            zone: self.config.zone.clone(),
            weight: self.config.weight,
            is_new: self.clocks.is_new(),
        };
        let mut turns = StaggeredCalls::of(self.who_to_ask(), |address| {
            let request = Request::Admit(admission.clone());
            async move { (address, self.peers.call_address(address, request, ANSWER_MAX).await) }
        });
        while let Some((address, answer)) = turns.next().await {
            if self.take_answer(&mut asked, address, answer).await {
                break;
            }
        }
        asked
    }

    /// Whether nobody else has to be asked.
    async fn take_answer(
        &self,
        asked: &mut JoinRound,
        address: SocketAddr,
        answer: Result<(NodeId, Response), CallError>,
    ) -> bool {
        // Of who was told to join nobody, all that gossip shows are to say that they are of no cluster.
        let is_expected = self.config.join.is_empty() || self.config.join.contains(&address);
        match answer {
            Ok((_, Response::Admitted { records, .. })) => {
                self.take_told_table(MemberTable::of(&records));
                asked.admitted = true;
                return true;
            }
            Ok((_, Response::StartOver)) => {
                asked.is_known = true;
                tracing::error!("this node belongs no more: it starts over as a new one");
                self.clocks.set_new();
                // It asks again either way; noted, it stays new over a restart.
                if let Err(error) = self.local.set_new(0).await {
                    tracing::error!(%error, "that cannot be noted on the disk");
                }
                return true;
            }
            Ok((node, Response::Failed(WireError::Refused(why)))) if why == MemberRefused::NotMember.to_string() => {
                if is_expected {
                    asked.without.insert(node);
                }
                asked.note(address, "it belongs to no cluster yet".to_owned());
            }
            Ok((_, Response::Failed(WireError::Refused(why)))) => asked.note_refusal(address, why),
            silent => {
                asked.silent += usize::from(is_expected);
                asked.note_silence(address, silent.map(|(_, response)| response));
            }
        }
        false
    }

    /// Those it was told to join, and whoever gossip has seen.
    fn who_to_ask(&self) -> Vec<SocketAddr> {
        let view = self.view();
        let seen = view.nodes.iter().filter(|(node, seen)| **node != self.me && seen.alive);
        let mut addresses = self.config.join.clone();
        addresses.extend(seen.map(|(_, seen)| seen.about.peer));
        let mut asked = BTreeSet::from([self.config.advertise]);
        addresses.retain(|address| asked.insert(*address));
        addresses
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_keeps_nobody_else_from_being_asked() {
        let addresses: Vec<_> = (1..=5).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect();
        let begun = Instant::now();
        // The second and the third swallow packets.
        let ask = async |address: SocketAddr| {
            let takes_ms = if [2, 3].contains(&address.port()) { 1_500 } else { 10 };
            sleep(Duration::from_millis(takes_ms)).await;
            address.port()
        };
        let mut turns = StaggeredCalls::of(addresses, ask);
        let mut answers = Vec::new();
        while let Some(port) = turns.next().await {
            answers.push((port, begun.elapsed().as_millis()));
        }
        assert_eq!(answers, [(1, 10), (4, 420), (5, 430), (2, 1510), (3, 1710)]);
    }

    #[test]
    fn a_cluster_is_founded_only_when_most_say_that_there_is_none() {
        let asked = |silent, without| JoinRound {
            silent,
            without: (0..without).map(NodeId).collect(),
            ..JoinRound::default()
        };
        let soon = Duration::from_millis(500);
        assert!(asked(0, 2).shows_no_cluster(soon));
        assert!(!asked(1, 1).shows_no_cluster(soon), "the silent one gets some time");
        assert!(asked(1, 1).shows_no_cluster(SILENCE_MAX));
        assert!(!asked(2, 0).shows_no_cluster(SILENCE_MAX), "they may be a cluster");
        assert!(!asked(1, 0).shows_no_cluster(SILENCE_MAX));
        let known = JoinRound {
            is_known: true,
            ..asked(0, 1)
        };
        assert!(!known.shows_no_cluster(soon));
    }

    #[test]
    fn each_address_is_told_with_its_reason_but_not_without_end() {
        let mut asked = JoinRound::default();
        assert_eq!(asked.why(), None);
        let address = |number: usize| SocketAddr::from(([10, 0, 0, 1], 8100 + number as u16));
        asked.note(address(0), "silent".to_owned());
        asked.note_refusal(address(1), "full".to_owned());
        assert_eq!(asked.why().unwrap(), "10.0.0.1:8100: silent; 10.0.0.1:8101: full");
        assert_eq!(asked.refused.as_deref(), Some("10.0.0.1:8101: full"));
        (2..TOLD_MAX + 3).for_each(|number| asked.note(address(number), "silent".to_owned()));
        assert!(asked.why().unwrap().ends_with("10.0.0.1:8107: silent; and 3 more"));
        asked.admitted = true;
        assert_eq!(asked.why(), None);
    }
}
