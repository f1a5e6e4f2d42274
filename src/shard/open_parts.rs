//! How long the value is that is being assembled under a key, for the keys where that was looked up or counted.
//!
//! Without it, each add to a key that has parts somewhere and ops of several origins would read the whole list.
//!
//! Invariant: as long as the shard has lost nothing, what is remembered is at least the length of all unfinished parts held here, but for
//! what was appended while the disk was read. It is more where an op of another origin finished some of them. Nothing that is done to one
//! key changes what is remembered of another, even if their `KeyHash`es are equal.

use std::collections::HashMap;

use crate::core::op::Body;
use crate::store::names::{NameKey, NameTag};
use crate::types::{Key, UserId};

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

pub(super) struct OpenParts {
    names: NameKey,
    by_key: HashMap<NameTag, OpenBytes>,
}

impl OpenParts {
    pub fn new(names: NameKey) -> Self {
        Self {
            names,
            by_key: HashMap::new(),
        }
    }

    fn get_mut(&mut self, user: &UserId, key: &Key) -> Option<&mut OpenBytes> {
        // Where nobody sends parts, nothing is looked for.
        (!self.by_key.is_empty()).then(|| self.by_key.get_mut(&self.names.tag(user, key)))?
    }

    pub fn get(&self, user: &UserId, key: &Key) -> Option<OpenBytes> {
        (!self.by_key.is_empty()).then(|| self.by_key.get(&self.names.tag(user, key)).copied())?
    }

    pub fn remember(&mut self, user: &UserId, key: &Key, open: OpenBytes) {
        let tag = self.names.tag(user, key);
        if self.by_key.len() >= KEYS_MAX && !self.by_key.contains_key(&tag) {
            self.by_key.clear();
        }
        self.by_key.insert(tag, open);
    }

    /// What was looked up on the disk and in memory. `is_exact` unless the key was written meanwhile: then what was counted meanwhile stays.
    pub fn learn(&mut self, user: &UserId, key: &Key, bytes: u64, is_exact: bool) {
        if is_exact || self.get(user, key).is_none() {
            self.remember(user, key, OpenBytes { bytes, is_exact });
        }
    }

    /// All parts that are held here are finished or cleared. A key of which nothing was remembered needs no entry.
    pub fn end(&mut self, user: &UserId, key: &Key) {
        if let Some(open) = self.get_mut(user, key) {
            *open = OpenBytes::exactly(0);
        }
    }

    /// A clear may leave parts, and may remove the value that had finished some: they are open again.
    pub fn forget(&mut self, user: &UserId, key: &Key) {
        if !self.by_key.is_empty() {
            self.by_key.remove(&self.names.tag(user, key));
        }
    }

    /// Takes note of an op of another origin, whose place in the order may be anywhere.
    pub fn applied(&mut self, user: &UserId, key: &Key, body: &Body) {
        let Some(open) = self.get_mut(user, key) else {
            return;
        };
        let bytes = match body {
            Body::Part(text) => open.bytes + text.len() as u64,
            Body::Value(_) => open.bytes,
            Body::Spent { .. } => return,
            Body::Clear(_) => return self.forget(user, key),
        };
        *open = OpenBytes { bytes, is_exact: false };
    }

    #[cfg(test)]
    pub fn clear(&mut self) {
        self.by_key.clear();
    }
}
