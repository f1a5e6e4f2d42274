//! Evens out what the zones kept the newest seat from evening out by taking alone.
//!
//! A seat may have to give up more slots than there are which the newest may join, its zone being in the others already. Then other seats
//! take what is left over and let the newest have slots that it may join. With zones and weights alike this never happens.

use super::Fold;
use super::balance::{self, Slots};
use super::share::{ONE, Room};

/// Rounding makes seats differ by one slot and a part of one; nothing moves for less than two.
const GAP: i64 = 2 * ONE;

/// Of the seats that `shares` are for. Of equal moves the one that takes the earlier slot of `order` is made.
pub fn even_out(fold: &mut Fold, shares: &[i64], rooms: &[Room], order: &[usize]) {
    let mut excess = fold.excess(shares);
    let mut relocation = Relocation {
        fold,
        seats: shares.len(),
        rooms,
        order,
    };
    balance::even_out(&mut relocation, &mut excess, ONE, GAP);
}

struct Relocation<'a> {
    fold: &'a mut Fold,
    /// How many have had their turn.
    seats: usize,
    rooms: &'a [Room],
    order: &'a [usize],
}

impl Relocation<'_> {
    /// The seats that may take the place of `leaving` in `slot`.
    fn takers(&self, slot: usize, leaving: usize) -> impl Iterator<Item = usize> {
        let members = &self.fold.members;
        let held = &self.fold.held[slot];
        let count = move |zone| held.iter().filter(|seat| members[**seat].zone == zone).count();
        let from = members[leaving].zone;
        let may_leave_zone = count(from) > self.rooms[from].least;
        let has_room = move |to: usize| to == from || may_leave_zone && count(to) < self.rooms[to].most;
        let seats = if held.contains(&leaving) { 0..self.seats } else { 0..0 };
        seats.filter(move |seat| has_room(members[*seat].zone) && !held.contains(seat))
    }
}

impl Slots for Relocation<'_> {
    fn passes(&self, seat: usize) -> impl Iterator<Item = (usize, usize)> {
        let held = move |slot: &usize| self.fold.held[*slot].contains(&seat);
        let slots = self.order.iter().copied().filter(held);
        slots.flat_map(move |slot| self.takers(slot, seat).map(move |taker| (slot, taker)))
    }

    fn pass(&mut self, slot: usize, from: usize, to: usize) -> bool {
        let may = self.takers(slot, from).any(|taker| taker == to);
        if may {
            self.fold.replace(slot, from, to);
        }
        may
    }
}
