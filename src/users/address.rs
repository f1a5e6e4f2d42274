//! Where a login comes from, as far as it is counted; and a bound on how much one such place may have going on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Addresses that count as one: a single IPv4 address, or an IPv6 /64, which is what one household or host is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AddressGroup {
    V4(Ipv4Addr),
    /// The upper 64 bits.
    V6(u64),
}

impl AddressGroup {
    pub fn of(address: IpAddr) -> Self {
        // A socket that takes both families shows IPv4 clients as ::ffff:a.b.c.d.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// At most so many slots for one address group at a time. Remembers only groups that hold one.
pub(super) struct AddressBound {
    slots_max: usize,
    held: Arc<Mutex<BTreeMap<AddressGroup, usize>>>,
}

impl AddressBound {
    pub fn new(slots_max: usize) -> Self {
        Self {
            slots_max,
            held: Arc::default(),
        }
    }

    pub fn try_enter(&self, group: AddressGroup) -> Option<AddressSlot> {
        let mut held = self.held.lock();
        let slots = held.entry(group).or_default();
        if *slots >= self.slots_max {
            return None;
        }
        *slots += 1;
        Some(AddressSlot {
            group,
            held: self.held.clone(),
        })
    }
}

/// Given back when dropped.
pub(super) struct AddressSlot {
    group: AddressGroup,
    held: Arc<Mutex<BTreeMap<AddressGroup, usize>>>,
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(slots) = held.get_mut(&self.group) {
            *slots = slots.saturating_sub(1);
            if *slots == 0 {
                held.remove(&self.group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> AddressGroup {
        AddressGroup::of(text.parse().expect("an address"))
    }

    #[test]
    fn ipv4_counts_by_address_and_ipv6_by_its_upper_half() {
        assert_ne!(group("10.0.0.1"), group("10.0.0.2"));
        assert_eq!(group("10.0.0.1"), group("::ffff:10.0.0.1"));
        assert_eq!(group("2001:db8:1:2::1"), group("2001:db8:1:2:ffff::9"));
        assert_ne!(group("2001:db8:1:2::1"), group("2001:db8:1:3::1"));
    }

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped_and_nothing_is_remembered() {
        let bound = AddressBound::new(1);
        let slot = bound.try_enter(group("10.0.0.1"));
        assert!(slot.is_some());
        assert!(bound.try_enter(group("10.0.0.1")).is_none());
        assert!(bound.try_enter(group("10.0.0.2")).is_some());
        drop(slot);
        assert!(bound.try_enter(group("10.0.0.1")).is_some());
        assert!(bound.held.lock().is_empty());
    }
}
