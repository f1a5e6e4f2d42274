//! Complaints that must not fill the log, however often their cause comes back.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const PAUSE_MS: u64 = 60_000;

/// Says yes once a minute.
#[derive(Default)]
pub struct LogLimiter(Mutex<Option<Instant>>);

impl LogLimiter {
    pub fn is_due(&self) -> bool {
        let (mut last, now) = (self.0.lock(), Instant::now());
        let is_due = last.is_none_or(|last| now - last >= Duration::from_millis(PAUSE_MS));
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_complaint_a_minute() {
        let limiter = LogLimiter::default();
        assert!(limiter.is_due() && !limiter.is_due());
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!limiter.is_due());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limiter.is_due() && !limiter.is_due());
    }
}
