//! Evens out what seats have too much and too little of, by passing single slots from seat to seat.
//!
//! A seat with too much passes a slot to another seat, which passes one of its own to a third, and so on to a seat with too little. If every
//! such path leads to a result that stays allowed, then with the last path gone no other way to share the slots out has a lower sum of the
//! squares of what is too much or too little: an optimal semi-matching (Harvey and others, 2006: see [`super`]).
//!
//! A path is worth walking if it leads from a seat to one that has less by more than a gap. A seat from which no such path starts
//! is *settled*, with all that it reaches: nothing leads out of there to less, so whatever is evened out elsewhere goes past it.
//! That bounds the searches: each shortens the sum of the squares, or settles a seat.

/// Who can pass what to whom.
pub trait Slots {
    /// The slots that `seat` could pass on, each with a seat that could take it; the preferred first.
    fn passes(&self, seat: usize) -> impl Iterator<Item = (usize, usize)>;

    /// Passes `slot` on, unless what was passed since the search has made that impossible: then false.
    fn pass(&mut self, slot: usize, from: usize, to: usize) -> bool;
}

/// `excess` is what each seat has too much of, `one` for a slot. Seats that differ by no more than `gap` are left alone; it is at least
/// `one`.
pub fn even_out(slots: &mut impl Slots, excess: &mut [i64], one: i64, gap: i64) {
    let mut open = vec![true; excess.len()];
    // What the last whole search reached: no path leads out of it.
    let mut within = open.clone();
    while let Some(from) = those(&open).max_by_key(|seat| excess[*seat]) {
        let least_of = |seats: &[bool]| those(seats).map(|seat| excess[seat]).min().unwrap_or(excess[from]);
        if excess[from] - least_of(&open) <= gap {
            return;
        }
        if !within[from] {
            within.clone_from(&open);
        }
        let least = least_of(&within);
        let search = Search::from(from, slots, &within, |seat| excess[seat] <= least);
        let to = search.least(excess);
        if search.is_whole {
            within.fill(false);
            for seat in &search.reached {
                within[*seat] = true;
            }
        }
        if excess[from] - excess[to] <= gap {
            for seat in those(&within) {
                open[seat] = false;
            }
            continue;
        }
        for (slot, giver, taker) in search.path_to(to) {
            if !slots.pass(slot, giver, taker) {
                open[from] = false;
                break;
            }
            excess[giver] -= one;
            excess[taker] += one;
        }
    }
}

fn those(seats: &[bool]) -> impl Iterator<Item = usize> {
    (0..seats.len()).filter(|seat| seats[*seat])
}

/// Where paths from one seat lead.
struct Search {
    /// The nearest first, so the start itself before all.
    reached: Vec<usize>,
    /// For each seat that was reached, but the start: the last step there, as slot and giver.
    step: Vec<Option<(usize, usize)>>,
    /// Whether there is nothing more to reach.
    is_whole: bool,
}

impl Search {
    /// By the shortest paths that keep away from settled seats; over when a seat is reached that will do.
    fn from(start: usize, slots: &impl Slots, within: &[bool], will_do: impl Fn(usize) -> bool) -> Self {
        let mut search = Self {
            reached: vec![start],
            step: vec![None; within.len()],
            is_whole: false,
        };
        let mut next = 0;
        while let Some(&giver) = search.reached.get(next) {
            next += 1;
            for (slot, taker) in slots.passes(giver) {
                if taker == start || !within[taker] || search.step[taker].is_some() {
                    continue;
                }
                search.step[taker] = Some((slot, giver));
                search.reached.push(taker);
                if will_do(taker) {
                    return search;
                }
            }
        }
        search.is_whole = true;
        search
    }

    fn least(&self, excess: &[i64]) -> usize {
        let start = self.reached[0];
        self.reached
            .iter()
            .copied()
            .min_by_key(|seat| excess[*seat])
            .unwrap_or(start)
    }

    /// The steps to `end`, the last first: slot, giver, taker.
    fn path_to(&self, end: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut taker = end;
        std::iter::from_fn(move || {
            let (slot, giver) = self.step[taker]?;
            let step = (slot, giver, taker);
            taker = giver;
            Some(step)
        })
    }
}
