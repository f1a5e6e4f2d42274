//! The records of a stream after its handshake, and who encrypts them.
//!
//! ```text
//! record:      length of what follows 2, big-endian | ciphertext and tag
//! plaintexts of all records, joined:   frame | frame | ...
//! frame:       length 4, little-endian | bytes
//! ```
//!
//! A frame may span records and a record may hold many frames. An empty record is the end: a stream that closes without one was cut off.
//! Records are numbered by both sides, so one that is left out, repeated or moved does not decrypt.

use std::sync::Arc;

use bytes::BytesMut;
use snow::StatelessTransportState;

use super::noise::{MESSAGE_BYTES_MAX, TAG_BYTES};

/// Of the length before each record.
pub const LENGTH_BYTES: usize = 2;
/// What one record carries at most.
pub const PLAIN_BYTES_MAX: usize = MESSAGE_BYTES_MAX - TAG_BYTES;
/// Of the length before each frame.
pub const FRAME_LENGTH_BYTES: usize = 4;
/// Longest frame: the longest text of an op and its clocks fit twice over, and memory per peer stays bounded.
pub const FRAME_BYTES_MAX: usize = (16 << 20) + (64 << 10);

/// A record that no peer with our key has sealed at this place of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAuthentic;

/// Protects one direction of a stream.
pub enum RecordCipher {
    Noise {
        noise: Arc<StatelessTransportState>,
        /// Of the next record.
        number: u64,
    },
    /// The stream beneath does it: TLS.
    Beneath,
}

impl RecordCipher {
    /// From the direction's first record on.
    pub fn noise(noise: Arc<StatelessTransportState>) -> Self {
        Self::Noise { noise, number: 0 }
    }

    /// What is added to a plaintext.
    fn overhead_bytes(&self) -> usize {
        match self {
            Self::Noise { .. } => TAG_BYTES,
            Self::Beneath => 0,
        }
    }

    /// Appends a record of at most [`PLAIN_BYTES_MAX`] bytes.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), snow::Error> {
        debug_assert!(plain.len() <= PLAIN_BYTES_MAX);
        let length = plain.len() + self.overhead_bytes();
        out.extend_from_slice(&(length as u16).to_be_bytes());
        match self {
            Self::Noise { noise, number } => {
                let start = out.len();
                out.resize(start + length, 0);
                noise.write_message(*number, plain, &mut out[start..])?;
                *number += 1;
            }
            Self::Beneath => out.extend_from_slice(plain),
        }
        Ok(())
    }

    /// Appends what a record holds; `sealed` is what follows its length. Gives how many bytes that are.
    pub fn open(&mut self, sealed: &[u8], out: &mut BytesMut) -> Result<usize, NotAuthentic> {
        match self {
            Self::Noise { noise, number } => {
                let start = out.len();
                // As long as the ciphertext, so that it can be decrypted in this very place.
                out.resize(start + sealed.len(), 0);
                let opened = noise.read_message(*number, sealed, &mut out[start..]);
                let opened = opened.map_err(|_| NotAuthentic)?;
                *number += 1;
                out.truncate(start + opened);
                Ok(opened)
            }
            Self::Beneath => {
                out.extend_from_slice(sealed);
                Ok(sealed.len())
            }
        }
    }
}
