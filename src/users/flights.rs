//! Logins under way, shared: however many requests bring the same new credential at the same moment, it is checked once.
//!
//! A client that opens with a hundred requests would otherwise fill the queue with a hundred checks of one password.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use parking_lot::Mutex;

use crate::env::BoxFuture;
use crate::types::AddressGroup;

use super::verified::{Digest, Epoch};
use super::{AuthError, Principal};

type Outcome = Result<Principal, AuthError>;
pub(super) type Flight = Shared<BoxFuture<'static, Outcome>>;

/// What may share a check: the same credential, from a place that is delayed the same, under the same records.
pub(super) type FlightKey = (Digest, AddressGroup, Epoch);

#[derive(Default)]
struct Table {
    next_id: u64,
    under_way: BTreeMap<FlightKey, (u64, WeakShared<BoxFuture<'static, Outcome>>)>,
}

/// A flight goes on while somebody waits for it or keeps it, and leaves the table when it ends or nobody does.
#[derive(Default)]
pub(super) struct Flights {
    table: Arc<Mutex<Table>>,
}

impl Flights {
    /// The flight of this key that is under way; whoever holds it keeps it.
    pub fn under_way(&self, key: &FlightKey) -> Option<Flight> {
        self.table.lock().under_way.get(key)?.1.upgrade()
    }

    /// The flight of this key that is under way, or a new one that does `check`.
    pub fn join(&self, key: FlightKey, check: impl Future<Output = Outcome> + Send + 'static) -> Flight {
        let mut table = self.table.lock();
        if let Some(flight) = table.under_way.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return flight;
        }
        let id = table.next_id;
        table.next_id += 1;
        let landing = Landing {
            table: self.table.clone(),
            key,
            id,
        };
        let flight = async move {
            let _leaves_the_table_at_the_end = landing;
            check.await
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            table.under_way.insert(key, (id, weak));
        }
        flight
    }
}

struct Landing {
    table: Arc<Mutex<Table>>,
    key: FlightKey,
    id: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // Another flight may have taken the place of one that nobody waited for.
        if table.under_way.get(&self.key).is_some_and(|(id, _)| *id == self.id) {
            table.under_way.remove(&self.key);
        }
    }
}
