//! Groups of operations, drawn at random, and what is known of them then.

use std::sync::Arc;

use kv_storage::node::Added;
use kv_storage::types::RequestId;

use super::{World, about};
use crate::engine::{Engine, Place, Refusal};
use crate::model::{Circumstances, Operation, Violation};

/// More possible worlds of one key than this are narrowed by a read before they multiply.
const WORLDS_MAX: usize = 64;

impl<E: Engine> World<E> {
    /// One group: several operations, then their commit.
    pub(super) fn write(&mut self) -> Result<(), Violation> {
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

    pub(super) fn commit(&mut self, group: Vec<(Place, Operation, Added)>) -> Result<(), Violation> {
        let now = self.now;
        match self.engine().commit(now) {
            Ok(()) => self.acknowledge(group),
            Err(refusal) => self.lost(group, &format!("{refusal:?}")),
        }
    }

    pub(super) fn send(&mut self, place: &Place, operation: &Operation) -> Result<Added, Refusal> {
        let now = self.now;
        match operation {
            Operation::Clear => self.engine().clear(place, now).map(|()| Added::Appended),
            Operation::Add { text, finish, request } => {
                let request = request.map(request_id);
                self.engine().add(place, text, *finish, request, now)
            }
        }
    }

    pub(super) fn check_too_long(&mut self, place: &Place, operation: &Operation) -> Result<(), Violation> {
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
    pub(super) fn lost(&mut self, group: Vec<(Place, Operation, Added)>, why: &str) -> Result<(), Violation> {
        self.note(format!("the engine stopped: {why}"));
        let circumstances = self.circumstances();
        for (place, operation, _) in group {
            self.model(&place).unknown(&operation, circumstances);
        }
        self.reopen()
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
        let add = self.draw_add(&place);
        if matches!(add, Operation::Add { request: Some(_), .. }) {
            self.requests.push((place.clone(), add.clone()));
        }
        (place, add)
    }

    pub(super) fn draw_add(&mut self, place: &Place) -> Operation {
        self.texts += 1;
        // Other keys have the same ids.
        let number = self.adds.entry(place.clone()).or_default();
        *number += 1;
        let number = *number;
        Operation::Add {
            text: self.draw_text(),
            finish: !self.rng.percent(self.habits.part_percent),
            request: self.rng.percent(70).then_some(number),
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
}

fn request_id(number: u64) -> RequestId {
    RequestId::new(&number.to_string()).expect("a number is short")
}
