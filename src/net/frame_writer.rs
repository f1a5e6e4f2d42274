//! The sending half of a secure stream.

use std::io;

use tokio::io::{AsyncWriteExt, WriteHalf};

use super::record::{FRAME_BYTES_MAX, FRAME_LENGTH_BYTES, PLAIN_BYTES_MAX, RecordCipher};
use crate::env::Stream;

/// Memory that is kept for the next batch; what a longer one took is given back.
const KEPT_BYTES: usize = 256 << 10;

/// The other side would refuse it, so it is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is longer than {FRAME_BYTES_MAX}")]
pub struct FrameTooLong(pub usize);

/// Sends frames. Frames are gathered by [`queue`](Self::queue) and go out together with [`flush`](Self::flush), encrypted in one buffer and
/// written at once; the caller bounds how much it queues.
pub struct FrameWriter {
    stream: WriteHalf<Box<dyn Stream>>,
    cipher: RecordCipher,
    /// Not encrypted yet; less than a full record.
    plain: Vec<u8>,
    sealed: Vec<u8>,
    /// Of `sealed`, what the stream has taken.
    written: usize,
}

impl FrameWriter {
    pub(super) fn new(stream: WriteHalf<Box<dyn Stream>>, cipher: RecordCipher) -> Self {
        Self {
            stream,
            cipher,
            plain: Vec::with_capacity(PLAIN_BYTES_MAX),
            sealed: Vec::new(),
            written: 0,
        }
    }

    /// Adds one frame, made of `parts`, to what the next flush sends.
    pub fn queue(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, FrameTooLong(length)));
        }
        self.push(&(length as u32).to_le_bytes())?;
        parts.iter().try_for_each(|part| self.push(part))
    }

    /// Bytes that wait for the next flush.
    pub fn queued_bytes(&self) -> usize {
        self.plain.len() + self.sealed.len() - self.written
    }

    /// Sends all that is queued. When it is dropped half-way, the next call goes on there. After an error the stream is of no use.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.seal_plain()?;
        while self.written < self.sealed.len() {
            match self.stream.write(&self.sealed[self.written..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                taken => self.written += taken,
            }
        }
        self.written = 0;
        self.sealed.clear();
        self.sealed.shrink_to(KEPT_BYTES);
        self.stream.flush().await
    }

    /// One frame at once, with whatever is queued.
    pub async fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.queue(parts)?;
        self.flush().await
    }

    /// Says that nothing follows, so that the other side can tell this from a stream that was cut off.
    pub async fn close(mut self) -> io::Result<()> {
        self.seal_plain()?;
        self.cipher.seal(&[], &mut self.sealed).map_err(io::Error::other)?;
        self.flush().await?;
        self.stream.shutdown().await
    }

    /// Sends bytes that need be no frame.
    #[cfg(test)]
    pub(super) fn queue_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.push(bytes)
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.plain.len() + bytes.len() >= PLAIN_BYTES_MAX {
            let (now, rest) = bytes.split_at(PLAIN_BYTES_MAX - self.plain.len());
            bytes = rest;
            if self.plain.is_empty() {
                // Long frames are encrypted from where they lie.
                self.cipher.seal(now, &mut self.sealed).map_err(io::Error::other)?;
            } else {
                self.plain.extend_from_slice(now);
                self.seal_plain()?;
            }
        }
        self.plain.extend_from_slice(bytes);
        Ok(())
    }

    fn seal_plain(&mut self) -> io::Result<()> {
        // An empty record would be the end.
        if !self.plain.is_empty() {
            self.cipher
                .seal(&self.plain, &mut self.sealed)
                .map_err(io::Error::other)?;
            self.plain.clear();
        }
        Ok(())
    }
}

// Frames' lengths fit their field.
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize && FRAME_LENGTH_BYTES == size_of::<u32>());
