//! Whose turn it is to change a record: one change at a time on each node, and a bound on those who wait.
//!
//! A change goes on to its end even when nobody waits for its answer, so those who ask and go away must not pile up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{MutexGuard, OwnedMutexGuard};

use crate::node::OpError;
use crate::types::UserId;

/// Changes that are made or wait. One takes tens of milliseconds, so the last of them waits about a second.
pub(super) const CHANGES_MAX: usize = 16;
/// Of one user: one that is made, and one more. Nobody takes all the places with one name.
pub(super) const CHANGES_OF_ONE_MAX: usize = 2;
const RETRY_AFTER_S: u32 = 1;

#[derive(Default)]
pub(super) struct Turns {
    turn: Arc<tokio::sync::Mutex<()>>,
    places: Arc<Mutex<BTreeMap<UserId, usize>>>,
}

/// Among those who wait for their turn; given back when dropped.
pub(super) struct Place {
    user: UserId,
    turn: Arc<tokio::sync::Mutex<()>>,
    places: Arc<Mutex<BTreeMap<UserId, usize>>>,
}

/// Held while a record is changed.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
    _place: Place,
}

impl Turns {
    /// A place for a change of this user, at once or not at all.
    pub fn enter(&self, user: &UserId) -> Result<Place, OpError> {
        let mut places = self.places.lock();
        let of_user = places.get(user).copied().unwrap_or_default();
        if of_user >= CHANGES_OF_ONE_MAX || places.values().sum::<usize>() >= CHANGES_MAX {
            return Err(OpError::Overloaded {
                what: "the queue of changes of users",
                retry_after_s: RETRY_AFTER_S,
            });
        }
        places.insert(user.clone(), of_user + 1);
        Ok(Place {
            user: user.clone(),
            turn: self.turn.clone(),
            places: self.places.clone(),
        })
    }

    /// For what the node does of its own accord: it waits without a place.
    pub async fn own(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Place {
    pub async fn turn(self) -> Turn {
        Turn {
            _guard: self.turn.clone().lock_owned().await,
            _place: self,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if let Some(count) = places.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                places.remove(&self.user);
            }
        }
    }
}
