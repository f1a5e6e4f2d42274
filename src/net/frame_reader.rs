//! The receiving half of a secure stream.
//!
//! Invariant: memory grows with the bytes that arrived, never with a length that was announced.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, ReadHalf};

use super::record::{FRAME_BYTES_MAX, FRAME_LENGTH_BYTES, LENGTH_BYTES, NotAuthentic, RecordCipher};
use crate::env::Stream;

/// Room for one read: a whole record, the longest there is.
const READ_BYTES: usize = 64 << 10;
/// Memory that is kept for the next frames; what a longer one took is given back with it.
const KEPT_BYTES: usize = 256 << 10;

/// A stream that gives no more frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection was cut off")]
    CutOff,
    #[error("what came is not what the peer sent")]
    NotAuthentic,
    #[error("a frame of {0} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong(usize),
}

/// Receives frames.
pub struct FrameReader {
    stream: ReadHalf<Box<dyn Stream>>,
    cipher: RecordCipher,
    /// As it came.
    sealed: BytesMut,
    /// Decrypted, not given out yet.
    plain: BytesMut,
    /// The peer said that nothing follows.
    ended: bool,
}

impl FrameReader {
    pub(super) fn new(stream: ReadHalf<Box<dyn Stream>>, cipher: RecordCipher) -> Self {
        Self {
            stream,
            cipher,
            sealed: BytesMut::new(),
            plain: BytesMut::new(),
            ended: false,
        }
    }

    /// The next frame, or nothing when the peer has closed. May be dropped half-way. After an error the stream is of no use.
    ///
    /// Frames that came together share memory: whoever keeps a small one for long should copy it.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            if self.ended {
                return match self.plain.is_empty() {
                    true => Ok(None),
                    false => Err(FrameError::CutOff),
                };
            }
            if !self.open_record()? {
                self.sealed.reserve(READ_BYTES);
                if self.stream.read_buf(&mut self.sealed).await? == 0 {
                    return Err(FrameError::CutOff);
                }
            }
        }
    }

    /// A frame that is here already: to take the rest of a batch without waiting.
    pub fn try_recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            if self.ended || !self.open_record()? {
                return Ok(None);
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.plain.first_chunk::<FRAME_LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        if self.plain.len() < FRAME_LENGTH_BYTES + length {
            return Ok(None);
        }
        self.plain.advance(FRAME_LENGTH_BYTES);
        let frame = self.plain.split_to(length).freeze();
        if length > KEPT_BYTES {
            // Less than a record: the rest of the one that the frame ended in.
            self.plain = BytesMut::from(&self.plain[..]);
        }
        Ok(Some(frame))
    }

    /// Whether it has room for so much that came before, and was given out.
    #[cfg(test)]
    pub(super) fn keeps(&mut self, bytes: usize) -> bool {
        self.plain.try_reclaim(bytes)
    }

    /// Decrypts the next record, if all of it is here.
    fn open_record(&mut self) -> Result<bool, FrameError> {
        let Some(length) = self.sealed.first_chunk::<LENGTH_BYTES>() else {
            return Ok(false);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(record) = self.sealed.get(LENGTH_BYTES..LENGTH_BYTES + length) else {
            return Ok(false);
        };
        let opened = self.cipher.open(record, &mut self.plain);
        let opened = opened.map_err(|NotAuthentic| FrameError::NotAuthentic)?;
        self.sealed.advance(LENGTH_BYTES + length);
        self.ended = opened == 0;
        Ok(true)
    }
}
