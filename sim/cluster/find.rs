//! Planted bugs and lies, each of which has to be found.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use kv_storage::planted::Bug;

use super::bug;
use super::check::CHECKS;
use super::child::{PLANTED, Report, SOUND, run_apart};
use super::lie::Lie;
use super::once::run_once;
use super::runs::IS_OPTIMISED;

/// Seeds that every planted bug must be found within.
const SEEDS_TO_FIND: u64 = 32;

/// Checks for which nothing is planted: what was, was found by one seed in many only.
const NEVER_PLANTED: [&str; 1] = ["a crash is no damage"];

/// All that is planted, by its name, with the check that has to find it.
fn planted() -> Vec<(String, &'static str)> {
    let lies = Lie::ALL.iter().map(|lie| (format!("{lie:?}"), lie.found_by()));
    let bugs = Bug::ALL.iter().map(|bug| (format!("{bug:?}"), bug::found_by(*bug)));
    bugs.chain(lies).collect()
}

/// All of it; without optimisation one for each check that a lie of one node's world can show.
fn sought() -> Vec<(String, &'static str)> {
    if IS_OPTIMISED {
        return planted();
    }
    let mut checks = BTreeSet::new();
    let lies = Lie::ALL.iter().map(|lie| (format!("{lie:?}"), lie.found_by()));
    lies.filter(|(_, found_by)| checks.insert(*found_by)).collect()
}

/// The first seed in which this check finds the bug and nothing fails without it, with what it says; and the processor time of these runs.
/// Any other check would do for a bug that breaks everything, and say nothing about the one that is there for it.
fn find(name: &str, found_by: &str) -> (Option<(u64, String)>, u64) {
    let mut cpu_ms = 0;
    let mut problems_of = |report: &Report| {
        cpu_ms += report.cpu_ms;
        report.problems.clone()
    };
    let found = (0..SEEDS_TO_FIND).find_map(|seed| {
        let mut problems = problems_of(&run_apart(&format!("{PLANTED}{name}"), seed, None)).into_iter();
        let problem = problems.find(|problem| problem.starts_with(&format!("{found_by}: ")))?;
        // Nothing but the bug may be what was found.
        let sound = run_once(&format!("{SOUND}{name}"), seed, false);
        problems_of(&sound.report).is_empty().then_some((seed, problem))
    });
    (found, cpu_ms)
}

#[test]
fn every_check_has_something_planted_for_it() {
    let checks: BTreeSet<_> = CHECKS.iter().map(|(name, _)| *name).collect();
    let found_by = planted().into_iter().map(|(_, found_by)| found_by);
    let found_by: BTreeSet<_> = found_by.collect();
    let never: Vec<_> = checks.difference(&found_by).copied().collect();
    assert_eq!(never, NEVER_PLANTED);
    assert!(found_by.is_subset(&checks));
}

#[test]
fn every_planted_bug_is_found() {
    if std::env::var("KV_SIM_SCENARIO").is_ok() {
        return;
    }
    let left = Mutex::new(sought());
    let missed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some((name, found_by)) = next else { break };
                    match find(&name, found_by) {
                        (Some((seed, problem)), cpu_ms) => println!("{name} {seed} ({cpu_ms} ms): {problem}"),
                        (None, _) => {
                            let missed = missed.lock();
                            missed.unwrap_or_else(PoisonError::into_inner).push((name, found_by));
                        }
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(missed.is_empty(), "not found with {SEEDS_TO_FIND} seeds: {missed:?}");
}
