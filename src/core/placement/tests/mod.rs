//! Who holds which slots, and how evenly they are spread.

mod any_seats;

use super::*;

/// Equal weights; `zone` says in which zone each seat is.
fn seats(count: usize, zone: impl Fn(usize) -> usize) -> Vec<Seat> {
    let seat = |at| Seat {
        node: NodeId(1000 + at as u64),
        zone: format!("zone {}", zone(at)),
        weight: 1,
    };
    (0..count).map(seat).collect()
}

/// The ways in which zones can be alike: one for all, one for each seat, and so few in turn that balance only just allows it.
fn alike(count: usize, replication: usize) -> [Vec<Seat>; 3] {
    let few = 2 * replication - 1;
    [seats(count, |_| 0), seats(count, |at| at), seats(count, |at| at % few)]
}

fn slots() -> impl Iterator<Item = SlotId> {
    (0..SLOT_COUNT).map(SlotId)
}

/// How many slots each seat holds, and in how many it comes first.
fn duties(placement: &Placement) -> Vec<(usize, usize)> {
    let mut duties = vec![(0, 0); placement.nodes().len()];
    let seat = |node: NodeId| placement.nodes().iter().position(|other| *other == node).unwrap();
    for slot in slots() {
        for node in placement.replicas(slot) {
            duties[seat(*node)].0 += 1;
        }
        duties[seat(placement.replicas(slot)[0])].1 += 1;
    }
    duties
}

/// Calls back for each number of seats from `replication` on, with the slots held before the last came and after.
fn each_size(seats: &[Seat], replication: usize, mut check: impl FnMut(usize, &[Vec<usize>], &Fold)) {
    let mut fold = Fold::of_first(replication, members(seats));
    for newest in replication..seats.len() {
        let before = fold.held.clone();
        fold.seat(newest);
        check(newest + 1, &before, &fold);
    }
}

fn fullest(fold: &Fold) -> f64 {
    fold.load.iter().copied().max().unwrap() as f64
}

/// How many places changed, all of them to the newest seat.
fn moved(before: &[Vec<usize>], fold: &Fold, newest: usize) -> usize {
    let gained = |(before, after): (&Vec<usize>, &Vec<usize>)| {
        let gained: Vec<usize> = after.iter().copied().filter(|seat| !before.contains(seat)).collect();
        assert!(gained.iter().all(|seat| *seat == newest), "{gained:?} and not {newest}");
        gained.len()
    };
    before.iter().zip(&fold.held).map(gained).sum()
}

#[test]
fn of_up_to_100_equal_nodes_none_is_a_twentieth_above_the_mean_and_a_new_one_moves_its_share_and_no_more() {
    let (mut fullest_worst, mut moved_worst) = (0.0f64, 0.0f64);
    for seats in alike(100, 3) {
        each_size(&seats, 3, |count, before, fold| {
            let mean = 3.0 * 1024.0 / count as f64;
            let (fullest, moved) = (fullest(fold) / mean, moved(before, fold, count - 1) as f64 / mean);
            assert!(fullest <= 1.05, "{count} seats: {fullest} of the mean");
            assert!(moved <= 1.1, "{count} seats: {moved} of 1/{count} moved");
            (fullest_worst, moved_worst) = (fullest_worst.max(fullest), moved_worst.max(moved));
        });
    }
    println!("the fullest has {fullest_worst:.4} of the mean, and {moved_worst:.4} of 1/(n+1) moves");
}

#[test]
fn whatever_the_replication_equal_nodes_differ_by_rounding_only() {
    for replication in [1, 2, 5] {
        for seats in alike(40, replication) {
            each_size(&seats, replication, |count, before, fold| {
                let mean = replication as f64 * 1024.0 / count as f64;
                let (fullest, moved) = (fullest(fold), moved(before, fold, count - 1) as f64);
                assert!(fullest <= mean.ceil(), "{count} seats: {fullest} for {mean}");
                assert!(moved <= 1.1 * mean, "{count} seats: {moved} moved for {mean}");
            });
        }
    }
}

#[test]
fn fewer_seats_mean_the_same_fold_cut_short() {
    let all = seats(60, |at| at % 4);
    each_size(&all, 3, |count, _, fold| {
        if count % 7 == 0 {
            let placement = Placement::of(&all[..count], 3);
            for (slot, held) in slots().zip(&fold.held) {
                let mut expected: Vec<NodeId> = held.iter().map(|seat| all[*seat].node).collect();
                let mut got = placement.replicas(slot).to_vec();
                expected.sort();
                got.sort();
                assert_eq!(got, expected);
            }
        }
    });
}

#[test]
fn every_node_comes_first_in_its_part_of_the_slots() {
    let mut worst = 0.0f64;
    for count in [3, 4, 5, 7, 10, 16, 33, 64, 99, 100] {
        for (load, first) in duties(&Placement::of(&seats(count, |_| 0), 3)) {
            assert!(
                (load / 3..=load.div_ceil(3)).contains(&first),
                "{first} of {load} slots"
            );
            worst = worst.max(first as f64 * count as f64 / 1024.0);
        }
    }
    println!("first in: {worst:.4} of the mean");
}

#[test]
fn replicas_keep_apart_while_there_are_zones_enough() {
    let unequal = |at: usize| match at {
        0..10 => 0,
        10..13 => 1,
        13 => 2,
        _ => 3 + at % 2,
    };
    for seats in [
        seats(9, |at| at % 3),
        seats(14, unequal),
        seats(30, unequal),
        seats(12, |at| at.saturating_sub(9)),
    ] {
        let placement = Placement::of(&seats, 3);
        for slot in slots() {
            let mut zones: Vec<&str> = placement
                .replicas(slot)
                .iter()
                .map(|node| zone(&seats, *node))
                .collect();
            zones.sort_unstable();
            zones.dedup();
            assert_eq!(zones.len(), 3, "{slot:?}");
        }
    }
}

fn zone(seats: &[Seat], node: NodeId) -> &str {
    &seats.iter().find(|seat| seat.node == node).unwrap().zone
}

#[test]
fn with_two_zones_for_three_replicas_both_hold_every_slot() {
    let seats = seats(8, |at| usize::from(at >= 6));
    let placement = Placement::of(&seats, 3);
    for slot in slots() {
        let second = placement
            .replicas(slot)
            .iter()
            .filter(|node| zone(&seats, **node) == "zone 1")
            .count();
        assert!((1..=2).contains(&second));
    }
    // The smaller zone has to hold more than its part, but no more than that.
    let loads: Vec<usize> = duties(&placement).iter().map(|(load, _)| *load).collect();
    assert_eq!(loads[6..], [512, 512]);
    assert!(loads[..6].iter().all(|load| (341..=342).contains(load)));
}

#[test]
fn a_seat_alone_in_a_zone_that_is_needed_holds_every_slot_and_the_others_share_evenly() {
    let placement = Placement::of(&seats(12, |at| at.saturating_sub(9)), 3);
    // Seats 0 to 9 are one zone, 10 and 11 one each.
    let loads: Vec<usize> = duties(&placement).iter().map(|(load, _)| *load).collect();
    assert_eq!(loads[10..], [1024, 1024]);
    assert!(loads[..10].iter().all(|load| (102..=103).contains(load)));
}

#[test]
fn a_seat_of_twice_the_weight_holds_twice_as_much() {
    let mut seats = seats(12, |at| at);
    for (at, seat) in seats.iter_mut().enumerate() {
        seat.weight = 100 * (1 + at as u32 % 3);
    }
    for (at, (load, first)) in duties(&Placement::of(&seats, 3)).into_iter().enumerate() {
        let share = 3.0 * 1024.0 * (1 + at % 3) as f64 / 24.0;
        assert!((load as f64 - share).abs() < 2.0, "{load} for {share}");
        assert!((first as f64 - share / 3.0).abs() < 2.0, "first in {first} for {share}");
    }
}

#[test]
fn a_weight_without_bounds_does_no_harm() {
    let mut seats = seats(5, |_| 0);
    seats[0].weight = 0;
    seats[4].weight = u32::MAX;
    let loads: Vec<usize> = duties(&Placement::of(&seats, 3))
        .iter()
        .map(|(load, _)| *load)
        .collect();
    assert_eq!(loads[4], 1024);
    assert_eq!(loads.iter().sum::<usize>(), 3 * 1024);
}

#[test]
fn replacing_who_sits_changes_nothing_else() {
    let before = seats(20, |at| at % 4);
    for replaced in [0, 2, 7, 19] {
        let mut after = before.clone();
        let (old, new) = (before[replaced].node, NodeId(5));
        after[replaced].node = new;
        let (before, after) = (Placement::of(&before, 3), Placement::of(&after, 3));
        for slot in slots() {
            let renamed: Vec<NodeId> = before.replicas(slot).to_vec();
            let renamed: Vec<NodeId> = renamed
                .into_iter()
                .map(|node| if node == old { new } else { node })
                .collect();
            assert_eq!(after.replicas(slot), renamed);
        }
    }
}

#[test]
fn what_the_zones_are_called_changes_nothing() {
    let before = seats(20, |at| at % 4);
    let mut after = before.clone();
    for seat in &mut after {
        seat.zone = format!("{}th", 9 - seat.zone.trim_start_matches("zone ").parse::<u8>().unwrap());
    }
    assert_eq!(Placement::of(&before, 3), Placement::of(&after, 3));
}

#[test]
fn while_there_are_fewer_seats_than_replicas_every_node_holds_every_slot() {
    for count in 1..=3 {
        let placement = Placement::of(&seats(count, |_| 0), 3);
        for slot in slots() {
            let mut replicas = placement.replicas(slot).to_vec();
            replicas.sort();
            assert_eq!(replicas, placement.nodes());
        }
    }
}

#[test]
fn every_node_holds_the_system_slot_and_no_slot_that_does_not_exist() {
    let placement = Placement::of(&seats(9, |_| 0), 3);
    assert_eq!(placement.replicas(SYSTEM_SLOT), placement.nodes());
    assert!(placement.replicas(SlotId(SLOT_COUNT + 1)).is_empty());
}

#[test]
fn without_seats_nobody_holds_anything() {
    let placement = Placement::of(&[], 3);
    assert!(placement.nodes().is_empty());
    assert!(
        slots()
            .chain([SYSTEM_SLOT])
            .all(|slot| placement.replicas(slot).is_empty())
    );
    assert_eq!(Placement::of(&seats(2, |_| 0), 0), Placement::of(&seats(2, |_| 0), 1));
}

/// A node of another version must find the same: if this fails, the change breaks every cluster that exists.
#[test]
fn the_placement_of_known_seats_never_changes() {
    let mut seats = seats(37, |at| at * at % 11);
    for (at, seat) in seats.iter_mut().enumerate() {
        seat.weight = 1 + at as u32 % 5;
    }
    let bytes = |replication| -> Vec<u8> {
        let placement = Placement::of(&seats, replication);
        let nodes = slots().flat_map(|slot| placement.replicas(slot).to_vec());
        nodes.flat_map(|node| node.0.to_le_bytes()).collect()
    };
    assert_eq!([1, 3, 6].map(|replication| xxh3_64(&bytes(replication))), KNOWN);
}

const KNOWN: [u64; 3] = [0xcd3d_4944_3b6d_96b1, 0x148d_7a8a_5f51_93e5, 0x7c05_c30c_6ee4_459f];
