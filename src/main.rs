//! `kv`: the command line of KV-Storage.
#![deny(unsafe_code)]

fn main() -> std::process::ExitCode {
    give_large_memory_back();
    give_back_now_and_then();
    kv_storage::cli::main()
}

/// Has large pieces of memory (bodies, groups of a log, blocks of long texts) go back to the kernel when they are let go.
///
/// glibc does so from 128 KiB on at first, but raises that bound to the largest piece that ever was let go, up to 32 MiB. From then
/// on such pieces stay in the arenas of the threads that asked for them: one value of 1 GiB, stored from parts, left 240 MiB behind
/// in a node that needed 36. A bound that was set stays.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "the C library is spoken to nowhere else, and offers no safe way"
)]
fn give_large_memory_back() {
    const LARGE_BYTES: libc::c_int = 128 * 1024;
    // SAFETY: it takes two numbers, sets a parameter of the allocator, and is called before there is a second thread.
    // Were it to fail, memory would grow as described, which is no reason not to start.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
}

/// Gives back, now and then, what the allocator keeps of memory that was let go.
///
/// Each thread that allocates keeps smaller pieces in an arena of its own: a list of a million values left 60 MiB there, of which
/// 4 were in use. A bound for what is kept costs a few page faults a second while a node is busy, and nothing while it is not.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "the C library is spoken to nowhere else, and offers no safe way; a thread of its own may sleep"
)]
fn give_back_now_and_then() {
    const KEPT_BYTES_MAX: u32 = 8 << 20;
    const EVERY: std::time::Duration = std::time::Duration::from_millis(250);
    let keeper = std::thread::Builder::new().name("kv-memory".to_owned());
    // Without it the node only takes more memory.
    let _ = keeper.spawn(|| {
        loop {
            std::thread::sleep(EVERY);
            // SAFETY: it reads numbers of the allocator, under its own locks. (Its successor `mallinfo2`, whose numbers do not wrap
            // at 4 GiB, is missing in C libraries that are still in use; a wrong number only trims too early or too late.)
            let kept = unsafe { libc::mallinfo() }.fordblks.cast_unsigned();
            if kept > KEPT_BYTES_MAX {
                // SAFETY: it only lets go of pages that nothing lives in, under the allocator's own locks.
                let _ = unsafe { libc::malloc_trim(0) };
            }
        }
    });
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_large_memory_back() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back_now_and_then() {}
