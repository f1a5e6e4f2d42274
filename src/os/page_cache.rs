//! Whether the system's page cache is of use to reads of single blocks.
//!
//! A block that is read by chance out of far more data than there is memory hardly ever lies in the page cache, and the way through it
//! costs more than that saves: pages to be found, filled, copied, and others given up for them. Such blocks are better read past
//! it. Where many of them are found there, it must be used. What is asked for decides that, as much as the sizes do, so it is measured:
//! some blocks are remembered, and when one of them is read again, the system says whether it was still there. That a block is not there the
//! first time says nothing.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

/// Remembered blocks. Of a terabyte in blocks of 8 KiB, read evenly, that is one read in four thousand.
const SAMPLE_BLOCKS: usize = 32 * 1024;
/// When that many are remembered, one read in so many takes the place of the oldest.
const RENEWED_EVERY: u32 = 64;
/// Remembered blocks that were read again make a verdict.
const VERDICT_READS: u32 = 256;
/// The page cache is of no use where it holds fewer than one in so many. A read from it saves a read of the disk, and a read past it a seventh
/// or so of one.
const USELESS_PART: u32 = 10;
/// After so many reads past the page cache it is measured again.
const DIRECT_READS: u32 = 1 << 20;

/// One block of one open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub file: u64,
    pub offset: u64,
}

/// How to read a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Cached,
    /// The same; and [`PageCache::found`] wants to know whether it was there.
    Asked,
    PastCache,
}

/// Shared by all files of a disk.
#[derive(Debug, Default)]
pub struct PageCache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Reads that are still to go past the page cache.
    direct_left: u32,
    sample: Sample,
    /// Remembered blocks that were read again, and how many of them were there.
    again: u32,
    there: u32,
}

impl PageCache {
    pub fn way(&self, place: Place) -> Way {
        let mut state = self.0.lock();
        if state.direct_left > 0 {
            state.direct_left -= 1;
            return Way::PastCache;
        }
        match state.sample.remember(place) {
            true => Way::Asked,
            false => Way::Cached,
        }
    }

    #[cfg(test)]
    pub fn reads_past(&self) -> u32 {
        DIRECT_READS - self.0.lock().direct_left
    }

    /// Whether blocks are to be looked for there.
    pub fn is_of_use(&self) -> bool {
        self.0.lock().direct_left == 0
    }

    /// A block was read, and found there.
    pub fn held(&self, place: Place) {
        let mut state = self.0.lock();
        if state.direct_left == 0 && state.sample.remember(place) {
            state.note(true);
        }
    }

    /// Whether a block that was asked about was there.
    pub fn found(&self, there: bool) {
        self.0.lock().note(there);
    }
}

impl State {
    fn note(&mut self, there: bool) {
        if self.direct_left > 0 {
            // It was asked before the verdict.
            return;
        }
        self.again += 1;
        self.there += u32::from(there);
        if self.again < VERDICT_READS {
            return;
        }
        if self.there * USELESS_PART < self.again {
            // Of what is there when that is over, nothing is known.
            *self = Self {
                direct_left: DIRECT_READS,
                ..Self::default()
            };
        }
        (self.again, self.there) = (0, 0);
    }
}

/// Blocks that were read, about as often there as they are read.
#[derive(Debug, Default)]
struct Sample {
    /// The oldest first.
    places: VecDeque<Place>,
    /// How often each is among them.
    counts: HashMap<Place, u32>,
    passed_over: u32,
}

impl Sample {
    /// Whether it was known already.
    fn remember(&mut self, place: Place) -> bool {
        let known = self.counts.contains_key(&place);
        if self.places.len() >= SAMPLE_BLOCKS {
            self.passed_over += 1;
            if self.passed_over < RENEWED_EVERY {
                return known;
            }
            self.passed_over = 0;
            self.forget_oldest();
        }
        self.places.push_back(place);
        *self.counts.entry(place).or_default() += 1;
        known
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.places.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// A page cache that forgets what was read longest ago; gives how many of the last reads went past it.
    fn past_cache(reads: u32, room: usize, pick: impl Fn(&mut Xoshiro256PlusPlus) -> u64) -> f64 {
        let (cache, mut random) = (PageCache::default(), Xoshiro256PlusPlus::seed_from_u64(1));
        let (mut held, mut uses) = (HashMap::new(), VecDeque::new());
        let mut past = 0;
        for read in 0..reads {
            let place = Place {
                file: 1,
                offset: pick(&mut random) * 8192,
            };
            if cache.is_of_use() && held.contains_key(&place) && read % 2 == 0 {
                // As one that must not wait.
                cache.held(place);
                continue;
            }
            let way = cache.way(place);
            if way == Way::PastCache {
                past += u32::from(read >= reads / 2);
                continue;
            }
            let there = held.insert(place, read).is_some();
            uses.push_back((place, read));
            while held.len() > room {
                let (place, used) = uses.pop_front().unwrap();
                if held.get(&place) == Some(&used) {
                    held.remove(&place);
                }
            }
            if way == Way::Asked {
                cache.found(there);
            }
        }
        f64::from(past) / f64::from(reads / 2)
    }

    #[test]
    fn what_is_far_more_than_memory_is_read_past_the_cache() {
        let part = past_cache(400_000, 10_000, |random| random.random_range(0..250_000));
        assert!(part > 0.9, "{part}");
    }

    #[test]
    fn what_fits_into_memory_is_not_even_while_it_is_read_for_the_first_time() {
        let part = past_cache(400_000, 250_000, |random| random.random_range(0..200_000));
        assert!(part == 0.0, "{part}");
    }

    #[test]
    fn where_some_of_it_is_read_often_the_cache_is_used() {
        let skewed = |random: &mut Xoshiro256PlusPlus| match random.random_range(0..4) {
            0 => random.random_range(0..5_000),
            _ => random.random_range(0..1_000_000),
        };
        let part = past_cache(400_000, 20_000, skewed);
        assert!(part == 0.0, "{part}");
    }

    #[test]
    fn it_is_measured_again_and_memory_that_came_free_is_used() {
        let cache = PageCache::default();
        let place = |offset| Place { file: 1, offset };
        for offset in 0..VERDICT_READS {
            assert_eq!(cache.way(place(u64::from(offset))), Way::Cached);
            assert_eq!(cache.way(place(u64::from(offset))), Way::Asked);
            cache.found(false);
        }
        for _ in 0..DIRECT_READS {
            assert_eq!(cache.way(place(0)), Way::PastCache);
        }
        assert_eq!(cache.way(place(0)), Way::Cached, "what was known before counts no more");
        for _ in 0..4 * VERDICT_READS {
            assert_eq!(cache.way(place(0)), Way::Asked);
            cache.found(true);
        }
    }

    #[test]
    fn of_very_many_blocks_no_more_are_remembered() {
        let mut sample = Sample::default();
        for offset in 0..20 * SAMPLE_BLOCKS as u64 {
            sample.remember(Place { file: 1, offset });
        }
        assert_eq!(sample.places.len(), SAMPLE_BLOCKS);
        assert_eq!(sample.counts.len(), SAMPLE_BLOCKS);
        assert!(!sample.remember(Place { file: 1, offset: 0 }), "the oldest made room");
    }
}
