//! What a node has at work that may hold an op in memory and send it on: requests of clients and peers, and rounds of catching up. Who only
//! takes ops (`Append`), or tells of what is on the disk, is not counted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// One that is at work, until it is dropped.
pub struct Task(#[expect(dead_code, reason = "it only lives")] Arc<Era>);

/// All that began between two moments at which somebody asked.
struct Era;

/// The eras that may have tasks at work.
pub(super) struct AtWork(Mutex<Eras>);

struct Eras {
    now: Arc<Era>,
    before: Vec<Weak<Era>>,
}

impl Default for AtWork {
    fn default() -> Self {
        Self(Mutex::new(Eras {
            now: Arc::new(Era),
            before: Vec::new(),
        }))
    }
}

impl AtWork {
    pub(super) fn begin(&self) -> Task {
        Task(self.0.lock().now.clone())
    }

    /// Until all have ended that began before.
    pub(super) async fn ended(&self) {
        let before = self.begin_era();
        while before.iter().any(|era| era.strong_count() > 0) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn begin_era(&self) -> Vec<Weak<Era>> {
        let mut eras = self.0.lock();
        let ended = std::mem::replace(&mut eras.now, Arc::new(Era));
        eras.before.retain(|era| era.strong_count() > 0);
        eras.before.push(Arc::downgrade(&ended));
        eras.before.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_what_began_before_and_for_nothing_else() {
        let all = AtWork::default();
        let ended = || tokio::time::timeout(Duration::from_secs(1), all.ended());
        let first = all.begin();
        assert!(ended().await.is_err());
        let second = all.begin();
        assert!(ended().await.is_err(), "who waited before forgot nothing");
        drop(first);
        assert!(ended().await.is_err());
        let waits = ended();
        let wait_and_end = async {
            tokio::time::sleep(LOOK).await;
            let third = all.begin();
            drop(second);
            third
        };
        let (ended, third) = tokio::join!(waits, wait_and_end);
        assert!(ended.is_ok());
        drop(third);
    }
}
