//! Random bytes from the operating system.
//!
//! Invariant: no key, salt or identity is ever made of anything less. Without entropy the process ends.
#![expect(clippy::disallowed_methods, reason = "this is where Env's entropy comes from")]

use std::io::Write;

use crate::env::Entropy;

#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            // Abort rather than panic: a caught panic would leave a node that runs on with a salt of zeroes. To standard
            // error directly, as a subscriber may buffer what would then be lost.
            // Nor with `eprintln!`, which panics where that is full.
            let text =
                format!("fatal: the operating system gives no random bytes ({error}); keys and salts cannot be made\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let (mut first, mut second) = ([0; 16], [0; 16]);
        OsEntropy.fill(&mut first);
        OsEntropy.fill(&mut second);
        assert_ne!(first, second);
        assert_ne!(OsEntropy.u64(), OsEntropy.u64());
    }
}
