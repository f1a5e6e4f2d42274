//! A body on its way to a node: how far it was taken is known, so that one that still goes up is no silence.
//!
//! What was taken may still lie in buffers, of this machine and on the way. How much nobody says; but they take more only once they have room, so
//! the pauses between the pieces grow with what is in them and with the slowness of the line.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

/// So much is given out at a time; hyper holds sixteen such pieces at most.
const PIECE_BYTES: usize = 8 * 1024;
/// So much of a body the system may hold. It would grow to megabytes, and a short body on a slow line would be as good as gone at once.
pub(super) const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// The system takes more when a third of its buffer is free; with hyper's and the receiver's, all that is on its way is some five times as much.
const PAUSES_UNTIL_SENT: u32 = 8;
/// A line that stood still for a while is not waited for many times as long.
const UNTIL_SENT_MAX: Duration = Duration::from_secs(30);
/// So long nothing of a body that was begun may be taken: on a slow line there is no room in the buffers for a while.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// How far the body of one try has come.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When the try began, or the last piece was taken.
    last: Instant,
    /// Whether any was, and whether all were.
    taken: bool,
    all_taken: bool,
    longest_pause: Duration,
}

impl Progress {
    pub fn begin() -> Self {
        Self(Arc::new(Mutex::new(State {
            last: Instant::now(),
            taken: false,
            all_taken: false,
            longest_pause: Duration::ZERO,
        })))
    }

    /// A piece was taken, and so many bytes are left.
    pub fn note_piece(&self, left: usize) {
        let mut state = self.0.lock();
        let now = Instant::now();
        // Before the first one a connection had to be made.
        if state.taken {
            state.longest_pause = state.longest_pause.max(now - state.last);
        }
        (state.last, state.taken, state.all_taken) = (now, true, left == 0);
    }

    /// Whether any of the request was sent: hyper asks for the first piece of a body, and there is one, in the turn in which it writes the head.
    pub fn is_begun(&self) -> bool {
        self.0.lock().taken
    }

    /// From when on it is a silence that nothing comes: what was taken has gone by then.
    pub fn sent_by(&self) -> Instant {
        let state = self.0.lock();
        let until_sent = (state.longest_pause * PAUSES_UNTIL_SENT).min(UNTIL_SENT_MAX);
        match state.taken && !state.all_taken {
            true => state.last + until_sent.max(PAUSE_MIN),
            false => state.last + until_sent,
        }
    }

    /// None: after the body had gone, nothing came for `silence_max`.
    pub async fn or_silence<T>(&self, answer: impl Future<Output = T>, silence_max: Duration) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let until = self.sent_by() + silence_max;
            match timeout_at(until, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.sent_by() + silence_max > until => {}
                Err(_) => return None,
            }
        }
    }
}

pub(super) struct Upload {
    rest: Bytes,
    progress: Progress,
}

impl Upload {
    pub fn new(body: Bytes, progress: &Progress) -> Self {
        Self {
            rest: body,
            progress: progress.clone(),
        }
    }

    pub fn empty() -> Self {
        Self::new(Bytes::new(), &Progress::begin())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(bytes);
        self.progress.note_piece(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_is_given_out_whole_and_each_piece_is_noted() {
        let body: Bytes = (0..=255).cycle().take(3 * PIECE_BYTES + 1).collect::<Vec<u8>>().into();
        let progress = Progress::begin();
        let mut upload = Upload::new(body.clone(), &progress);
        assert_eq!(upload.size_hint().exact(), Some(body.len() as u64));
        let mut given = Vec::new();
        while let Some(frame) = upload.frame().await {
            given.extend_from_slice(&frame.unwrap().into_data().unwrap());
            assert_eq!(progress.0.lock().last, Instant::now());
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(given, body);
        assert!(upload.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_up_slowly_is_no_silence_and_one_that_stands_still_is() {
        let silence_max = Duration::from_secs(30);
        let progress = Progress::begin();
        let slow = async {
            for left in (0..100).rev() {
                sleep(Duration::from_secs(5)).await;
                progress.note_piece(left);
            }
            // The rest of it, out of the buffers.
            sleep(Duration::from_secs(40)).await;
        };
        assert!(progress.or_silence(slow, silence_max).await.is_some());
        let (begun, progress) = (Instant::now(), Progress::begin());
        let stuck = async {
            for left in (1..100).rev() {
                progress.note_piece(left);
            }
            std::future::pending::<()>().await;
        };
        assert!(progress.or_silence(stuck, silence_max).await.is_none());
        assert_eq!(begun.elapsed(), PAUSE_MIN + silence_max);
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_a_connection_took_says_nothing_of_the_line() {
        let progress = Progress::begin();
        advance(Duration::from_secs(5)).await;
        progress.note_piece(0);
        assert_eq!(progress.sent_by(), Instant::now());
    }
}
