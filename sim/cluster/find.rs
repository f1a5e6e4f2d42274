//! Planted bugs and lies, each of which has to be found.

use std::sync::{Mutex, PoisonError};

use kv_storage::planted::Bug;

use super::child::{PLANTED, SOUND, run_apart};
use super::lie::Lie;

/// Seeds that every planted bug must be found within.
const SEEDS_TO_FIND: u64 = 32;

/// The first seed that shows this bug and nothing without it, with what it shows; and the processor time that it took.
fn find(name: &str) -> (Option<(u64, String)>, u64) {
    let is_lie = Lie::ALL.iter().any(|lie| format!("{lie:?}") == name);
    let mut cpu_ms = 0;
    let mut run = |kind: &str, seed| {
        let report = run_apart(&format!("{kind}{name}"), seed, None);
        cpu_ms += report.cpu_ms;
        report.problems.into_iter().next()
    };
    let found = (0..SEEDS_TO_FIND).find_map(|seed| {
        let problem = run(PLANTED, seed)?;
        // Nothing but the bug may be what was found. (Of the lies it is plain.)
        (is_lie || run(SOUND, seed).is_none()).then_some((seed, problem))
    });
    (found, cpu_ms)
}

#[test]
fn every_planted_bug_is_found() {
    if std::env::var("KV_SIM_SCENARIO").is_ok() {
        return;
    }
    let lies = Lie::ALL.iter().map(|lie| format!("{lie:?}"));
    let bugs = Bug::ALL.iter().map(|bug| format!("{bug:?}"));
    let left = Mutex::new(bugs.chain(lies).collect::<Vec<_>>());
    let missed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(name) = next else { break };
                    match find(&name) {
                        (Some((seed, problem)), cpu_ms) => println!("{name} {seed} ({cpu_ms} ms): {problem}"),
                        (None, _) => missed.lock().unwrap_or_else(PoisonError::into_inner).push(name),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(missed.is_empty(), "not found with {SEEDS_TO_FIND} seeds: {missed:?}");
}
