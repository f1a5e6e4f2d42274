//! Messages that wait to be written to one connection. They gather here while the last ones are on their way, and go out together:
//! the more come at once, the less each one costs.
//!
//! Invariant: whenever messages lie in an `Outgoing`, its writer has been woken or is about to look; where all of them can wait a little, it
//! is woken within `SOON`.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::yield_now;

use super::figures::Counter;
use crate::net::FrameWriter;

/// Frames are about so long: few enough that their own cost does not show, short enough that their receiver need not hold much at once.
/// A longer message has a frame of its own.
const FRAME_BYTES: usize = 128 << 10;

/// A batch keeps its memory for the next one up to this size: a burst of large messages must not hold memory for ever.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// What can wait a little waits for so long at most. Little beside what it takes to notice that a peer is slow (`cluster::calls::gather`).
pub const SOON: Duration = Duration::from_millis(2);

/// How soon a message has to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hurry {
    Now,
    /// With the next one that has to, or after `SOON`: nobody is likely to wait for the answer, and many messages together cost less.
    Soon,
}

/// Encoded messages, one behind the other.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where a frame has to end because the next message does not fit into it any more.
    cuts: Vec<usize>,
    messages: usize,
}

impl Batch {
    /// Adds what `encode` writes, and says how many bytes that are; or takes it back if it is more than `bytes_max`.
    pub fn add(&mut self, bytes_max: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Result<usize, TooMany> {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        let bytes = self.bytes.len() - start;
        if bytes > bytes_max {
            self.bytes.truncate(start);
            return Err(TooMany { bytes });
        }
        let frame = self.cuts.last().copied().unwrap_or_default();
        if self.bytes.len() - frame > FRAME_BYTES && start > frame {
            self.cuts.push(start);
        }
        self.messages += 1;
        Ok(bytes)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Whole messages each; in order.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let frames = starts.zip(ends).map(|(start, end)| &self.bytes[start..end]);
        frames.filter(|frame| !frame.is_empty())
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.cuts.clear();
        self.messages = 0;
    }
}

#[derive(Debug)]
pub struct TooMany {
    pub bytes: usize,
}

/// A batch and its writer. Lives behind a lock.
#[derive(Default)]
pub struct Outgoing {
    pub batch: Batch,
    /// Something in the batch cannot wait, or has waited.
    is_due: bool,
    writer: Option<Waker>,
}

impl Outgoing {
    /// The writer, if it sleeps: to be woken, after the lock is given back, by whoever added to the batch.
    #[must_use]
    pub fn sleeper(&mut self) -> Option<Waker> {
        self.is_due = true;
        self.writer.take()
    }

    /// Of what was just added, and need not go out at once.
    pub fn begin_to_wait(&self) -> Waits {
        match self.batch.messages() {
            _ if self.is_due || self.batch.bytes() >= FRAME_BYTES => Waits::No,
            1 => Waits::First,
            _ => Waits::Behind,
        }
    }

    /// See [`Source::poll_outgoing`].
    pub fn poll_take(&mut self, context: &Context<'_>, batch: Option<&mut Batch>) -> Poll<()> {
        if self.batch.messages > 0 && self.is_due {
            if let Some(batch) = batch {
                std::mem::swap(batch, &mut self.batch);
                self.is_due = false;
            }
            return Poll::Ready(());
        }
        match &mut self.writer {
            Some(writer) => writer.clone_from(context.waker()),
            writer => *writer = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

/// Whether a message that can wait does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// The writer has to see to it now: others are due anyway, or there is much.
    No,
    /// Somebody has to be told that it waits.
    First,
    Behind,
}

/// Where a connection's writer finds what it writes.
pub trait Source {
    /// Ready when there is something to write; then it is swapped with `batch`, which has to be empty.
    fn poll_outgoing(&self, context: &Context<'_>, batch: Option<&mut Batch>) -> Poll<()>;

    /// Whether more messages may come soon, beside those that wait to be written.
    fn expects_more(&self) -> bool;
}

/// Writes what `source` has, until that fails.
pub async fn send(source: &impl Source, mut writer: FrameWriter, frames: &Counter) -> io::Result<Infallible> {
    let mut batch = Batch::default();
    let mut several = false;
    loop {
        poll_fn(|context| source.poll_outgoing(context, None)).await;
        if several || source.expects_more() {
            // Twice around: what other tasks have ready, and what comes of that, goes into the same frame. The runtime lets a task that was
            // woken go before all others, so without this each message would go out alone. A caller that asks one thing after the other is
            // not held up.
            yield_now().await;
            yield_now().await;
        }
        poll_fn(|context| source.poll_outgoing(context, Some(&mut batch))).await;
        several = batch.messages() > 1;
        for frame in batch.frames() {
            writer.queue(&[frame])?;
            frames.add(1);
            if writer.queued_bytes() >= KEPT_BYTES_MAX {
                // There are two copies of no more than this.
                writer.flush().await?;
            }
        }
        batch.clear();
        writer.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(batch: &mut Batch, bytes: usize) {
        batch.add(usize::MAX, |out| out.resize(out.len() + bytes, 7)).unwrap();
    }

    fn lengths(batch: &Batch) -> Vec<usize> {
        batch.frames().map(<[u8]>::len).collect()
    }

    #[test]
    fn small_messages_share_a_frame_and_none_is_cut() {
        let mut batch = Batch::default();
        assert_eq!(lengths(&batch), Vec::<usize>::new());
        (0..100).for_each(|_| add(&mut batch, 50));
        assert_eq!((lengths(&batch), batch.messages()), (vec![5000], 100));
        add(&mut batch, FRAME_BYTES - 5000);
        assert_eq!(lengths(&batch), vec![FRAME_BYTES]);
        add(&mut batch, 1);
        add(&mut batch, FRAME_BYTES + 9);
        add(&mut batch, 2);
        assert_eq!(lengths(&batch), vec![FRAME_BYTES, 1, FRAME_BYTES + 9, 2]);
        batch.clear();
        add(&mut batch, FRAME_BYTES + 1);
        assert_eq!(lengths(&batch), vec![FRAME_BYTES + 1]);
    }

    #[test]
    fn what_is_too_large_leaves_no_trace_and_large_memory_is_given_back() {
        let mut batch = Batch::default();
        add(&mut batch, 10);
        let refused = batch.add(20, |out| out.resize(out.len() + 21, 0)).unwrap_err();
        assert_eq!((refused.bytes, batch.bytes(), batch.messages()), (21, 10, 1));
        add(&mut batch, 4 * KEPT_BYTES_MAX);
        batch.clear();
        assert!(batch.bytes.capacity() <= KEPT_BYTES_MAX);
    }
}
