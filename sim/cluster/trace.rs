//! What happened, in order: a digest of it always, and its lines when they are asked for.
//!
//! Invariant: the digest covers every line's numbers, so two runs with the same digest took the same way.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::os;

/// Clones write to the same trace.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    digest: u64,
    events: u64,
    /// Absent when nobody wants to read it.
    lines: Option<String>,
}

impl Trace {
    pub fn new(with_lines: bool) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                digest: 0,
                events: 0,
                lines: with_lines.then(String::new),
            })),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `numbers` tell this event from others of its kind; `words` is for whoever reads the lines.
    pub fn note(&self, kind: &str, numbers: &[u64], words: impl FnOnce() -> String) {
        let mut inner = self.inner();
        let now_us = os::now_us();
        let mut digest = xxh3_64_with_seed(kind.as_bytes(), inner.digest ^ now_us);
        for number in numbers {
            digest = (digest ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        inner.digest = digest;
        inner.events += 1;
        if let Some(lines) = &mut inner.lines {
            let words = words();
            let _ = writeln!(lines, "{:>10.6} {kind} {words} {numbers:x?}", now_us as f64 / 1e6);
        }
    }

    pub fn digest(&self) -> u64 {
        self.inner().digest
    }

    pub fn events(&self) -> u64 {
        self.inner().events
    }

    pub fn lines(&self) -> Option<String> {
        self.inner().lines.clone()
    }
}
