//! What is known of a stretch of texts in stamp order: its first and last time, and its origin.

use crate::core::op::Fragment;
use crate::core::stamp::{OriginId, Stamp};
use crate::types::RequestId;

/// The times and origin of ops of one key that are nothing but text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSpan {
    pub first: Stamp,
    pub last: Stamp,
    /// None if they are of several.
    pub origin: Option<OriginId>,
}

impl TextSpan {
    /// The span of one op.
    pub fn of(stamp: Stamp) -> Self {
        Self {
            first: stamp,
            last: stamp,
            origin: Some(stamp.origin),
        }
    }

    /// Whether the other one begins when this one is over.
    pub fn is_followed_by(&self, other: &Self) -> bool {
        self.last < other.first
    }

    /// Both, when the other one begins when this one is over.
    pub fn then(self, other: Self) -> Option<Self> {
        self.is_followed_by(&other).then_some(Self {
            first: self.first,
            last: other.last,
            origin: self.origin.filter(|origin| other.origin == Some(*origin)),
        })
    }
}

/// Texts of one key, and the request ids that came with them.
#[derive(Debug, Default)]
pub struct Gathered {
    pub fragments: Vec<Fragment>,
    pub requests: Vec<RequestId>,
}

impl Gathered {
    pub fn text_bytes(&self) -> usize {
        self.fragments.iter().map(|fragment| fragment.text.len()).sum()
    }

    /// Drops what was added since there were so many.
    pub fn cut(&mut self, fragments: usize, requests: usize) {
        self.fragments.truncate(fragments);
        self.requests.truncate(requests);
    }

    /// Whether no request id came twice. Sorts them.
    pub fn requests_differ(&mut self) -> bool {
        self.requests.sort_unstable();
        self.requests.array_windows().all(|[a, b]| a != b)
    }
}
