//! How many slots each seat should hold: its share by weight, as far as slots and zones have room.
//!
//! A *level* is a number of slots per unit of weight. Water is poured into the seats to one level for all; a seat is full when it holds
//! every slot, a zone when it holds all that it has room for, and a zone that would get less than it must hold is filled on its own.
//!
//! In whole numbers, which come out alike on every machine: a share counts in parts of 1 / [`ONE`] of a slot.

use super::SLOTS;
use crate::types::WEIGHT_MAX;

/// One slot, as a share.
pub const ONE: i64 = 1 << 32;
/// Every slot, as a share.
const ALL: i64 = SLOTS as i64 * ONE;

/// What counts of a seat, but for its number.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    pub zone: usize,
    weight: i64,
}

impl Member {
    pub fn new(zone: usize, weight: u32) -> Self {
        Self {
            zone,
            weight: i64::from(weight.clamp(1, u32::from(WEIGHT_MAX))),
        }
    }

    fn at_level(self, level: i64) -> i64 {
        (self.weight * level).min(ALL)
    }
}

/// How many of one slot's replicas lie in a zone, at least and at most.
///
/// Each slot is spread over the zones as evenly as they have seats: with as many zones as replicas, one in a zone at most; with three
/// replicas and two zones, two and one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub least: usize,
    pub most: usize,
}

impl Room {
    /// For each zone. `width` is the number of replicas, and there are at least as many members.
    pub fn of_zones(members: &[Member], width: usize) -> Vec<Self> {
        let zones = members.iter().map(|member| member.zone + 1).max().unwrap_or(0);
        let mut sizes = vec![0; zones];
        for member in members {
            sizes[member.zone] += 1;
        }
        let places = |each: usize| sizes.iter().map(|size| each.min(*size)).sum::<usize>();
        let each = (1..width).find(|each| places(*each) >= width).unwrap_or(width);
        let room = |size| Self {
            least: (each - 1).min(size),
            most: each.min(size),
        };
        sizes.iter().copied().map(room).collect()
    }
}

/// The share of each member; together, `width` times every slot.
pub fn of_members(members: &[Member], rooms: &[Room], width: usize) -> Vec<i64> {
    let mut zones: Vec<Vec<Member>> = vec![Vec::new(); rooms.len()];
    for member in members {
        zones[member.zone].push(*member);
    }
    let poured = |zone: &[Member], level| zone.iter().map(|member| member.at_level(level)).sum::<i64>();
    let kept = |zone: &[Member], room: &Room, level| {
        poured(zone, level).clamp(room.least as i64 * ALL, room.most as i64 * ALL)
    };
    let rooms = || zones.iter().zip(rooms);
    let all_kept = |level| rooms().map(|(zone, room)| kept(zone, room, level)).sum::<i64>();
    let common = lowest_level(|level| all_kept(level) >= width as i64 * ALL);
    let own = |(zone, room): (&Vec<Member>, &Room)| {
        let total = kept(zone, room, common);
        lowest_level(|level| poured(zone, level) >= total)
    };
    let levels: Vec<i64> = rooms().map(own).collect();
    let share = |member: &Member| member.at_level(levels[member.zone]);
    members.iter().map(share).collect()
}

/// The lowest level that is enough. The highest, at which every member is full, always is.
fn lowest_level(is_enough: impl Fn(i64) -> bool) -> i64 {
    let (mut low, mut high) = (0, ALL);
    while low < high {
        let middle = (low + high) / 2;
        if is_enough(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
