//! Each seed is run once, for all tests that want it: one takes seconds without optimisation. The same of scenarios that differ in name alone, as
//! most worlds do in which a lie is told, without the lie.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::child::{Report, TRACE, run_apart, world_of};

pub struct Run {
    pub report: Report,
    /// Only of those that `with_trace` tells.
    pub trace: Option<Vec<u8>>,
}

/// Runs the seed, or waits for whoever is at it, or gives what it came to. `with_trace` is the same each time for one seed.
pub fn run_once(scenario: &str, seed: u64, with_trace: bool) -> Arc<Run> {
    type Runs = BTreeMap<String, Arc<OnceLock<Arc<Run>>>>;
    static RUNS: Mutex<Runs> = Mutex::new(Runs::new());
    let place = {
        let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        runs.entry(world_of(scenario, seed)).or_default().clone()
    };
    // Somebody who reads the trace has said where to.
    let with_trace = with_trace && std::env::var_os(TRACE).is_none();
    let run = place.get_or_init(|| {
        Arc::new(match with_trace {
            true => run_traced(scenario, seed),
            false => Run {
                report: run_apart(scenario, seed, None),
                trace: None,
            },
        })
    });
    run.clone()
}

/// Runs the seed in any case, with a trace.
pub fn run_traced(scenario: &str, seed: u64) -> Run {
    let dir = tempfile::tempdir().expect("a folder for the trace");
    let path = dir.path().join("trace");
    let report = run_apart(scenario, seed, Some(&path));
    Run {
        report,
        trace: std::fs::read(&path).ok(),
    }
}
