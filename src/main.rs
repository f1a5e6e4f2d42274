//! `kv`: the command line of KV-Storage.
#![deny(unsafe_code)]

fn main() -> std::process::ExitCode {
    give_large_memory_back();
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

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_large_memory_back() {}
