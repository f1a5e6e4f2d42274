//! Exchanging clocks with a peer: first the digests of all that both hold, then the clocks of those slots that differ, as many at a time as go
//! into a message.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::{Broken, ask};
use crate::node::peers::Peer;
use crate::types::NodeId;
use crate::wire::{NOT_NAMED, Request, Response, WireClock};

/// Slots whose clocks go into one message, and about how many bytes of them.
const CLOCKS_MAX: usize = 256;
const CLOCKS_BYTES_MAX: usize = 1 << 20;
/// The most that these take in a message.
const SLOT_BYTES: usize = 12;
const ORIGIN_BYTES: usize = 16;
const RANGE_BYTES: usize = 20;

/// This node's clocks of some slots, and of these the peer's, with what it has collected.
type Exchanged = (BTreeMap<SlotId, Clock>, Vec<(u16, WireClock, WireClock)>);

/// Slots whose clocks are still to be exchanged.
pub(in crate::node::cluster) struct Portions<'s> {
    slots: &'s [SlotId],
    /// So many at a time.
    most: usize,
}

impl<'s> Portions<'s> {
    pub(in crate::node::cluster) fn of(slots: &'s [SlotId]) -> Self {
        let most = CLOCKS_MAX;
        Self { slots, most }
    }
}

impl Inner {
    /// The slots that both this node and the peer hold.
    pub(in crate::node::cluster) fn shared_slots(&self, peer: NodeId) -> Vec<SlotId> {
        let layout = self.layout();
        let shared = layout.shared_with(peer).iter();
        // Everybody holds the system's slot; a member that is not in the table yet finds the table there.
        shared.copied().chain([SYSTEM_SLOT]).collect()
    }

    pub(in crate::node::cluster) fn digests(&self, slots: &[SlotId]) -> Result<BTreeMap<SlotId, u64>, OpError> {
        let wanted: BTreeSet<SlotId> = slots.iter().copied().collect();
        let readers = self.local.all_readers()?;
        let digests = readers.iter().flat_map(|reader| reader.durable_digests());
        Ok(digests.filter(|(slot, _)| wanted.contains(slot)).collect())
    }

    /// Tells the peer some of these clocks, and hears its own; none when all were told.
    pub(in crate::node::cluster) async fn exchange_clocks(
        &self,
        peer: &Peer,
        left: &mut Portions<'_>,
    ) -> Result<Option<Exchanged>, Broken> {
        while !left.slots.is_empty() {
            let (mut mine, mut bytes) = (BTreeMap::new(), 0);
            for slot in left.slots.iter().take(left.most) {
                let clock = self.local.clock(*slot)?;
                bytes += clock_bytes(&clock);
                if bytes > CLOCKS_BYTES_MAX && !mine.is_empty() {
                    break;
                }
                mine.insert(*slot, clock);
            }
            let clocks = mine.iter().map(|(slot, clock)| (slot.0, WireClock::of(clock)));
            let request = Request::Clocks {
                slots: clocks.collect(),
            };
            match ask(peer, request).await {
                Ok(Response::Clocks(theirs)) => {
                    left.slots = left.slots.get(mine.len()..).unwrap_or_default();
                    return Ok(Some((mine, theirs)));
                }
                // Its own clocks may be larger.
                Err(Broken::Refused(_)) if mine.len() > 1 => left.most = mine.len() / 2,
                Ok(_) => return Err(Broken::Answer),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(in crate::node::cluster) fn answer_compare(&self, from: NodeId, digest: u64) -> Result<Response, OpError> {
        if !self.layout().table.is_up(from) {
            // Its table may be newer, and which slots both hold is not known here: none of them must look empty, and so equal, to it.
            let own = self.local.all_clocks()?;
            let differs = |slot| (slot, !own.get(SlotId(slot)).map_or(0, Clock::digest));
            let differing = (0..=SYSTEM_SLOT.0).map(differs);
            return Ok(Response::Differ(differing.chain([(NOT_NAMED, 0)]).collect()));
        }
        let mut digests = self.digests(&self.shared_slots(from))?;
        // Of a slot in which this node is behind what the peer told in its life before, to hold the same proves nothing.
        let beyond = self.clocks.beyond(from, || self.local.clocks());
        if beyond.is_empty() && digest_of(&digests) == digest {
            return Ok(Response::Same);
        }
        for slot in beyond {
            let digest = digests.entry(slot).or_default();
            *digest = !*digest;
        }
        // The peer has something new, or lacks something.
        self.clocks.unsettle(from);
        let digests = digests.into_iter().map(|(slot, digest)| (slot.0, digest));
        Ok(Response::Differ(digests.collect()))
    }

    pub(in crate::node::cluster) fn answer_clocks(
        &self,
        (from, connection): (NodeId, u64),
        slots: Vec<(u16, WireClock)>,
    ) -> Result<Response, OpError> {
        let mut answer = Vec::with_capacity(slots.len());
        for (slot, clock) in slots {
            let Ok(slot) = crate::wire::slot_of(slot) else {
                continue;
            };
            self.clocks.hear(from, connection, slot, &clock.into_clock());
            // The clock first: what is collected afterwards is covered by it.
            let collected = self.local.collected(slot)?;
            let clock = self.local.clock(slot)?;
            answer.push((slot.0, WireClock::of(&clock), WireClock::of(&collected)));
        }
        Ok(Response::Clocks(answer))
    }
}

/// The slots whose digests are equal, and the others.
pub(in crate::node::cluster) fn split(
    slots: &[SlotId],
    mine: &BTreeMap<SlotId, u64>,
    theirs: &BTreeMap<SlotId, u64>,
) -> (Vec<SlotId>, Vec<SlotId>) {
    slots.iter().partition(|slot| mine.get(slot) == theirs.get(slot))
}

/// One digest of those of some slots.
pub(in crate::node::cluster) fn digest_of(digests: &BTreeMap<SlotId, u64>) -> u64 {
    let mut bytes = Vec::with_capacity(digests.len() * 10);
    for (slot, digest) in digests {
        bytes.extend_from_slice(&slot.0.to_le_bytes());
        bytes.extend_from_slice(&digest.to_le_bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// About how many bytes a clock takes in a message, at most.
pub(in crate::node::cluster) fn clock_bytes(clock: &Clock) -> usize {
    let origins = clock
        .origins()
        .map(|(_, set)| ORIGIN_BYTES + set.ranges().len() * RANGE_BYTES);
    SLOT_BYTES + origins.sum::<usize>()
}

/// The same dots in several pieces, each of which takes at most about so many bytes in a message.
pub(in crate::node::cluster) fn portions(wants: &SlotClocks, bytes_max: usize) -> Vec<SlotClocks> {
    let (mut done, mut portion, mut bytes) = (Vec::new(), SlotClocks::default(), 0);
    for (slot, clock) in wants.slots() {
        bytes += SLOT_BYTES;
        for (origin, set) in clock.origins() {
            bytes += ORIGIN_BYTES;
            for &(first, last) in set.ranges() {
                bytes += RANGE_BYTES;
                if bytes > bytes_max && !portion.is_empty() {
                    done.push(std::mem::take(&mut portion));
                    bytes = SLOT_BYTES + ORIGIN_BYTES + RANGE_BYTES;
                }
                portion.insert_range(slot, origin, first, last);
            }
        }
    }
    done.push(portion);
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::stamp::OriginId;
    use crate::wire::{Message, WireClocks};

    #[test]
    fn portions_name_the_same_dots_and_none_is_larger_than_it_may_be() {
        let mut wants = SlotClocks::default();
        for slot in 0..3 {
            for origin in 0..200u64 {
                wants.insert_range(SlotId(slot * 7), OriginId(u64::MAX - origin), 1, u64::MAX - 1);
            }
        }
        // One origin of one slot alone is larger.
        for seq in 0..1_000u64 {
            wants.insert_range(
                SlotId(9),
                OriginId(u64::MAX),
                u64::MAX - 2 - seq * 2,
                u64::MAX - 2 - seq * 2,
            );
        }
        for bytes_max in [0, 100, 5_000, 1 << 20] {
            let mut all = SlotClocks::default();
            for portion in portions(&wants, bytes_max) {
                assert!(!portion.is_empty() && portion.meet(&all).is_empty());
                let mut encoded = Vec::new();
                let wants = WireClocks::of(&portion);
                Message::Request(u64::MAX, Request::Pull { pull: u64::MAX, wants }).encode(&mut encoded);
                assert!(
                    encoded.len() <= bytes_max.max(100) + 50,
                    "{} of {bytes_max}",
                    encoded.len()
                );
                all.join(&portion);
            }
            assert_eq!(all, wants);
        }
    }
}
