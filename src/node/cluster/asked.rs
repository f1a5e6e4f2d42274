//! What came of a round of asking to be let in.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::forward::error_of;
use crate::node::peers::CallError;
use crate::types::NodeId;
use crate::wire::Response;

/// Rounds of asking before the first in the list founds a cluster although some addresses are silent: 10 seconds.
const SILENT_ROUNDS_MAX: u32 = 20;
/// Addresses whose words are told; gossip may know very many.
const TOLD_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Asked {
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

impl Asked {
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
    pub fn shows_no_cluster(&self, rounds: u32) -> bool {
        let without = self.without.len() + 1;
        let all = without + self.silent;
        !self.admitted && !self.is_known && (self.silent == 0 || rounds >= SILENT_ROUNDS_MAX && without > all / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_founded_only_when_most_say_that_there_is_none() {
        let asked = |silent, without| Asked {
            silent,
            without: (0..without).map(NodeId).collect(),
            ..Asked::default()
        };
        assert!(asked(0, 2).shows_no_cluster(1));
        assert!(!asked(1, 1).shows_no_cluster(1), "the silent one gets some time");
        assert!(asked(1, 1).shows_no_cluster(SILENT_ROUNDS_MAX));
        assert!(
            !asked(2, 0).shows_no_cluster(SILENT_ROUNDS_MAX),
            "they may be a cluster"
        );
        assert!(!asked(1, 0).shows_no_cluster(SILENT_ROUNDS_MAX));
        let known = Asked {
            is_known: true,
            ..asked(0, 1)
        };
        assert!(!known.shows_no_cluster(1));
    }

    #[test]
    fn each_address_is_told_with_its_reason_but_not_without_end() {
        let mut asked = Asked::default();
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
