//! The writes on their way to a shard's actor.
//!
//! They gather here while the actor is busy with a commit, and one message tells it of all of them: the more come at once, the
//! less each one costs.
//!
//! Invariant: whenever writes lie here, a message that tells the actor of them is on its way.

use parking_lot::Mutex;

use super::messages::PendingWrite;

#[derive(Default)]
pub struct Inbox(Mutex<Vec<PendingWrite>>);

impl Inbox {
    /// Whether the actor has to be told: this write is the first since it last looked.
    #[must_use]
    pub fn put(&self, write: PendingWrite) -> bool {
        let mut writes = self.0.lock();
        writes.push(write);
        writes.len() == 1
    }

    /// All of them, in the order they came.
    pub fn take(&self) -> Vec<PendingWrite> {
        let mut writes = self.0.lock();
        let room = writes.len();
        std::mem::replace(&mut *writes, Vec::with_capacity(room))
    }
}
