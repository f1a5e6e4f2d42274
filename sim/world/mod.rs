//! One shard engine on a simulated disk, one client that does everything at random, and the model that it is held against.
//!
//! Checked after every read and every reopen: every acknowledged op is there, in order, once per request id; an unacknowledged one
//! is there as a whole or not at all, and stays as it was first seen; a cleared value never comes back; the listing of keys agrees.

mod reading;
mod writing;

use std::collections::BTreeMap;
use std::path::Path;

use kv_storage::core::op::Dot;
use kv_storage::node::Added;
use kv_storage::store::disk::Disk;
use kv_storage::types::{Key, UserId, WallMs};

use crate::disk::{Fault, Mount, SimDisk};
use crate::engine::{DATA_DIR, Engine, Place, Refusal, Tuning};
use crate::habits::{Habits, Step};
use crate::model::{KeyModel, Operation, Violation};
use crate::rng::Rng;

/// A crash at every change would never let a reopen finish: so many in a row at most.
const REOPENS_MAX: usize = 20;
/// Of a hundred times that the engine opens, it is struck so often.
const CRASH_IN_OPEN_PERCENT: u64 = 20;

pub struct World<E> {
    rng: Rng,
    /// Of crashes while it opens.
    opening: Rng,
    disk: SimDisk,
    mount: Mount,
    engine: Option<E>,
    tuning: Tuning,
    habits: Habits,
    dots: BTreeMap<Dot, (Place, String)>,
    keys: BTreeMap<Place, KeyModel>,
    places: Vec<Place>,
    now: WallMs,
    latest: WallMs,
    texts: u64,
    /// How many of them are of which key.
    adds: BTreeMap<Place, u64>,
    /// Requests sent so far, to send some of them again.
    requests: Vec<(Place, Operation)>,
    history: Vec<String>,
    /// How often the engine was opened.
    opens: u64,
}

impl<E: Engine> World<E> {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(rng.next());
        let mount = disk.mount();
        mount
            .create_dir_all(Path::new(DATA_DIR))
            .expect("an empty disk takes a directory");
        mount.sync_dir(Path::new("/")).expect("no fault is planned yet");
        let (habits, tuning) = (Habits::draw(&mut rng), Tuning::draw(&mut rng));
        let now = WallMs(1_700_000_000_000);
        Self {
            places: places(&mut rng),
            history: vec![format!("{habits:?}"), format!("{tuning:?}")],
            rng,
            opening: Rng::new(!seed),
            disk,
            mount,
            engine: None,
            tuning,
            habits,
            dots: BTreeMap::new(),
            keys: BTreeMap::new(),
            now,
            latest: now,
            texts: 0,
            adds: BTreeMap::new(),
            requests: Vec::new(),
            opens: 0,
        }
    }

    /// Takes so many steps, then a last crash and a last look at everything.
    pub fn run(&mut self, steps: usize) -> Result<(), Violation> {
        self.reopen()?;
        for _ in 0..steps {
            self.step()?;
        }
        self.disk.cancel_faults();
        self.disk.cancel_crash();
        self.disk.set_capacity(u64::MAX);
        self.disk.crash();
        self.reopen()
    }

    /// From now on the disk keeps what it sees.
    pub fn start_trace(&self) {
        self.disk.start_trace();
    }

    /// What happened, and what the disk saw.
    pub fn trace(&self) -> String {
        format!("{}\n{}", self.history.join("\n"), self.disk.trace().join("\n"))
    }

    /// What was drawn for this run, and the last things that happened.
    pub fn last_steps(&self, count: usize) -> String {
        let (drawn, steps) = self.history.split_at(2);
        let last = &steps[steps.len().saturating_sub(count)..];
        format!("{}\n…\n{}", drawn.join("\n"), last.join("\n"))
    }

    fn note(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    fn step(&mut self) -> Result<(), Violation> {
        let step = self.habits.step(&mut self.rng);
        self.note(format!("{step:?} at change {}", self.disk.changes()));
        match step {
            Step::Write => self.write(),
            Step::Read => self.read(),
            Step::List => self.list(),
            Step::Settle => self.background(E::settle),
            Step::Maintain => self.maintain(),
            Step::Reopen => {
                self.engine = None;
                self.reopen()
            }
            Step::Kill => {
                self.disk.kill();
                self.reopen()
            }
            Step::CrashNow => {
                self.disk.crash();
                self.reopen()
            }
            Step::CrashSoon => {
                let nth = self.rng.between(1, 60);
                self.disk.crash_after(nth);
                Ok(())
            }
            Step::FailSoon => {
                let fault = *self
                    .rng
                    .pick(&[Fault::Sync, Fault::Sync, Fault::Write, Fault::SyncDir, Fault::Name]);
                let nth = self.rng.between(1, 10);
                self.disk.fail(fault, nth);
                Ok(())
            }
            Step::Fill => self.fill_or_empty(),
            Step::Wait => {
                self.wait();
                Ok(())
            }
        }
    }

    /// The wall clock moves, mostly on, sometimes far, sometimes back.
    fn wait(&mut self) {
        self.now = match self.rng.below(10) {
            0 => WallMs(self.now.0 + 2 * 60 * 60 * 1000),
            1 => WallMs(self.now.0.saturating_sub(self.rng.below(60_000))),
            _ => WallMs(self.now.0 + self.rng.below(10_000)),
        };
        self.latest = self.latest.max(self.now);
    }

    fn fill_or_empty(&mut self) -> Result<(), Violation> {
        if self.rng.percent(50) {
            let room = self.rng.below(100_000);
            self.disk.set_capacity(self.disk.used_bytes() + room);
            self.note(format!("only {room} bytes are free"));
            return Ok(());
        }
        self.disk.set_capacity(u64::MAX);
        let opens = self.opens;
        self.background(E::settle)?;
        if self.opens != opens {
            return Ok(());
        }
        // There is space again: the engine notices by itself.
        let place = self.rng.pick(&self.places).clone();
        let add = self.draw_add(&place);
        match self.send(&place, &add) {
            Ok(answer) => self.commit(vec![(place, add, answer)]),
            Err(Refusal::TooLong) => self.check_too_long(&place, &add),
            Err(Refusal::DiskFull) => Err(Violation("adds are refused although space came back".into())),
            Err(Refusal::Failed(why)) => self.lost(vec![(place, add, Added::Appended)], &why),
        }
    }

    fn background(&mut self, work: impl FnOnce(&mut E, WallMs) -> Result<(), Refusal>) -> Result<(), Violation> {
        let now = self.now;
        match work(self.engine(), now) {
            Ok(()) => Ok(()),
            Err(refusal) => self.lost(Vec::new(), &format!("{refusal:?}")),
        }
    }

    fn maintain(&mut self) -> Result<(), Violation> {
        for _ in 0..self.rng.between(1, 20) {
            let mut busy = false;
            self.background(|engine, now| {
                busy = engine.maintain(now)?;
                Ok(())
            })?;
            if !busy {
                break;
            }
        }
        Ok(())
    }

    /// Opens what is on the disk, through further crashes if some are planned, and looks at everything.
    fn reopen(&mut self) -> Result<(), Violation> {
        self.engine = None;
        for _ in 0..REOPENS_MAX {
            self.mount = self.disk.mount();
            let seed = self.rng.next();
            // Also of what a crash left, with its torn end.
            if self.opening.percent(CRASH_IN_OPEN_PERCENT) {
                let nth = self.opening.between(1, 40);
                self.disk.crash_after(nth);
                self.note(format!("a crash within {nth} changes"));
            }
            match E::open(self.mount.clone(), Path::new(DATA_DIR), &self.tuning, seed, self.now) {
                Ok(engine) => {
                    self.engine = Some(engine);
                    self.opens += 1;
                    return self.look_at_everything();
                }
                Err(refusal) => self.note(format!("open: {refusal:?}")),
            }
            if !self.disk.is_dead(&self.mount) {
                // A planned fault, or a full disk: both pass.
                self.disk.cancel_faults();
                self.disk.set_capacity(u64::MAX);
            }
        }
        Err(Violation("the engine does not open any more".into()))
    }

    fn engine(&mut self) -> &mut E {
        self.engine.as_mut().expect("between steps the engine is open")
    }

    fn model(&mut self, place: &Place) -> &mut KeyModel {
        self.keys.entry(place.clone()).or_default()
    }
}

fn about(place: &Place, violation: Violation) -> Violation {
    Violation(format!("{place:?}: {}", violation.0))
}

/// A few users with a few keys, the same for all; the names are such that their ends could be confused.
fn places(rng: &mut Rng) -> Vec<Place> {
    let users = &["a", "ab", "user"][..rng.between(1, 3) as usize];
    let keys = [
        "k",
        "bk",
        "b",
        "key with spaces",
        "\u{0}",
        "ключ",
        "zz",
        "k0",
        "k1",
        "k2",
    ];
    let keys = &keys[..rng.between(1, keys.len() as u64) as usize];
    let pairs = users.iter().flat_map(|user| keys.iter().map(move |key| (user, key)));
    pairs
        .map(|(user, key)| Place {
            user: UserId::new(user).expect("a short name"),
            key: Key::new(key).expect("a short key"),
        })
        .collect()
}
