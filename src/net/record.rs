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

/// Encrypts one direction of a stream, or decrypts it.
pub struct RecordCipher {
    noise: std::sync::Arc<StatelessTransportState>,
    /// Of the next record.
    number: u64,
}

impl RecordCipher {
    /// `number` is that of the direction's next record.
    pub fn new(noise: std::sync::Arc<StatelessTransportState>, number: u64) -> Self {
        Self { noise, number }
    }

    /// Appends a record of at most [`PLAIN_BYTES_MAX`] bytes.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), snow::Error> {
        debug_assert!(plain.len() <= PLAIN_BYTES_MAX);
        let length = plain.len() + TAG_BYTES;
        let start = out.len();
        out.extend_from_slice(&(length as u16).to_be_bytes());
        out.resize(start + LENGTH_BYTES + length, 0);
        self.noise
            .write_message(self.number, plain, &mut out[start + LENGTH_BYTES..])?;
        self.number += 1;
        Ok(())
    }

    /// Decrypts what follows a record's length into `out`, which is as long. Gives the length of the plaintext.
    pub fn open(&mut self, sealed: &[u8], out: &mut [u8]) -> Result<usize, NotAuthentic> {
        let read = self.noise.read_message(self.number, sealed, out);
        self.number += 1;
        read.map_err(|_| NotAuthentic)
    }
}
