//! The writes on their way to a shard's actor.
//!
//! They gather here while the actor is busy with a commit, and one message tells it of all of them: the more come at once, the
//! less each one costs.
//!
//! Invariant: whenever writes lie here, a message that tells the actor of them is on its way, or the actor is about to end. When it
//! ends it closes the inbox, however it ends: readers keep the inbox in memory long after, and nobody would look into it again.

use parking_lot::Mutex;

use super::messages::Pending;

/// None once it is closed.
pub struct Inbox(Mutex<Option<Vec<Pending>>>);

/// What came of a write put into an inbox.
#[must_use]
pub enum Put {
    /// The actor has to be told: this write is the first since it last looked.
    First,
    Behind,
    /// The actor has ended and will not see it.
    Closed(Box<Pending>),
}

impl Default for Inbox {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Inbox {
    pub fn put(&self, write: Pending) -> Put {
        let mut inbox = self.0.lock();
        let Some(writes) = &mut *inbox else {
            return Put::Closed(Box::new(write));
        };
        writes.push(write);
        match writes.len() {
            1 => Put::First,
            _ => Put::Behind,
        }
    }

    /// Whether the first of them is the first since the actor last looked; all of them if it has ended. Nothing comes in between.
    pub fn put_all(&self, series: Vec<Pending>) -> Result<bool, Vec<Pending>> {
        let mut inbox = self.0.lock();
        let Some(writes) = &mut *inbox else {
            return Err(series);
        };
        let is_first = writes.is_empty() && !series.is_empty();
        writes.extend(series);
        Ok(is_first)
    }

    /// All of them, in the order they came.
    pub fn take(&self) -> Vec<Pending> {
        let mut inbox = self.0.lock();
        let Some(writes) = &mut *inbox else {
            return Vec::new();
        };
        let room = writes.len();
        std::mem::replace(writes, Vec::with_capacity(room))
    }

    /// Lets nothing more in, and gives what is left.
    pub fn close(&self) -> Vec<Pending> {
        self.0.lock().take().unwrap_or_default()
    }
}
