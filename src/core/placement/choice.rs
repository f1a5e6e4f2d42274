//! Chooses one seat for each slot from the slot's candidates, such that each seat is chosen as nearly as often as it is due.

use super::balance::{self, Slots};
use super::share::ONE;

/// For each slot, which of its candidates is chosen: the first, if that evens out. `due` is how often each seat should be chosen, in parts of
/// [`ONE`]. No slot is without a candidate; where one slot does as well as another, the earlier of `order` is taken to even out.
pub fn choose(candidates: &[Vec<usize>], order: &[usize], due: &[i64]) -> Vec<usize> {
    let chosen: Vec<usize> = candidates.iter().map(|seats| seats[0]).collect();
    let mut excess: Vec<i64> = due.iter().map(|due| -due).collect();
    for seat in &chosen {
        excess[*seat] += ONE;
    }
    let mut choice = Choice {
        candidates,
        order,
        chosen,
    };
    balance::even_out(&mut choice, &mut excess, ONE, ONE);
    choice.chosen
}

struct Choice<'a> {
    candidates: &'a [Vec<usize>],
    order: &'a [usize],
    chosen: Vec<usize>,
}

impl Slots for Choice<'_> {
    fn passes(&self, seat: usize) -> impl Iterator<Item = (usize, usize)> {
        let its = self
            .order
            .iter()
            .copied()
            .filter(move |slot| self.chosen[*slot] == seat);
        its.flat_map(|slot| self.candidates[slot].iter().map(move |other| (slot, *other)))
    }

    fn pass(&mut self, slot: usize, _from: usize, to: usize) -> bool {
        self.chosen[slot] = to;
        true
    }
}
