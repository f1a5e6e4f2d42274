//! The scenarios, each run with many seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::Engine;
use crate::shard::ShardEngine;
use crate::toy::{FAULTS, Toy};
use crate::world::World;

/// Steps of one run: long enough for several segments, short enough to be read when it fails.
const STEPS: usize = 150;
/// Seeds of a scenario in the usual test run.
const SEEDS_DEFAULT: u64 = 40;
/// How many of its last steps a failed run shows.
const SHOWN_STEPS: usize = 40;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
    )
}

fn seeds() -> std::ops::Range<u64> {
    match setting("KV_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("KV_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT),
    }
}

fn is_selected(scenario: &str) -> bool {
    std::env::var("KV_SIM_SCENARIO").map_or(true, |selected| selected == scenario)
}

/// What went wrong with this seed, if anything: a violation, or a panic of the engine.
fn failure<E: Engine>(seed: u64) -> Option<String> {
    let mut world = World::<E>::new(seed);
    if std::env::var("KV_SIM_TRACE").is_ok() {
        world.start_trace();
    }
    let what = match catch_unwind(AssertUnwindSafe(|| world.run(STEPS))) {
        Ok(Ok(())) => return None,
        Ok(Err(violation)) => violation.0,
        Err(_) => "the engine panicked; its message stands above".into(),
    };
    if let Ok(path) = std::env::var("KV_SIM_TRACE") {
        std::fs::write(path, world.trace()).expect("the trace can be written");
    }
    Some(format!("{}\n{what}", world.last_steps(SHOWN_STEPS)))
}

fn run<E: Engine>(scenario: &str) {
    if !is_selected(scenario) {
        return;
    }
    for seed in seeds() {
        if let Some(what) = failure::<E>(seed) {
            panic!(
                "{what}\n\nrepeat with: KV_SIM_SCENARIO={scenario} KV_SIM_SEED={seed} cargo test --test sim {scenario}"
            );
        }
    }
}

fn trace<E: Engine>(seed: u64) -> String {
    let mut world = World::<E>::new(seed);
    world.start_trace();
    let result = world.run(STEPS);
    format!("{}\n{result:?}", world.trace())
}

fn assert_deterministic<E: Engine>() {
    for seed in 0..5 {
        assert!(trace::<E>(seed) == trace::<E>(seed), "two runs of seed {seed} differ");
    }
    assert_ne!(trace::<E>(1), trace::<E>(2));
}

type SoundToy = Toy<{ FAULTS.len() }>;

#[test]
fn the_same_seed_gives_the_same_run_byte_for_byte() {
    assert_deterministic::<SoundToy>();
    assert_deterministic::<ShardEngine>();
}

#[test]
fn engine() {
    run::<ShardEngine>("engine");
}

#[test]
fn a_sound_engine_passes() {
    run::<SoundToy>("toy");
}

/// Seeds that every planted fault must be found within.
const SEEDS_TO_FIND: u64 = 300;

fn assert_found<const FAULT: usize>() {
    let found = (0..SEEDS_TO_FIND).any(|seed| failure::<Toy<FAULT>>(seed).is_some());
    assert!(found, "{:?} was not found", FAULTS[FAULT]);
}

#[test]
fn every_planted_fault_is_found() {
    assert_found::<0>();
    assert_found::<1>();
    assert_found::<2>();
    assert_found::<3>();
    assert_found::<4>();
    assert_found::<5>();
    assert_found::<6>();
    assert_found::<7>();
    assert_found::<8>();
}
