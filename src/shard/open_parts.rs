//! How long the value is that is being assembled under a key, for the keys where that was looked up or counted.
//!
//! Without it, each add to a key that has parts somewhere and ops of several origins would read the whole list.
//!
//! Invariant: as long as the shard has lost nothing, what is remembered is no less than what the parts held here make up that no value
//! finishes, but for what was appended while the disk was read. It is more where an op of another origin finished some of them.

use std::collections::HashMap;

use crate::core::op::Body;
use crate::core::slot::KeyHash;

/// Beyond that, all are counted anew.
const KEYS_MAX: usize = 64 * 1024;

/// Bytes of parts that no value has finished yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenBytes {
    pub bytes: u64,
    /// If not, there may be fewer.
    pub is_exact: bool,
}

impl OpenBytes {
    pub fn exactly(bytes: u64) -> Self {
        Self { bytes, is_exact: true }
    }
}

#[derive(Default)]
pub(super) struct OpenParts(HashMap<KeyHash, OpenBytes>);

impl OpenParts {
    pub fn get(&self, hash: KeyHash) -> Option<OpenBytes> {
        // Where nobody sends parts, nothing is looked for.
        (!self.0.is_empty()).then(|| self.0.get(&hash).copied())?
    }

    pub fn remember(&mut self, hash: KeyHash, open: OpenBytes) {
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&hash) {
            self.0.clear();
        }
        self.0.insert(hash, open);
    }

    /// What was looked up on the disk and in memory. `is_exact` unless the key was written meanwhile: then what was counted meanwhile stays.
    pub fn learn(&mut self, hash: KeyHash, bytes: u64, is_exact: bool) {
        if is_exact || self.get(hash).is_none() {
            self.remember(hash, OpenBytes { bytes, is_exact });
        }
    }

    /// All parts that are held here are finished or cleared. A key of which nothing was remembered needs no entry.
    pub fn end(&mut self, hash: KeyHash) {
        if self.get(hash).is_some() {
            self.0.insert(hash, OpenBytes::exactly(0));
        }
    }

    /// A clear may leave parts, and may remove the value that had finished some: they are open again.
    pub fn forget(&mut self, hash: KeyHash) {
        if !self.0.is_empty() {
            self.0.remove(&hash);
        }
    }

    /// Takes note of an op of another origin, whose place in the order may be anywhere.
    pub fn applied(&mut self, hash: KeyHash, body: &Body) {
        let Some(open) = self.get(hash) else { return };
        let bytes = match body {
            Body::Part(text) => open.bytes + text.len() as u64,
            Body::Value(_) => open.bytes,
            Body::Spent { .. } => return,
            Body::Clear(_) => return self.forget(hash),
        };
        self.0.insert(hash, OpenBytes { bytes, is_exact: false });
    }

    #[cfg(test)]
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
