//! Waiting for a moment, exactly.
//!
//! The runtime's timer counts milliseconds, which is longer than many operations take: with it, the generator's own lateness would
//! show as the server's. The kernel's timer is exact to some ten microseconds.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
mod kernel {
    use super::{Instant, io};

    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    pub struct Pacer(AsyncFd<OwnedFd>);

    impl Pacer {
        /// Must be called inside the runtime.
        pub fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe; what is unsound is a type that changes its descriptor, and OwnedFd does not"
            )]
            let timer = AsyncFd::new(timer)?;
            Ok(Self(timer))
        }

        pub async fn wait_until(&self, moment: Instant) -> io::Result<()> {
            let wait = moment.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: wait.as_secs() as i64,
                    tv_nsec: i64::from(wait.subsec_nanos()) as _,
                },
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            let mut expirations = [0; 8];
            loop {
                let mut ready = self.0.readable().await?;
                let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?));
                match read {
                    Ok(outcome) => return outcome.map(|_| ()),
                    // Not yet.
                    Err(_) => continue,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::{Instant, io};

    pub struct Pacer;

    impl Pacer {
        pub fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub async fn wait_until(&self, moment: Instant) -> io::Result<()> {
            tokio::time::sleep_until(moment.into()).await;
            Ok(())
        }
    }
}

pub use kernel::Pacer;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_moment_is_never_left_before_it_has_come() {
        let pacer = Pacer::new().unwrap();
        for wait_us in [0, 1, 50, 700, 3_000] {
            let moment = Instant::now() + Duration::from_micros(wait_us);
            pacer.wait_until(moment).await.unwrap();
            assert!(Instant::now() >= moment);
        }
    }

    #[tokio::test]
    async fn a_moment_in_the_past_is_not_waited_for() {
        let pacer = Pacer::new().unwrap();
        pacer.wait_until(Instant::now() - Duration::from_secs(1)).await.unwrap();
    }
}
