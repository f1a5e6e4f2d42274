//! The answers of one served connection that wait to be written.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::batch::{Batch, Outgoing, Source};
use crate::wire::{MESSAGE_BYTES_MAX, Response, WireError};

/// When more than this waits, the peer does not read its answers: it gets no further ones before it does. One message of the largest
/// size always has room.
const ANSWERS_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

#[derive(Default)]
pub struct Answers {
    outgoing: Mutex<Outgoing>,
    taken: Notify,
    /// Requests whose answers will come.
    at_work: AtomicUsize,
}

impl Answers {
    pub fn add(&self, id: u64, response: &Response) {
        let mut outgoing = self.outgoing.lock();
        let added = outgoing.batch.add(MESSAGE_BYTES_MAX, |out| response.encode(id, out));
        if let Err(refused) = added {
            let why = format!("the answer takes {} bytes, more than one message may", refused.bytes);
            let refusal = Response::Failed(WireError::Refused(why));
            // Short enough for any limit.
            let _ = outgoing.batch.add(MESSAGE_BYTES_MAX, |out| refusal.encode(id, out));
        }
        let sleeper = outgoing.sleeper();
        drop(outgoing);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    pub fn set_at_work(&self, requests: usize) {
        self.at_work.store(requests, Relaxed);
    }

    fn is_full(&self) -> bool {
        self.outgoing.lock().batch.bytes() > ANSWERS_BYTES_MAX
    }

    /// Until more may be added. For one waiter.
    pub async fn room(&self) {
        while self.is_full() {
            self.taken.notified().await;
        }
    }
}

impl Source for Answers {
    fn poll_outgoing(&self, context: &Context<'_>, batch: Option<&mut Batch>) -> Poll<()> {
        let mut outgoing = self.outgoing.lock();
        let was_full = batch.is_some() && outgoing.batch.bytes() > ANSWERS_BYTES_MAX;
        let ready = outgoing.poll_take(context, batch);
        drop(outgoing);
        if was_full {
            self.taken.notify_one();
        }
        ready
    }

    fn expects_more(&self) -> bool {
        self.at_work.load(Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;

    #[tokio::test]
    async fn an_answer_that_is_too_large_becomes_a_failure() {
        let answers = Answers::default();
        answers.add(7, &Response::Status("x".repeat(MESSAGE_BYTES_MAX)));
        let mut batch = Batch::default();
        std::future::poll_fn(|context| answers.poll_outgoing(context, Some(&mut batch))).await;
        let frames: Vec<_> = batch.frames().collect();
        let message = Message::decode(&mut &frames[0][..]);
        assert!(matches!(
            message,
            Ok(Message::Response(7, Response::Failed(WireError::Refused(_))))
        ));
        assert_eq!(frames.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_gets_no_more() {
        let answers = Answers::default();
        answers.room().await;
        for id in 0..3 {
            answers.add(id, &Response::Status("x".repeat(MESSAGE_BYTES_MAX / 2)));
        }
        let mut room = Box::pin(answers.room());
        let waits = tokio::time::timeout(std::time::Duration::from_secs(1), &mut room).await;
        assert!(waits.is_err());
        let mut batch = Batch::default();
        std::future::poll_fn(|context| answers.poll_outgoing(context, Some(&mut batch))).await;
        room.await;
        assert_eq!(batch.messages(), 3);
    }
}
