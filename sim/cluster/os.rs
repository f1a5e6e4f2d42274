//! What real crates ask of the operating system, answered by the simulation: randomness, time, and waiting.
//!
//! `HashMap`, chitchat and snow take randomness where no `Env` reaches, `std::time::Instant` takes the time, and tokio's driver
//! waits in `epoll_wait`. These functions stand in the test binary and so before libc's. On a thread that was armed they answer
//! from the seed and the simulated clock; on every other thread they do what libc does.
//!
//! `epoll_wait` never waits: it notes for how long tokio would have slept, which is when the next timer of that runtime is due, and
//! ends the runtime's turn. So a node's runtime is the production one, not a paused one, and time can jump to whatever comes next.
//!
//! The only `unsafe` of the simulation.
#![allow(unsafe_code, reason = "symbols of libc are replaced")]

use std::cell::{Cell, RefCell};
use std::task::Waker;

use crate::rng::Rng;

/// When the simulation begins, on the monotonic clock and on the wall.
const MONOTONIC_BASE_US: u64 = 1_000_000_000;
pub const WALL_BASE_US: u64 = 1_800_000_000_000_000;

thread_local! {
    /// Simulated microseconds since the beginning.
    static NOW_US: Cell<u64> = const { Cell::new(0) };
    static RANDOM: RefCell<Option<Rng>> = const { RefCell::new(None) };
    static SLEPT_MS: Cell<Option<i32>> = const { Cell::new(None) };
    static TURN: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// From here on this thread lives in the simulation. Must come first on a fresh thread: std seeds its hash maps once per thread.
pub fn arm(seed: u64) {
    NOW_US.set(0);
    RANDOM.set(Some(Rng::new(seed)));
}

fn is_armed() -> bool {
    RANDOM.try_with(|random| random.try_borrow().is_ok_and(|random| random.is_some())) == Ok(true)
}

pub fn now_us() -> u64 {
    NOW_US.get()
}

pub fn set_now_us(now_us: u64) {
    debug_assert!(now_us >= NOW_US.get(), "time runs forward");
    NOW_US.set(now_us);
}

/// Who is woken when the runtime that runs now has nothing left to do.
pub fn begin_turn(waker: Waker) {
    TURN.set(Some(waker));
}

/// For how long the runtime would have slept, milliseconds; negative is without end. `None` while it has work.
pub fn slept_ms() -> Option<i32> {
    SLEPT_MS.take()
}

/// # Safety
/// As libc's: `buffer` is valid for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if !is_armed() {
        // SAFETY: the caller's promise is passed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    }
    if length > 0 {
        // SAFETY: the caller promises that `buffer` is valid for `length` bytes.
        fill(unsafe { std::slice::from_raw_parts_mut(buffer, length) });
    }
    length as isize
}

/// # Safety
/// As libc's: `buffer` is valid for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getentropy(buffer: *mut u8, length: usize) -> i32 {
    // SAFETY: the caller's promise is passed on.
    match unsafe { getrandom(buffer, length, 0) } {
        got if got == length as isize => 0,
        _ => -1,
    }
}

fn fill(bytes: &mut [u8]) {
    RANDOM.with_borrow_mut(|random| {
        let Some(random) = random else { return };
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
    });
}

/// # Safety
/// As libc's: `time` is valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    let base_us = match clock {
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            MONOTONIC_BASE_US
        }
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => WALL_BASE_US,
        _ => 0,
    };
    if base_us == 0 || !is_armed() {
        // SAFETY: the caller's promise is passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as i32 };
    }
    let us = base_us + now_us();
    // SAFETY: the caller promises that `time` is valid for a write.
    unsafe {
        time.write(libc::timespec {
            tv_sec: (us / 1_000_000) as _,
            tv_nsec: (us % 1_000_000 * 1000) as _,
        });
    }
    0
}

/// # Safety
/// As libc's: `events` is valid for `max` entries.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(epoll: i32, events: *mut libc::epoll_event, max: i32, timeout_ms: i32) -> i32 {
    if !is_armed() {
        // SAFETY: the caller's promise is passed on; without a signal mask it is the same call.
        return unsafe {
            libc::syscall(libc::SYS_epoll_pwait, epoll, events, max, timeout_ms, 0_usize, 8_usize) as i32
        };
    }
    if timeout_ms != 0 {
        SLEPT_MS.set(Some(timeout_ms));
        if let Some(waker) = TURN.take() {
            waker.wake();
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;
    use std::time::Instant;

    use super::*;

    /// Runs `work` on a fresh thread that is armed.
    fn armed<T: Send + 'static>(seed: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            arm(seed);
            work()
        });
        thread.join().expect("the armed thread ends well")
    }

    #[test]
    fn chance_comes_from_the_seed_wherever_a_crate_takes_it() {
        let draw = |seed| {
            armed(seed, || {
                let mut bytes = [0; 13];
                getrandom::fill(&mut bytes).expect("the simulation has entropy");
                let hasher = HashSet::<u8>::new().hasher().hash_one(1);
                (bytes, hasher)
            })
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn others_keep_the_real_clock_and_real_chance() {
        let (mut one, mut other) = ([0; 8], [0; 8]);
        getrandom::fill(&mut one).expect("the system has entropy");
        getrandom::fill(&mut other).expect("the system has entropy");
        assert_ne!(one, other);
        let begun = Instant::now();
        while begun.elapsed().is_zero() {}
    }

    #[test]
    fn an_armed_thread_sees_only_simulated_time() {
        let (before, after, later) = armed(1, || {
            let before = Instant::now();
            let mut sum = 0_u64;
            for number in 0..1_000_000 {
                sum = std::hint::black_box(sum + number);
            }
            let after = Instant::now();
            set_now_us(5_000);
            (before, after, Instant::now())
        });
        assert_eq!(before, after);
        assert_eq!((later - before).as_micros(), 5_000);
    }
}
