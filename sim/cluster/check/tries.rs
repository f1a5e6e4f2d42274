//! Whether a write was tried twice.
//!
//! Of one request, two ops may come through two coordinators that were at work at once, and in the end the earlier one counts (docs/limits.md, "Order"). The
//! later one may even be stamped after the answer: who asked a quorum before the other one was anywhere, and waited long for that, goes by it.

use crate::cluster::history::{History, Write};
use crate::cluster::plan::SECOND_US;

/// After so long a node asks the next replica to carry out a write too.
pub(super) const SECOND_TRY_US: u64 = 150_000;
/// A try lasts no longer.
pub(super) const TRY_US_MAX: u64 = 10 * SECOND_US;
/// So long after its connection was cut a node may still send something into it.
const NOTICED_US: u64 = 3 * SECOND_US;

/// Whether nobody, neither a client nor a node, can have begun another try before the answer: a node asks another one when the first is slow, or its
/// connection breaks.
pub(super) fn is_one_try(history: &History, write: &Write) -> bool {
    let Some(acked_us) = write.acked_at_quorum_us() else {
        return false;
    };
    let mut troubles = history.troubles.iter();
    let mut cuts = history.cuts_us.iter();
    write.tries == 1
        && acked_us - write.began_us < SECOND_TRY_US
        && !troubles.any(|trouble| trouble.from_us <= acked_us && trouble.to_us >= write.began_us)
        && !cuts.any(|cut_us| *cut_us <= acked_us && cut_us + NOTICED_US >= write.began_us)
}
