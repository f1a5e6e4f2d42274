//! What was heard of each sender already, so that nothing is heard twice.
//!
//! Only datagrams that were authenticated get here. A sender numbers its datagrams within one generation (one start of its process);
//! of the last [`WINDOW`] numbers each is known to be heard or not, what is older counts as heard.

use std::collections::BTreeMap;

use crate::types::NodeId;

/// Datagrams that one may overtake others by. A node sends some ten of them a second to each other node.
pub const WINDOW: u64 = 1024;
/// Senders that are remembered: more nodes than one digest of the gossip could name.
pub const SENDERS_MAX: usize = 1024;
const WORDS: usize = WINDOW as usize / 64;

/// The newest that was heard of a sender: its generation, then its number within that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newest {
    pub generation: u64,
    pub number: u64,
}

/// Why a datagram that is authentic is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    Replayed(Newest),
    /// The sender has been started again since.
    OldGeneration(Newest),
}

struct Sender {
    generation: u64,
    /// The highest number heard.
    newest: u64,
    /// Bit `n % WINDOW`: whether `n` was heard, for the last `WINDOW` numbers.
    heard: [u64; WORDS],
    /// When it was heard last, counted in datagrams of everyone.
    last_heard: u64,
}

#[derive(Default)]
pub struct Replay {
    senders: BTreeMap<NodeId, Sender>,
    datagrams: u64,
}

impl Replay {
    /// Takes note of a datagram; an error means that it must not be used.
    pub fn note(&mut self, node: NodeId, generation: u64, number: u64) -> Result<(), Stale> {
        self.datagrams += 1;
        if let Some(sender) = self.senders.get_mut(&node)
            && generation <= sender.generation
        {
            let newest = Newest {
                generation: sender.generation,
                number: sender.newest,
            };
            if generation < sender.generation {
                return Err(Stale::OldGeneration(newest));
            }
            if !sender.note(number) {
                return Err(Stale::Replayed(newest));
            }
            sender.last_heard = self.datagrams;
            return Ok(());
        }
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&node) {
            self.forget_one();
        }
        self.senders
            .insert(node, Sender::new(generation, number, self.datagrams));
        Ok(())
    }

    /// Makes room. Refusing newcomers instead would lock them out for good.
    fn forget_one(&mut self) {
        let silent = self.senders.iter().min_by_key(|(_, sender)| sender.last_heard);
        if let Some(node) = silent.map(|(node, _)| *node) {
            self.senders.remove(&node);
        }
    }
}

impl Sender {
    fn new(generation: u64, number: u64, last_heard: u64) -> Self {
        let mut sender = Self {
            generation,
            newest: number,
            heard: [0; WORDS],
            last_heard,
        };
        sender.mark(number);
        sender
    }

    /// False if it was heard before, or may have been.
    fn note(&mut self, number: u64) -> bool {
        if number > self.newest {
            self.clear(self.newest + 1, number);
            self.newest = number;
        } else if self.newest - number >= WINDOW || self.is_marked(number) {
            return false;
        }
        self.mark(number);
        true
    }

    /// Marks `first..=last` as not heard.
    fn clear(&mut self, first: u64, last: u64) {
        if last - first >= WINDOW - 1 {
            self.heard = [0; WORDS];
            return;
        }
        for number in first..=last {
            let (word, bit) = place(number);
            self.heard[word] &= !bit;
        }
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.heard[word] |= bit;
    }

    fn is_marked(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.heard[word] & bit != 0
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId(1);

    fn replayed(generation: u64, number: u64) -> Result<(), Stale> {
        Err(Stale::Replayed(Newest { generation, number }))
    }

    #[test]
    fn a_number_is_taken_once_in_any_order_and_not_when_too_old() {
        let mut replay = Replay::default();
        let mut newest = 0;
        for number in [5000, 4999, 5001, 5001 - WINDOW + 1, 6000] {
            newest = newest.max(number);
            assert_eq!(replay.note(NODE, 1, number), Ok(()), "{number}");
            assert_eq!(replay.note(NODE, 1, number), replayed(1, newest), "{number}");
        }
        assert_eq!(replay.note(NODE, 1, 6000 - WINDOW), replayed(1, 6000));
        // The greatest number of all ends nothing.
        assert_eq!(replay.note(NODE, 1, u64::MAX), Ok(()));
        assert_eq!(replay.note(NODE, 1, u64::MAX), replayed(1, u64::MAX));
        assert_eq!(replay.note(NODE, 1, 0), replayed(1, u64::MAX));
    }

    #[test]
    fn a_new_generation_begins_anew_and_ends_the_older_ones() {
        let mut replay = Replay::default();
        assert_eq!(replay.note(NODE, 7, 10), Ok(()));
        assert_eq!(replay.note(NODE, 8, 10), Ok(()));
        let old = Err(Stale::OldGeneration(Newest {
            generation: 8,
            number: 10,
        }));
        assert_eq!(replay.note(NODE, 7, 11), old);
        assert_eq!(replay.note(NODE, 8, 10), replayed(8, 10));
        assert_eq!(replay.note(NodeId(2), 1, 10), Ok(()));
    }

    #[test]
    fn the_sender_that_was_silent_longest_makes_room_for_a_new_one() {
        let mut replay = Replay::default();
        for node in 0..SENDERS_MAX as u64 {
            replay.note(NodeId(node), 2, 0).unwrap();
        }
        replay.note(NodeId(0), 2, 1).unwrap();
        replay.note(NodeId(u64::MAX), 2, 0).unwrap();
        assert_eq!(replay.senders.len(), SENDERS_MAX);
        assert!(replay.senders.contains_key(&NodeId(0)) && !replay.senders.contains_key(&NodeId(1)));
    }

    proptest! {
        #[test]
        fn the_window_says_the_same_as_a_plain_set(jumps in prop::collection::vec(-1500i64..1500, 1..300)) {
            let (mut replay, mut heard, mut at) = (Replay::default(), BTreeSet::new(), 10_000i64);
            for jump in jumps {
                at = (at + jump).max(0);
                let number = at as u64;
                let newest: u64 = heard.last().copied().unwrap_or(number);
                let fresh = !heard.contains(&number) && number + WINDOW > newest;
                prop_assert_eq!(replay.note(NODE, 1, number).is_ok(), fresh);
                if fresh {
                    heard.insert(number);
                }
            }
        }
    }
}
