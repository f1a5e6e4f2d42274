//! One (scenario, seed) is one process. The parent starts them and reads their reports.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use kv_storage::planted::{self, Bug};
use serde::{Deserialize, Serialize};

use super::bug;
use super::lie::Lie;
use super::os;
use super::plan::Plan;
use super::scale::Row;
use super::scale_table;
use super::trace::Trace;
use super::workload::FIRST_CLIENT;
use super::world::World;
use crate::rng::Rng;

/// Set for the child: scenario and seed.
const CHILD: &str = "KV_SIM_CHILD";
/// Before the report, on a line of its own.
const REPORT: &str = "kv-sim-report ";
/// Seeds of a scenario in the usual test run.
const SEEDS_DEFAULT: u64 = 10;
/// A child that takes longer hangs.
const CHILD_TIMEOUT: Duration = Duration::from_secs(300);
/// Stack of the simulation's thread.
const STACK_BYTES: usize = 16 << 20;

type Scenario = fn(&mut Rng) -> Plan;

const SCENARIOS: [(&str, Scenario); 6] = [
    ("cluster", Plan::swarm),
    ("cluster-five", Plan::five),
    ("cluster-calm", Plan::calm),
    ("set-back", Plan::set_back),
    ("crowded", Plan::crowded),
    ("alone", Plan::alone),
];

/// What a child says of its run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Report {
    problems: Vec<String>,
    digest: u64,
    events: u64,
    calls: u64,
    answered: u64,
    faults: BTreeMap<String, u64>,
    statuses: BTreeMap<u16, u64>,
    simulated_us: u64,
    cpu_ms: u64,
    row: Option<Row>,
}

/// Before the name of a planted bug.
const PLANTED: &str = "planted-";
/// Before how many nodes there are.
const SCALE: &str = "scale-";
/// Sizes of clusters in the table.
const SIZES: [u64; 4] = [3, 10, 30, 100];
/// A hundred nodes take minutes.
const SCALE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Before the same name: the same world without the bug.
const SOUND: &str = "sound-";

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
    Some(draw(rng))
}

fn run_here(scenario: &str, seed: u64) -> Report {
    let trace_file = std::env::var("KV_SIM_TRACE").ok();
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
    let answered = |call: &&super::history::Call| call.answer().is_some();
    Report {
        problems: outcome.problems,
        digest: trace.digest(),
        events: trace.events(),
        calls: outcome.history.calls.len() as u64,
        answered: outcome.history.calls.iter().filter(answered).count() as u64,
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
fn run_apart(scenario: &str, seed: u64, trace: Option<&Path>) -> Report {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .args([
            "--exact",
            "cluster::runs::one_seed",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, format!("{scenario} {seed}"))
        .stdout(Stdio::piped());
    if let Some(trace) = trace {
        command.env("KV_SIM_TRACE", trace);
    }
    let mut child = command.spawn().expect("the simulation can be started");
    let mut said = String::new();
    let mut output = child.stdout.take().expect("its output is ours");
    let begun = Instant::now();
    let timeout = match scenario.starts_with(SCALE) {
        true => SCALE_TIMEOUT,
        false => CHILD_TIMEOUT,
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

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
    )
}

fn seeds(usual: u64) -> std::ops::Range<u64> {
    match setting("KV_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("KV_SIM_SEEDS").unwrap_or(usual),
    }
}

fn is_selected(scenario: &str) -> bool {
    std::env::var("KV_SIM_SCENARIO").map_or(true, |selected| selected == scenario)
}

#[derive(Default)]
struct Sum {
    report: Report,
    seeds: u64,
    failed: Option<(u64, Vec<String>)>,
}

impl Sum {
    fn take(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        for (fault, count) in report.faults {
            *self.report.faults.entry(fault).or_default() += count;
        }
        for (status, count) in report.statuses {
            *self.report.statuses.entry(status).or_default() += count;
        }
        self.report.events += report.events;
        self.report.calls += report.calls;
        self.report.answered += report.answered;
        self.report.simulated_us += report.simulated_us;
        self.report.cpu_ms += report.cpu_ms;
        if !report.problems.is_empty() && self.failed.as_ref().is_none_or(|(first, _)| seed < *first) {
            self.failed = Some((seed, report.problems));
        }
    }

    fn summary(&self) -> String {
        let report = &self.report;
        let seconds = report.simulated_us as f64 / 1e6;
        let cpu_seconds = (report.cpu_ms as f64 / 1e3).max(1e-3);
        format!(
            "{} seeds, {seconds:.0} simulated seconds in {cpu_seconds:.1} s of processor time ({:.0}:1, {:.0} seeds per hour); \
             {} events, {} calls, {} answered {:?}\nfaults: {:?}",
            self.seeds,
            seconds / cpu_seconds,
            self.seeds as f64 / cpu_seconds * 3600.0,
            report.events,
            report.calls,
            report.answered,
            report.statuses,
            report.faults
        )
    }
}

fn run(scenario: &str, usual_seeds: u64) {
    if !is_selected(scenario) {
        return;
    }
    let seeds = seeds(usual_seeds);
    // To see all of what fails, not only the first.
    let keep_going = std::env::var("KV_SIM_KEEP_GOING").is_ok();
    let bar = match seeds.end - seeds.start > SEEDS_DEFAULT {
        true => ProgressBar::new(seeds.end - seeds.start),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left {msg}") {
        bar.set_style(style);
    }
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Sum::default()));
    let locked = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end || (locked().failed.is_some() && !keep_going) {
                        break;
                    }
                    let report = run_apart(scenario, seed, None);
                    if keep_going && let Some(problem) = report.problems.first() {
                        bar.suspend(|| println!("{scenario} {seed}: {problem}"));
                    }
                    locked().take(seed, report);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{scenario}: {}", sum.summary());
    if let Some((seed, problems)) = sum.failed {
        panic!(
            "{}\n\nrepeat with: KV_SIM_SCENARIO={scenario} KV_SIM_SEED={seed} KV_SIM_TRACE=/tmp/trace KV_SIM_LOG=info \
             cargo test --release --test sim cluster -- --nocapture",
            problems.join("\n")
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_in_two_processes() {
    let dir = tempfile::tempdir().expect("a folder for the traces");
    let trace = |name: &str, seed| {
        let path = dir.path().join(name);
        let report = run_apart("cluster", seed, Some(&path));
        (report.digest, std::fs::read(&path).expect("the trace was written"))
    };
    for seed in 0..2 {
        let (one, two) = (trace("one", seed), trace("two", seed));
        assert!(one.1.len() > 10_000, "a trace of {} bytes", one.1.len());
        assert!(one.1 == two.1, "two runs of seed {seed} differ");
        assert_eq!(one.0, two.0);
    }
    assert_ne!(trace("one", 1).0, trace("two", 2).0);
}

#[test]
fn cluster() {
    run("cluster", SEEDS_DEFAULT);
}

#[test]
fn cluster_calm() {
    run("cluster-calm", 2);
}

/// The limits are really met: requests are refused at the door, and what waits never gets beyond them.
#[test]
fn crowded() {
    if !is_selected("crowded") {
        return;
    }
    for seed in seeds(6) {
        let report = run_apart("crowded", seed, None);
        assert!(
            report.problems.is_empty(),
            "seed {seed}: {}",
            report.problems.join("\n")
        );
        let refused = report.statuses.get(&503).copied().unwrap_or(0);
        println!("crowded {seed}: {} answered, {refused} refused", report.answered);
        assert!(refused > 10 && report.answered > 100, "seed {seed}");
    }
}

#[test]
fn set_back() {
    run("set-back", 4);
}

#[test]
fn alone() {
    run("alone", 4);
}

#[test]
fn cluster_five() {
    run("cluster-five", 2);
}

/// Seeds that showed a bug once (`FINDINGS.md`). What they draw changes with the code, but not which faults, and how hard.
const REGRESSIONS: [(&str, u64); 23] = [
    ("cluster", 10),
    ("cluster", 11),
    ("cluster", 17),
    ("cluster", 47),
    ("cluster", 57),
    ("cluster", 101),
    ("cluster", 115),
    ("cluster", 150),
    ("cluster", 454),
    ("cluster", 528),
    ("cluster", 633),
    ("cluster", 829),
    ("cluster", 1170),
    ("cluster", 1441),
    ("cluster", 1446),
    ("cluster", 1589),
    ("cluster", 2054),
    ("cluster", 1988),
    ("cluster", 4433),
    ("cluster", 4443),
    ("cluster-five", 1),
    ("cluster-five", 3),
    ("cluster-five", 5),
];

#[test]
fn seeds_that_showed_a_bug_once() {
    if std::env::var("KV_SIM_SCENARIO").is_ok() {
        return;
    }
    for (scenario, seed) in REGRESSIONS {
        let problems = run_apart(scenario, seed, None).problems;
        assert!(problems.is_empty(), "{scenario} {seed}: {}", problems.join("\n"));
    }
}

#[test]
fn scale() {
    run("scale-3", 1);
}

/// `just sim-scale`: the table, and with the feature `plot` its picture. `KV_SIM_SIZES=3,10` takes other sizes.
#[test]
#[ignore = "takes minutes"]
fn scale_table() {
    let sizes = std::env::var("KV_SIM_SIZES").ok();
    let sizes = sizes.map(|text| text.split(',').filter_map(|size| size.trim().parse().ok()).collect());
    let mut rows = Vec::new();
    for nodes in sizes.unwrap_or_else(|| SIZES.to_vec()) {
        let report = run_apart(&format!("{SCALE}{nodes}"), setting("KV_SIM_SEED").unwrap_or(0), None);
        assert!(report.problems.is_empty(), "{nodes} nodes: {:?}", report.problems);
        let (simulated_s, cpu_s) = (report.simulated_us as f64 / 1e6, report.cpu_ms as f64 / 1e3);
        println!("{nodes} nodes: {simulated_s:.0} simulated seconds in {cpu_s:.0} s of processor time");
        rows.extend(report.row);
    }
    println!("\n{}", scale_table::markdown(&rows));
    #[cfg(feature = "plot")]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sim-scale.png");
        scale_table::draw(&rows, &path).expect("the picture can be drawn");
        println!("{}", path.display());
    }
}

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
