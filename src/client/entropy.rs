//! Random bytes of the client: request ids that nobody else makes, and pauses that differ between clients.

use std::fmt::Write;

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::disallowed_methods,
        reason = "the client runs in the caller's process, not inside a node"
    )]
    let filled = getrandom::fill(&mut bytes);
    if filled.is_err() {
        // No system this runs on fails here once it is up; the hasher's keys are random too, and differ each time.
        for (index, byte) in bytes.iter_mut().enumerate() {
            use std::hash::{BuildHasher, RandomState};
            *byte = (RandomState::new().hash_one(index) >> 8) as u8;
        }
    }
    bytes
}

pub fn u64() -> u64 {
    u64::from_le_bytes(bytes())
}

/// `N` random bytes in lower-case hexadecimal.
pub fn hex<const N: usize>() -> String {
    to_hex(&bytes::<N>())
}

pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
