//! A key's list as JSON, made piece by piece from a [`Reader`].
//!
//! Invariant: the buffer never grows beyond the size asked for by more than one escaped slice, however large a value or a
//! fragment is; and nothing more is read from the disk before what was made has been taken. A stream has room for the fragments that it
//! holds.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use tokio::time::{Instant, sleep};

use crate::http::answer::{Aborted, Answer};
use crate::http::backend::{Backend, Reader};
use crate::http::config::{ANSWER_FRAME_BYTES, RETRY_AFTER_S, STREAM_BYTES, STREAM_WAIT, STREAM_WAIT_STEP};
use crate::http::failure::Failure;
use crate::http::front::Front;
use crate::node::{Fragment, OpError};
use crate::quota::{Quota, Share};
use crate::types::Key;

use super::escape::{escape_into, string_into};

/// Text that is escaped at a time; escaping makes six bytes of one at worst.
const SLICE_BYTES: usize = 8 * 1024;

/// A short list of short values fits into this, with what is around it. What is longer than some thousand bytes, glibc's allocator has not at hand.
const SMALL_BYTES: usize = 1000;

/// `"key":…,"value":[…]}` in the making.
pub struct List<R> {
    reader: R,
    fragments: std::vec::IntoIter<Fragment>,
    /// The fragment being written, and how much of it was.
    current: Option<(Fragment, usize)>,
    state: State,
    /// Bytes of the largest batch of fragments that was read so far.
    largest_batch: usize,
    /// Bytes before the first value.
    before_values: usize,
    pub out: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first value.
    Start,
    InValue,
    /// After a value.
    Between,
    End,
}

impl<R: Reader> List<R> {
    /// `before` comes first.
    pub fn new(before: &[u8], key: &Key, mut reader: R) -> Self {
        reader.until_sent();
        let mut out = BytesMut::with_capacity(SMALL_BYTES);
        out.extend_from_slice(before);
        out.extend_from_slice(br#""key":"#);
        string_into(&mut out, key.as_str());
        out.extend_from_slice(br#","value":["#);
        Self {
            reader,
            fragments: Vec::new().into_iter(),
            current: None,
            state: State::Start,
            largest_batch: 0,
            before_values: out.len(),
            out,
        }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// Writes until `out` holds about `bytes` or the list is done.
    pub async fn fill(&mut self, bytes: usize) -> Result<(), OpError> {
        while self.state != State::End && self.out.len() < bytes {
            if self.current.is_none() {
                self.current = self.next_fragment().await?.map(|fragment| (fragment, 0));
            }
            match self.current.take() {
                Some((fragment, written)) => self.write(fragment, written),
                None => self.finish()?,
            }
        }
        Ok(())
    }

    async fn next_fragment(&mut self) -> Result<Option<Fragment>, OpError> {
        if let Some(fragment) = self.fragments.next() {
            return Ok(Some(fragment));
        }
        let fragments = self.reader.next(ANSWER_FRAME_BYTES).await?;
        if self.reader.began_anew() {
            self.out.truncate(self.before_values);
            self.state = State::Start;
        }
        // With quotes, comma and end; what has to be escaped is rare. Of long ones, no more than is sent at a time.
        let bytes: usize = fragments.iter().map(|fragment| fragment.text.len() + 3).sum();
        self.out.reserve(bytes.min(ANSWER_FRAME_BYTES) + 2);
        self.largest_batch = self.largest_batch.max(bytes);
        self.fragments = fragments.into_iter();
        Ok(self.fragments.next())
    }

    /// Writes one slice of the fragment; keeps what is left of it.
    fn write(&mut self, fragment: Fragment, written: usize) {
        match self.state {
            State::Start => self.out.put_u8(b'"'),
            State::Between => self.out.extend_from_slice(b",\""),
            State::InValue | State::End => {}
        }
        self.state = State::InValue;
        let rest = fragment.text.as_bytes().get(written..).unwrap_or_default();
        let slice = rest.get(..SLICE_BYTES).unwrap_or(rest);
        escape_into(&mut self.out, slice);
        let (end, is_last) = (written + slice.len(), slice.len() == rest.len());
        if !is_last {
            self.current = Some((fragment, end));
        } else if fragment.ends_value {
            self.out.put_u8(b'"');
            self.state = State::Between;
        }
    }

    fn finish(&mut self) -> Result<(), OpError> {
        if self.state == State::InValue {
            return Err(OpError::Damaged("a value has no end".into()));
        }
        self.out.extend_from_slice(b"]}");
        self.state = State::End;
        Ok(())
    }
}

/// The list as the rest of an answer: whole when it is small, otherwise as a stream.
pub async fn answer<B: Backend>(mut list: List<B::Reader>, front: &Front<B>) -> Result<Answer, Failure> {
    list.fill(ANSWER_FRAME_BYTES).await.map_err(Failure::of_read)?;
    if list.is_done() {
        let room = front.answer_room(list.out.len())?;
        return Ok(Answer::json(list.out.freeze()).holding(Some(room)));
    }
    list.reader.sent();
    let room = front.answer_room(STREAM_BYTES)?;
    let aborted = front.metrics.aborted_answers.clone();
    let streamed = Streamed {
        long: front.answer_room(long_bytes(&list))?,
        list,
        waiting: front.waiting_streams.clone(),
    };
    let frames = stream::unfold(Some(streamed), move |streamed| {
        let aborted = aborted.clone();
        async move {
            let mut streamed = streamed?;
            match streamed.next_frame().await {
                Ok(frame) if frame.is_empty() => None,
                Ok(frame) => Some((Ok(frame), Some(streamed))),
                Err(error) => {
                    aborted.inc();
                    tracing::warn!(%error, "an answer was cut in the middle");
                    Some((Err(Aborted), None))
                }
            }
        }
    });
    Ok(Answer::frames(Box::pin(frames)).holding(Some(room)))
}

/// What its fragments take beside the frames: of usual ones nothing, and of long ones as much as the longest, since others like it may
/// follow.
pub fn long_bytes<R>(list: &List<R>) -> usize {
    match list.largest_batch {
        ..=STREAM_BYTES => 0,
        bytes => bytes,
    }
}

/// A list that is read while it is sent.
struct Streamed<R> {
    list: List<R>,
    /// The room for `long_bytes`.
    long: Share,
    waiting: Quota,
}

impl<R: Reader> Streamed<R> {
    /// Empty at the end.
    async fn next_frame(&mut self) -> Result<Bytes, OpError> {
        self.list.fill(ANSWER_FRAME_BYTES).await?;
        if !self.has_room() {
            self.wait_for_room().await?;
        }
        Ok(self.list.out.split().freeze())
    }

    fn has_room(&mut self) -> bool {
        self.long.grow_to(long_bytes(&self.list))
    }

    /// The fragment is there already: so only a few may wait, and not for long.
    async fn wait_for_room(&mut self) -> Result<(), OpError> {
        let full = || OpError::Overloaded {
            what: "the room for answers",
            retry_after_s: RETRY_AFTER_S,
        };
        let _one_of_few = self.waiting.take(1).ok_or_else(full)?;
        let deadline = Instant::now() + STREAM_WAIT;
        while !self.has_room() {
            if Instant::now() >= deadline {
                return Err(full());
            }
            sleep(STREAM_WAIT_STEP).await;
        }
        Ok(())
    }
}
