//! The requests of one connection that were not answered yet.
//!
//! A slab: the lower bits of a request's id are its place. The places are also chained in the order in which the requests were made, so
//! that the oldest is known at any time.

use super::on_answer::OnAnswer;

const INDEX_BITS: u32 = 13;
/// Requests that may wait for one peer. At 50,000 a second about 160 ms worth: a request that would wait longer is better refused.
pub const CALLS_MAX: usize = 1 << INDEX_BITS;
/// No place.
const NONE: u32 = u32::MAX;

/// A request that waits for its answer.
pub struct Waiting {
    pub on_answer: OnAnswer,
    /// See `Link::now_us`.
    pub since_us: u64,
    /// Encoded request.
    pub bytes: usize,
}

struct Place {
    id: u64,
    waiting: Option<Waiting>,
    /// Neighbours in age; in a free place, `younger` is the next free one.
    older: u32,
    younger: u32,
}

pub struct Pending {
    places: Vec<Place>,
    free: u32,
    oldest: u32,
    youngest: u32,
    count: usize,
    /// Encoded requests of all that wait.
    bytes: usize,
    /// Makes every id of the connection another one.
    serial: u64,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            oldest: NONE,
            youngest: NONE,
            count: 0,
            bytes: 0,
            serial: 0,
        }
    }
}

impl Pending {
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn oldest_since_us(&self) -> Option<u64> {
        Some(self.places.get(self.oldest as usize)?.waiting.as_ref()?.since_us)
    }

    /// The id that the next `add` has to give; none if no more may wait.
    pub fn next_id(&self) -> Option<u64> {
        if self.count >= CALLS_MAX {
            return None;
        }
        let index = match self.free {
            NONE => self.places.len() as u64,
            free => u64::from(free),
        };
        Some(self.serial << INDEX_BITS | index)
    }

    /// `id` must be what `next_id` just said.
    pub fn add(&mut self, id: u64, waiting: Waiting) {
        debug_assert_eq!(self.next_id(), Some(id));
        let index = index_of(id);
        self.serial += 1;
        self.count += 1;
        self.bytes += waiting.bytes;
        let place = Place {
            id,
            waiting: Some(waiting),
            older: self.youngest,
            younger: NONE,
        };
        match self.places.get_mut(index as usize) {
            Some(free) => {
                self.free = free.younger;
                *free = place;
            }
            None => self.places.push(place),
        }
        match self.places.get_mut(self.youngest as usize) {
            Some(youngest) => youngest.younger = index,
            None => self.oldest = index,
        }
        self.youngest = index;
    }

    /// Takes the request with this id out; None if there was no such request, or it was answered before.
    pub fn take(&mut self, id: u64) -> Option<Waiting> {
        let index = index_of(id);
        let place = self.places.get_mut(index as usize).filter(|place| place.id == id)?;
        let waiting = place.waiting.take()?;
        let (older, younger) = (place.older, place.younger);
        place.younger = self.free;
        self.free = index;
        match self.places.get_mut(older as usize) {
            Some(older) => older.younger = younger,
            None => self.oldest = younger,
        }
        match self.places.get_mut(younger as usize) {
            Some(younger) => younger.older = older,
            None => self.youngest = older,
        }
        self.count -= 1;
        self.bytes -= waiting.bytes;
        Some(waiting)
    }
}

fn index_of(id: u64) -> u32 {
    (id & (CALLS_MAX as u64 - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(pending: &mut Pending, since_us: u64) -> Option<u64> {
        let id = pending.next_id()?;
        let waiting = Waiting {
            on_answer: OnAnswer::then(|_| {}),
            since_us,
            bytes: 10,
        };
        pending.add(id, waiting);
        Some(id)
    }

    #[test]
    fn the_oldest_is_known_whatever_the_order_of_the_answers() {
        let mut pending = Pending::default();
        let ids: Vec<u64> = (0..4).map(|since| add(&mut pending, since).unwrap()).collect();
        assert_eq!((pending.count(), pending.bytes()), (4, 40));
        let mut taken = |id: u64| (pending.take(id).is_some(), pending.oldest_since_us());
        assert_eq!(taken(ids[1]), (true, Some(0)));
        assert_eq!(taken(ids[0]), (true, Some(2)));
        assert_eq!(taken(ids[0]), (false, Some(2)));
        assert_eq!(taken(ids[3]), (true, Some(2)));
        assert_eq!(taken(ids[2]), (true, None));
        assert_eq!(taken(99), (false, None));
        assert_eq!((pending.count(), pending.bytes()), (0, 0));
        add(&mut pending, 9);
        add(&mut pending, 10);
        assert_eq!(pending.oldest_since_us(), Some(9));
    }

    #[test]
    fn places_are_used_again_but_ids_never() {
        let mut pending = Pending::default();
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..10 {
            let first = add(&mut pending, round).unwrap();
            let second = add(&mut pending, round).unwrap();
            assert!(seen.insert(first) && seen.insert(second));
            assert!(pending.take(second).is_some() && pending.take(first).is_some());
        }
        assert_eq!(pending.places.len(), 2);
    }

    #[test]
    fn no_more_than_so_many_wait() {
        let mut pending = Pending::default();
        let ids: Vec<u64> = (0..).map_while(|since| add(&mut pending, since)).collect();
        assert_eq!((ids.len(), pending.places.len()), (CALLS_MAX, CALLS_MAX));
        assert!(pending.take(ids[77]).is_some());
        assert!(add(&mut pending, 0).is_some() && add(&mut pending, 0).is_none());
    }
}
