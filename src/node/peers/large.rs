//! Requests of a served connection whose answers may be large: of those, few are at work at once.

use std::collections::VecDeque;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::wire::Request;

/// At work at once, of one connection: each answer may be as large as a message, and is in memory until those before it are written.
/// Pages; and what is lacking of a key. A page waits for the latter where a key is read at a quorum, so they have no bound in common.
pub(super) const LARGE_AT_WORK_MAX: [usize; 2] = [32, 8];
pub(super) const PAGES: usize = 0;
pub(super) const LACKING: usize = 1;

#[derive(Default)]
pub(super) struct Large {
    pub(super) at_work: usize,
    /// Requests for more of them, in the order they came.
    pub(super) put_off: VecDeque<PutOff>,
}

pub(super) struct Reading {
    pub(super) task: AbortHandle,
    /// The request to end it, which is taken to work when it has ended: its reader may be open by then.
    pub(super) end: Option<(u64, usize)>,
}

pub(super) struct PutOff {
    pub(super) id: u64,
    pub(super) request: Request,
    pub(super) bytes: usize,
    pub(super) came: Instant,
}

impl PutOff {
    pub(super) fn opens(&self, reader: u64) -> bool {
        matches!(self.request, Request::Read { reader: opens, .. } if opens == reader)
    }

    /// With the time that is left for it now; none if nobody waits for it any more.
    pub(super) fn still_wanted(mut self) -> Option<Self> {
        if let Request::Read { terms, .. } = &mut self.request {
            let waited_ms = u32::try_from(self.came.elapsed().as_millis()).unwrap_or(u32::MAX);
            terms.left_ms = terms.left_ms.checked_sub(waited_ms).filter(|left_ms| *left_ms > 0)?;
        }
        Some(self)
    }
}

/// Whether the answer may be large, and by which bound. None of these waits for another of its kind, on this connection or at a third node.
pub(super) fn kind_of_large(request: &Request) -> Option<usize> {
    match request {
        Request::Read { .. } | Request::ReadNext { .. } | Request::PullNext { .. } => Some(PAGES),
        Request::SyncKey { .. } => Some(LACKING),
        _ => None,
    }
}
