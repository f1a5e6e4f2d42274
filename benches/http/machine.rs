//! What the kernel says of processes and of the machine.

use std::num::NonZeroUsize;
use std::ops::Sub;

use anyhow::Context;

/// CPU that a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    pub user_s: f64,
    pub system_s: f64,
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
        }
    }
}

/// From `/proc/PID/stat`, where the name of the program may hold anything but the last `)`.
pub fn cpu_of(process: u32) -> anyhow::Result<Cpu> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, fields) = text.rsplit_once(')').context("no name in it")?;
    // utime and stime are the fields 14 and 15; the first one after the name is number 3.
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let mut next = || ticks.next().and_then(Result::ok).context("a field is missing");
    let per_s = rustix::param::clock_ticks_per_second() as f64;
    Ok(Cpu {
        user_s: next()? / per_s,
        system_s: next()? / per_s,
    })
}

pub fn describe() -> String {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    format!("{processors} processors shared by server and load generator; load average at the end {load}")
}
