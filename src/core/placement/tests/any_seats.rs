//! What holds for any seats, whatever their zones and weights.

use proptest::prelude::*;

use super::*;

fn any_seats() -> impl Strategy<Value = Vec<Seat>> {
    // The square makes some zones much larger than others.
    let weights = prop_oneof![Just(1u32), Just(10), Just(1000)];
    (1..12usize, weights).prop_flat_map(|(zones, weight_max)| {
        prop::collection::vec((0..zones, 0..zones, 1..=weight_max), 1..40).prop_map(|drawn| {
            let mut seats = seats(drawn.len(), |at| drawn[at].0.min(drawn[at].1));
            for (seat, (_, _, weight)) in seats.iter_mut().zip(&drawn) {
                seat.weight = *weight;
            }
            seats
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn of_any_seats_slots_are_spread_over_zones_and_no_seat_is_two_off_its_share(
        seats in any_seats(), replication in 1..7usize
    ) {
        let placement = Placement::of(&seats, replication);
        let width = replication.min(seats.len());
        let members = members(&seats);
        let rooms = Room::of_zones(&members, width);
        for slot in slots() {
            let mut nodes = placement.replicas(slot).to_vec();
            let mut counts = vec![0; rooms.len()];
            for node in &nodes {
                counts[members[(node.0 - 1000) as usize].zone] += 1;
            }
            prop_assert!(counts.iter().zip(&rooms).all(|(count, room)| (room.least..=room.most).contains(count)));
            nodes.sort();
            nodes.dedup();
            prop_assert_eq!(nodes.len(), width);
        }
        let shares = share::of_members(&members, &rooms, width);
        for ((load, first), share) in duties(&placement).into_iter().zip(shares) {
            prop_assert!((load as i64 * ONE - share).abs() < 2 * ONE, "{} for {}", load, share as f64 / ONE as f64);
            prop_assert!((load / width..=load.div_ceil(width)).contains(&first), "first in {} of {}", first, load);
        }
    }
}

/// What rounding may leave of a share: the members' weights, in the smallest parts.
const ROUNDING: i64 = 40 * 1000;

proptest! {
    #[test]
    fn shares_are_all_the_slots_by_weight_as_far_as_zones_have_room(seats in any_seats(), replication in 1..7usize) {
        let members = members(&seats);
        let width = replication.min(seats.len());
        let rooms = Room::of_zones(&members, width);
        prop_assert!(rooms.iter().map(|room| room.least).sum::<usize>() <= width);
        prop_assert!(rooms.iter().map(|room| room.most).sum::<usize>() >= width);
        let shares = share::of_members(&members, &rooms, width);
        let every = SLOTS as i64 * ONE;
        prop_assert!((shares.iter().sum::<i64>() - width as i64 * every).abs() <= ROUNDING);
        let zone_total = |zone: usize| -> i64 {
            (0..members.len()).filter(|at| members[*at].zone == zone).map(|at| shares[at]).sum()
        };
        // Nobody could have more, by weight, at the cost of someone who has more by weight already.
        for (poor, rich) in (0..members.len()).flat_map(|poor| (0..members.len()).map(move |rich| (poor, rich))) {
            let per_weight = |at: usize| shares[at] as f64 / f64::from(seats[at].weight);
            if per_weight(poor) < per_weight(rich) * 0.999_999 {
                let (to, from) = (members[poor].zone, members[rich].zone);
                let is_full = shares[poor] >= every;
                let zone_is_full = zone_total(to) + ROUNDING >= rooms[to].most as i64 * every;
                let zone_needs_all = zone_total(from) - ROUNDING <= rooms[from].least as i64 * every;
                prop_assert!(is_full || to != from && (zone_is_full || zone_needs_all), "{} and {}", poor, rich);
            }
        }
    }

    #[test]
    fn no_share_grows_when_a_seat_is_added(seats in any_seats(), replication in 1..7usize) {
        let members = members(&seats);
        let shares = |count| {
            let rooms = Room::of_zones(&members[..count], replication);
            share::of_members(&members[..count], &rooms, replication)
        };
        for count in replication..seats.len() {
            for (before, after) in shares(count).into_iter().zip(shares(count + 1)) {
                prop_assert!(after <= before + ROUNDING);
            }
        }
    }

    #[test]
    fn no_other_choice_comes_nearer_to_what_is_due(
        candidates in prop::collection::vec(prop::sample::subsequence(vec![0, 1, 2, 3], 1..=3), 1..7),
        due in prop::collection::vec(0..3 * ONE, 4),
    ) {
        let order: Vec<usize> = (0..candidates.len()).rev().collect();
        let misses = |chosen: &[usize]| -> i128 {
            let times = |seat| chosen.iter().filter(|other| **other == seat).count() as i64;
            (0..4).map(|seat| i128::from(times(seat) * ONE - due[seat]).pow(2)).sum()
        };
        let chosen = choice::choose(&candidates, &order, &due);
        prop_assert!(chosen.iter().zip(&candidates).all(|(seat, from)| from.contains(seat)));
        let mut every = vec![Vec::new()];
        for from in &candidates {
            let with = |chosen: &Vec<usize>| from.iter().map(|seat| [chosen.as_slice(), &[*seat]].concat()).collect::<Vec<_>>();
            every = every.iter().flat_map(with).collect();
        }
        let best = every.iter().map(|other| misses(other)).min().unwrap();
        prop_assert_eq!(misses(&chosen), best);
    }
}
