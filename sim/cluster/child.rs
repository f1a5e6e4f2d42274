//! One (scenario, seed) is one process: what it draws and runs, what it reports, and how it is started.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kv_storage::planted::{self, Bug};
use serde::{Deserialize, Serialize};

use super::bug;
use super::check::acknowledged_and_safe;
use super::history::Call;
use super::lie::Lie;
use super::os;
use super::plan::Plan;
use super::scale::Row;
use super::trace::Trace;
use super::workload::FIRST_CLIENT;
use super::world::World;
use crate::rng::Rng;

/// Set for the child: scenario and seed.
const CHILD: &str = "KV_SIM_CHILD";
/// Where to write the trace.
pub const TRACE: &str = "KV_SIM_TRACE";
/// Before the report, on a line of its own.
const REPORT: &str = "kv-sim-report ";
/// Before the name of a planted bug.
pub const PLANTED: &str = "planted-";
/// Before the same name: the same world without the bug.
pub const SOUND: &str = "sound-";
/// Before how many nodes there are.
pub const SCALE: &str = "scale-";
/// A child that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(300);
/// A hundred nodes take minutes.
const SCALE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Stack of the simulation's thread.
const STACK_BYTES: usize = 16 << 20;

type Scenario = fn(&mut Rng) -> Plan;

const SCENARIOS: [(&str, Scenario); 9] = [
    ("cluster", Plan::swarm),
    ("cluster-five", Plan::five),
    ("cluster-calm", Plan::calm),
    ("members", Plan::members),
    ("set-back", Plan::set_back),
    ("bad-sectors", Plan::bad_sectors),
    ("crowded", Plan::crowded),
    ("alone", Plan::alone),
    ("product", Plan::product),
];

/// What a child says of its run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    pub problems: Vec<String>,
    pub digest: u64,
    pub events: u64,
    pub calls: u64,
    pub answered: u64,
    /// Adds acknowledged at quorum, and those of them that no clear may have covered.
    pub acknowledged: u64,
    pub safe: u64,
    pub faults: BTreeMap<String, u64>,
    pub statuses: BTreeMap<u16, u64>,
    pub simulated_us: u64,
    pub cpu_ms: u64,
    pub row: Option<Row>,
}

fn draw(scenario: &str, rng: &mut Rng) -> Option<Plan> {
    if let Some(name) = scenario.strip_prefix(SOUND) {
        let mut plan = draw(&format!("{PLANTED}{name}"), rng)?;
        (plan.planted, plan.bug) = (None, None);
        return Some(plan);
    }
    if let Some(name) = scenario.strip_prefix(PLANTED) {
        if let Some(bug) = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name) {
            return Some(bug::plan(bug, rng));
        }
        let lie = Lie::ALL.into_iter().find(|lie| format!("{lie:?}") == name)?;
        return Some(lie.plan(rng));
    }
    if let Some(nodes) = scenario.strip_prefix(SCALE) {
        let nodes = nodes.parse().ok().filter(|nodes| (2..=FIRST_CLIENT).contains(nodes))?;
        return Some(Plan::scale(rng, nodes));
    }
    let (_, draw) = SCENARIOS.iter().find(|(name, _)| *name == scenario)?;
    // By a generator of its own: what else a seed draws stays as it was.
    let mut apart = rng.clone().fork();
    let mut plan = draw(rng);
    plan.draw_pages(&mut apart);
    Some(plan)
}

/// All that a run of the scenario with this seed follows from: whatever they are called, two with the same are the same run.
pub fn world_of(scenario: &str, seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let plan = draw(scenario, &mut rng);
    format!("{seed} {rng:?} {plan:?}")
}

fn run_here(scenario: &str, seed: u64) -> Report {
    let trace_file = std::env::var(TRACE).ok();
    os::arm(seed ^ 0x5eed);
    let mut rng = Rng::new(seed);
    let Some(plan) = draw(scenario, &mut rng) else {
        return Report {
            problems: vec![format!("there is no scenario {scenario}")],
            ..Report::default()
        };
    };
    if let Some(bug) = plan.bug {
        planted::plant(bug);
    }
    let trace = Trace::new(trace_file.is_some());
    trace.note("plan", &[], || format!("{plan:?}"));
    let outcome = World::new(plan, rng, trace.clone()).run();
    if let (Some(path), Some(lines)) = (trace_file, trace.lines()) {
        std::fs::write(path, lines).expect("the trace can be written");
    }
    let (acknowledged, safe) = acknowledged_and_safe(&outcome.history);
    let answered = |call: &&Call| call.answer().is_some();
    Report {
        problems: outcome.problems,
        digest: trace.digest(),
        events: trace.events(),
        calls: outcome.history.calls.len() as u64,
        answered: outcome.history.calls.iter().filter(answered).count() as u64,
        acknowledged,
        safe,
        faults: outcome
            .faults
            .iter()
            .map(|(fault, count)| (format!("{fault:?}"), *count))
            .collect(),
        statuses: outcome.statuses,
        simulated_us: outcome.simulated_us,
        cpu_ms: 0,
        row: outcome.row,
    }
}

/// What a child does; nothing in any other process.
#[test]
#[ignore = "run by the others, one process per seed"]
fn one_seed() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let (scenario, seed) = child.split_once(' ').expect("scenario and seed");
    let (scenario, seed) = (scenario.to_owned(), seed.parse().expect("the seed is a number"));
    log_to_stderr();
    let panics = std::sync::Arc::new(Mutex::new(Vec::new()));
    let (seen, usual) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("panic: {info}"));
        usual(info);
    }));
    // A fresh thread: std gives each its own seed for hash maps, once.
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || run_here(&scenario, seed));
    let mut report = thread.expect("a thread can be started").join().unwrap_or_default();
    report
        .problems
        .extend(panics.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    report.cpu_ms = cpu_ms();
    println!(
        "\n{REPORT}{}",
        serde_json::to_string(&report).expect("a report is plain data")
    );
}

/// What this process has taken of the processor.
fn cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn log_to_stderr() {
    let Ok(filter) = std::env::var("KV_SIM_LOG") else {
        return;
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_timer(SimulatedTime)
        .init();
}

struct SimulatedTime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>10.6}", os::now_us() as f64 / 1e6)
    }
}

/// Runs a seed in a process of its own.
pub fn run_apart(scenario: &str, seed: u64, trace: Option<&Path>) -> Report {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .args([
            "--exact",
            "cluster::child::one_seed",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, format!("{scenario} {seed}"))
        .stdout(Stdio::piped());
    if let Some(trace) = trace {
        command.env(TRACE, trace);
    }
    let mut child = command.spawn().expect("the simulation can be started");
    let mut said = String::new();
    let mut output = child.stdout.take().expect("its output is ours");
    let begun = Instant::now();
    let timeout = match scenario.starts_with(SCALE) {
        true => SCALE_TIMEOUT,
        false => TIMEOUT,
    };
    let reader = std::thread::spawn(move || {
        // What is not text is no report.
        let _ = output.read_to_string(&mut said);
        said
    });
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break format!("{status}"),
            Ok(None) if begun.elapsed() < timeout => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                break format!("it was stopped after {timeout:?}");
            }
        }
    };
    let said = reader.join().unwrap_or_default();
    let report = said
        .lines()
        .find_map(|line| serde_json::from_str(line.strip_prefix(REPORT)?).ok());
    report.unwrap_or_else(|| Report {
        problems: vec![format!("no report: {ended}")],
        ..Report::default()
    })
}
