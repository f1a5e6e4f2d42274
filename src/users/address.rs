//! A bound on how many logins of one address may be going on.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::AddressGroup;

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
