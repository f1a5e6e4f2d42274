//! Turns of reads that may wait for the disk: so many of each kind at a time, the others in the order they came.
//!
//! Without them, reads could take all threads that there are, and seals, merges and password checks would wait behind them.
//!
//! Invariant: a turn is given back when its work is done, whether or not anybody waits for that any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::OpError;
use crate::env::Env;
use crate::types::UserId;

/// Reads of lists: no disk is faster for more.
const READS_MAX: usize = 32;
/// Look-ups that a write or another replica waits for: not behind clients that read.
const LOOK_UPS_MAX: usize = 32;
/// Lists of keys: each goes through many blocks, most of them in memory, and keeps a processor busy.
const LISTS_MAX: usize = 8;
/// Of one user, so that nobody takes all turns.
const LISTS_OF_ONE_MAX: usize = 2;

/// Of one node; clones share them.
#[derive(Clone)]
pub struct Turns {
    pub reads: Arc<Semaphore>,
    pub look_ups: Arc<Semaphore>,
    pub lists: Arc<Semaphore>,
    users: Arc<Mutex<BTreeMap<UserId, OfUser>>>,
}

/// One user's lists of keys.
struct OfUser {
    turns: Arc<Semaphore>,
    /// Lists that are at work or wait.
    lists: usize,
}

/// A list among those of its user.
struct Place {
    user: UserId,
    users: Arc<Mutex<BTreeMap<UserId, OfUser>>>,
}

/// A user's turn to list keys.
pub struct UserTurn {
    _turn: OwnedSemaphorePermit,
    _place: Place,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = |count| Arc::new(Semaphore::new(count));
        Self {
            reads: turns(READS_MAX),
            look_ups: turns(LOOK_UPS_MAX),
            lists: turns(LISTS_MAX),
            users: Arc::default(),
        }
    }
}

impl Turns {
    pub async fn of_user(&self, user: &UserId) -> Result<UserTurn, OpError> {
        let (place, turns) = self.enter(user);
        let turn = turns.acquire_owned().await;
        Ok(UserTurn {
            _turn: turn.map_err(|_closed| OpError::ShuttingDown)?,
            _place: place,
        })
    }

    fn enter(&self, user: &UserId) -> (Place, Arc<Semaphore>) {
        let mut users = self.users.lock();
        let of_user = users.entry(user.clone()).or_insert_with(|| OfUser {
            turns: Arc::new(Semaphore::new(LISTS_OF_ONE_MAX)),
            lists: 0,
        });
        of_user.lists += 1;
        let place = Place {
            user: user.clone(),
            users: self.users.clone(),
        };
        (place, of_user.turns.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        if let Some(of_user) = users.get_mut(&self.user) {
            of_user.lists -= 1;
            if of_user.lists == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// What `read` finds when it has had one of these turns. What it finds, which may be a long text, is in memory before anybody could refuse it.
pub async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    env: &Env,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OpError> {
    let turn = turns.clone().acquire_owned().await;
    let turn = turn.map_err(|_closed| OpError::ShuttingDown)?;
    // Given back when what was found is taken, or dropped because nobody waits for it any more.
    let (found, _turn) = env.run_blocking(move || (read(), turn)).await?;
    Ok(found)
}
