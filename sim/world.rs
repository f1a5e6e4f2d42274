//! One shard engine on a simulated disk, one client that does everything at random, and the model that it is held against.
//!
//! Checked after every read and every reopen: every acknowledged op is there, in order, once per request id; an unacknowledged one
//! is there as a whole or not at all, and stays as it was first seen; a cleared value never comes back; the listing of keys agrees.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kv_storage::core::op::Dot;
use kv_storage::node::Added;
use kv_storage::store::disk::Disk;
use kv_storage::types::{Key, RequestId, UserId, WallMs};

use crate::disk::{Fault, Mount, SimDisk};
use crate::engine::{DATA_DIR, Engine, Place, Refusal, Tuning};
use crate::habits::{Habits, Step};
use crate::model::{Circumstances, KeyModel, Operation, Violation};
use crate::rng::Rng;

/// A crash at every change would never let a reopen finish: so many in a row at most.
const REOPENS_MAX: usize = 20;
/// More possible worlds of one key than this are narrowed by a read before they multiply.
const WORLDS_MAX: usize = 64;

pub struct World<E> {
    rng: Rng,
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
                let fault = *self.rng.pick(&[Fault::Sync, Fault::Sync, Fault::Write, Fault::SyncDir]);
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
        let add = self.draw_add();
        match self.send(&place, &add) {
            Ok(answer) => self.commit(vec![(place, add, answer)]),
            Err(Refusal::TooLong) => self.check_too_long(&place, &add),
            Err(Refusal::DiskFull) => Err(Violation("adds are refused although space came back".into())),
            Err(Refusal::Failed(why)) => self.lost(vec![(place, add, Added::Appended)], &why),
        }
    }

    /// One group: several operations, then their commit.
    fn write(&mut self) -> Result<(), Violation> {
        let mut group: Vec<(Place, Operation, Added)> = Vec::new();
        for _ in 0..self.rng.between(1, self.habits.group_max) {
            let (place, operation) = self.draw_operation();
            if self.model(&place).worlds() > WORLDS_MAX {
                self.note("too many worlds");
                continue;
            }
            self.note(format!("{place:?} {operation:?}"));
            match self.send(&place, &operation) {
                Ok(answer) => group.push((place, operation, answer)),
                Err(Refusal::DiskFull) => self.note("disk full"),
                // What was taken before may count or not: the group is acknowledged first.
                Err(Refusal::TooLong) => {
                    let opens = self.opens;
                    self.commit(std::mem::take(&mut group))?;
                    if self.opens == opens {
                        self.check_too_long(&place, &operation)?;
                    }
                }
                Err(Refusal::Failed(why)) => {
                    group.push((place, operation, Added::Appended));
                    return self.lost(group, &why);
                }
            }
        }
        self.commit(group)
    }

    fn commit(&mut self, group: Vec<(Place, Operation, Added)>) -> Result<(), Violation> {
        let now = self.now;
        match self.engine().commit(now) {
            Ok(()) => self.acknowledge(group),
            Err(refusal) => self.lost(group, &format!("{refusal:?}")),
        }
    }

    fn send(&mut self, place: &Place, operation: &Operation) -> Result<Added, Refusal> {
        let now = self.now;
        match operation {
            Operation::Clear => self.engine().clear(place, now).map(|()| Added::Appended),
            Operation::Add { text, finish, request } => {
                let request = request.map(request_id);
                self.engine().add(place, text, *finish, request, now)
            }
        }
    }

    fn check_too_long(&mut self, place: &Place, operation: &Operation) -> Result<(), Violation> {
        self.note("too long");
        let circumstances = self.circumstances();
        let refused = self.model(place).refused_as_too_long(operation, circumstances);
        refused.map_err(|violation| about(place, violation))
    }

    fn circumstances(&self) -> Circumstances {
        Circumstances {
            now: self.now,
            latest: self.latest,
            value_bytes_max: self.tuning.value_bytes_max,
        }
    }

    fn acknowledge(&mut self, group: Vec<(Place, Operation, Added)>) -> Result<(), Violation> {
        let circumstances = self.circumstances();
        for (place, operation, answer) in group {
            let known = self.model(&place).acknowledged(&operation, answer, circumstances);
            known.map_err(|violation| about(&place, violation))?;
        }
        Ok(())
    }

    /// The engine stopped under these operations.
    fn lost(&mut self, group: Vec<(Place, Operation, Added)>, why: &str) -> Result<(), Violation> {
        self.note(format!("the engine stopped: {why}"));
        let circumstances = self.circumstances();
        for (place, operation, _) in group {
            self.model(&place).unknown(&operation, circumstances);
        }
        self.reopen()
    }

    fn read(&mut self) -> Result<(), Violation> {
        let place = self.rng.pick(&self.places).clone();
        self.read_one(&place)
    }

    fn read_one(&mut self, place: &Place) -> Result<(), Violation> {
        let now = self.now;
        match self.engine().get(place, now) {
            Ok(seen) => {
                self.check_dots(place, seen.ops)?;
                let fits = self.model(place).observed(&seen.values);
                fits.map_err(|violation| about(place, violation))
            }
            Err(refusal) => self.stopped_reading(&refusal),
        }
    }

    /// A dot names one op for ever: what was once read under it is all that it can be.
    fn check_dots(&mut self, place: &Place, ops: Vec<(Dot, String)>) -> Result<(), Violation> {
        for (dot, text) in ops {
            let named = self.dots.entry(dot).or_insert_with(|| (place.clone(), text.clone()));
            if *named != (place.clone(), text.clone()) {
                return Err(Violation(format!(
                    "{dot:?} was used twice: for {named:.80?} and for {place:?} {text:.40?}"
                )));
            }
        }
        Ok(())
    }

    fn stopped_reading(&mut self, refusal: &Refusal) -> Result<(), Violation> {
        if !self.disk.is_dead(&self.mount) {
            return Err(Violation(format!("a read failed on a disk that reads: {refusal:?}")));
        }
        self.lost(Vec::new(), &format!("{refusal:?}"))
    }

    fn list(&mut self) -> Result<(), Violation> {
        let user = self.rng.pick(&self.places).user.clone();
        let limit = self.rng.between(1, 5) as usize;
        let mut named: Vec<String> = Vec::new();
        let mut after = None;
        loop {
            let now = self.now;
            match self.engine().keys(&user, after.as_deref(), limit, now) {
                Ok((page, next)) => {
                    named.extend(page);
                    if next.is_none() {
                        break;
                    }
                    if next <= after || named.last() > next.as_ref() {
                        return Err(Violation(format!(
                            "the page of keys after {after:?} is followed by that after {next:?}"
                        )));
                    }
                    after = next;
                }
                Err(refusal) => return self.stopped_reading(&refusal),
            }
        }
        if !named.is_sorted_by(|a, b| a < b) {
            return Err(Violation(format!("a listing of {user:?} is out of order: {named:?}")));
        }
        for place in self.places.clone().into_iter().filter(|place| place.user == user) {
            let is_named = named.iter().any(|name| name == place.key.as_str());
            let seen = self.model(&place).listed(is_named);
            seen.map_err(|violation| about(&place, violation))?;
            named.retain(|name| name != place.key.as_str());
        }
        match named.as_slice() {
            [] => Ok(()),
            strange => Err(Violation(format!("{user:?} never had the keys {strange:?}"))),
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

    fn look_at_everything(&mut self) -> Result<(), Violation> {
        for place in self.places.clone() {
            let opens = self.opens;
            self.read_one(&place)?;
            // A crash on the way ended in a reopen of its own, which looked at everything.
            if self.opens != opens {
                return Ok(());
            }
        }
        Ok(())
    }

    fn draw_operation(&mut self) -> (Place, Operation) {
        if !self.requests.is_empty() && self.rng.percent(self.habits.retry_percent) {
            let back = self.rng.below(20.min(self.requests.len() as u64)) as usize;
            return self.requests[self.requests.len() - 1 - back].clone();
        }
        let place = self.rng.pick(&self.places).clone();
        if self.rng.percent(self.habits.clear_percent) {
            return (place, Operation::Clear);
        }
        let add = self.draw_add();
        if matches!(add, Operation::Add { request: Some(_), .. }) {
            self.requests.push((place.clone(), add.clone()));
        }
        (place, add)
    }

    fn draw_add(&mut self) -> Operation {
        self.texts += 1;
        Operation::Add {
            text: self.draw_text(),
            finish: !self.rng.percent(self.habits.part_percent),
            request: self.rng.percent(70).then_some(self.texts),
        }
    }

    /// No text is sent twice, so that a doubled or moved one shows.
    fn draw_text(&mut self) -> Arc<str> {
        let filler = match (self.habits.big_texts, self.rng.below(10)) {
            (true, 0) => self.rng.below(20_000),
            (_, 1) => self.rng.below(1_500),
            _ => self.rng.below(40),
        };
        let letter = *self.rng.pick(&["x", "é", "\0", "\""]);
        format!("{}:{}", self.texts, letter.repeat(filler as usize)).into()
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

fn request_id(number: u64) -> RequestId {
    RequestId::new(&number.to_string()).expect("a number is short")
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
