//! What a node has at work that may hold an op in memory and send it on: requests of clients and peers, and rounds of catching up.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Each task has a number, in the order in which they began.
#[derive(Default)]
pub(super) struct AtWork(Mutex<Numbers>);

#[derive(Default)]
struct Numbers {
    next: u64,
    at_work: BTreeSet<u64>,
}

/// One that is at work, until it is dropped.
pub struct Task<'a> {
    all: &'a AtWork,
    number: u64,
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.all.0.lock().at_work.remove(&self.number);
    }
}

impl AtWork {
    pub(super) fn begin(&self) -> Task<'_> {
        let mut numbers = self.0.lock();
        let number = numbers.next;
        numbers.next += 1;
        numbers.at_work.insert(number);
        Task { all: self, number }
    }

    /// Until all have ended that began before.
    pub(super) async fn ended(&self) {
        let next = self.0.lock().next;
        while self.0.lock().at_work.first().is_some_and(|first| *first < next) {
            tokio::time::sleep(LOOK).await;
        }
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
