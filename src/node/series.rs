//! Adds to one key that are carried out together, in their order: they share group commits.
//!
//! Invariants:
//! - an add is given its dot and stamp only after all before it in the series have theirs, or turned out to be repeated requests. If one
//!   gets none (refused, withdrawn, lost with its shard), no add behind it gets one;
//! - another replica gets all of them in one message, so that it holds some first ones of them and no others. If it held one without
//!   another before it, which nobody held, a retry would bring the missing one in behind;
//! - one counts as done only when all that come before it are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::OpError;
use super::local::Added;
use crate::core::op::Text;
use crate::types::RequestId;

/// One of several adds to a key.
#[derive(Debug, Clone)]
pub struct Add {
    pub text: Text,
    pub finish: bool,
    pub request_id: Option<RequestId>,
}

/// Texts of no more bytes than this go together, so that one message holds them.
const TEXT_BYTES_MAX: usize = 128 << 10;

/// How many texts of these lengths go together.
pub fn together(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes: usize = 0;
    let fits = |length: &usize| {
        bytes = bytes.saturating_add(*length);
        bytes <= TEXT_BYTES_MAX
    };
    lengths.take_while(fits).count()
}

/// Writes that go into a shard's inbox together. Clones are the same series.
#[derive(Clone, Default)]
pub struct Series(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_broken: AtomicBool,
    /// When those that have their dots and stamps go to the other replicas: the shard's count of sendings.
    sending: OnceLock<u64>,
}

impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A write's place in its series. If it is dropped before the write has its dot and stamp, the series breaks off there.
pub struct InSeries {
    series: Series,
    is_named: bool,
}

impl Series {
    /// The place of the next write.
    pub fn place(&self) -> InSeries {
        InSeries {
            series: self.clone(),
            is_named: false,
        }
    }
}

impl InSeries {
    /// Whether one before it has ended without a dot and stamp.
    pub fn is_broken(&self) -> bool {
        self.series.0.is_broken.load(Ordering::Acquire)
    }

    /// Whether it would go to the other replicas with those before it, if it got its dot and stamp before this sending.
    pub fn goes_with(&self, sending: u64) -> bool {
        self.series.0.sending.get().is_none_or(|first| *first == sending)
    }

    pub fn series(&self) -> &Series {
        &self.series
    }

    /// Those behind it may have theirs, before this sending.
    pub fn named(mut self, sending: u64) {
        self.is_named = true;
        self.series.0.sending.get_or_init(|| sending);
    }
}

impl Drop for InSeries {
    fn drop(&mut self) {
        if !self.is_named {
            self.series.0.is_broken.store(true, Ordering::Release);
        }
    }
}

/// What the caller is told of a series with these results. Those at its end that had no effect are left out: they can be tried as if they
/// had never been sent.
pub fn told(mut done: Vec<Result<Added, OpError>>) -> Vec<Result<Added, OpError>> {
    let was_begun = |done: &Result<Added, OpError>| done.as_ref().err().is_none_or(OpError::maybe_applied);
    done.truncate(done.iter().rposition(was_begun).map_or(0, |last| last + 1));
    let mut failed = done.iter().position(Result::is_err).map(|at| done.split_off(at));
    // It may be found to come before them, or be lost; and a value is made of the parts before it.
    if let Some(failed) = &mut failed
        && let Some(Err(error)) = failed.first().cloned()
    {
        for done in failed.iter_mut().filter(|done| done.is_ok()) {
            *done = Err(error.clone().doubted());
        }
    }
    done.extend(failed.into_iter().flatten());
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUORUM: OpError = OpError::Quorum {
        needed: 2,
        answered: 1,
        maybe_applied: true,
    };

    #[test]
    fn a_place_that_is_given_up_without_a_name_breaks_the_series_off() {
        let series = Series::default();
        let [first, second, third] = [(); 3].map(|()| series.place());
        first.named(0);
        assert!(!second.is_broken() && !third.is_broken());
        drop(second);
        assert!(third.is_broken() && series.place().is_broken());
    }

    #[test]
    fn all_of_a_series_go_with_the_first() {
        let series = Series::default();
        let [first, second] = [(); 2].map(|()| series.place());
        assert!(first.goes_with(3) && second.goes_with(4));
        first.named(3);
        assert!(second.goes_with(3) && !second.goes_with(4));
    }

    #[test]
    fn as_many_go_together_as_one_message_holds() {
        assert_eq!(together([1; 1000].into_iter()), 1000);
        assert_eq!(together([TEXT_BYTES_MAX, 1].into_iter()), 1);
        assert_eq!(together([TEXT_BYTES_MAX - 1, 1, 0, 1, 0].into_iter()), 3);
        assert_eq!(together([TEXT_BYTES_MAX + 1, 1].into_iter()), 0);
        assert_eq!(together([1, usize::MAX, 1].into_iter()), 1);
    }

    #[test]
    fn what_had_no_effect_at_the_end_of_a_series_is_left_out() {
        let (added, full) = (Ok(Added::Appended), Err(OpError::DiskFull));
        let done = told(vec![added.clone(), full.clone(), full.clone()]);
        assert!(done.len() == 1 && done[0] == added);
        assert!(told(vec![full.clone(), full.clone()]).is_empty());
        let unknown = Err(QUORUM);
        assert_eq!(
            told(vec![added.clone(), unknown.clone(), full.clone()]),
            [added, unknown]
        );
    }

    #[test]
    fn none_counts_as_done_where_one_before_it_does_not() {
        let (added, unknown) = (Ok(Added::Appended), Err(QUORUM));
        assert_eq!(
            told(vec![added.clone(), unknown.clone(), added.clone()]),
            [added.clone(), unknown.clone(), unknown]
        );
        let gone = |maybe_applied| Err(OpError::ShardUnavailable { maybe_applied });
        assert_eq!(told(vec![gone(false), added]), [gone(false), gone(true)]);
    }
}
