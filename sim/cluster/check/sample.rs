//! Small histories, written by hand, for the tests of the checks.
#![cfg(test)]

use kv_storage::api::DEADLINE_MS_DEFAULT;
use kv_storage::core::op::Dot;
use kv_storage::core::slot::SlotId;
use kv_storage::core::stamp::{HybridTime, OriginId};

use crate::cluster::history::{
    Answer, Call, HeldKind, HeldOp, History, Level, Loss, LostDisk, OpId, Outcome, Place, Survey, TextId, Trouble,
    Value, What,
};
use crate::cluster::listing::Listing;
use crate::cluster::survey::clocks;

pub const PLACE: Place = Place { user: 0, key: 0 };

/// Built call by call; moments are microseconds.
#[derive(Default)]
pub struct Sample {
    pub history: History,
    next_op: OpId,
}

pub fn sample() -> Sample {
    let mut sample = Sample::default();
    sample.history.replicas = 3;
    sample
}

impl Sample {
    fn call(mut self, what: What, times: (u64, u64), outcome: Outcome) -> Self {
        self.next_op += 1;
        self.history.calls.push(Call {
            op: self.next_op,
            client: 0,
            node: 0,
            place: PLACE,
            what,
            level: Level::Quorum,
            batch: None,
            deadline_ms: DEADLINE_MS_DEFAULT,
            with_id: false,
            began_us: times.0,
            ended_us: times.1,
            outcome,
            is_last: false,
        });
        self
    }

    /// Changes the call that was made last.
    pub fn with(mut self, change: impl FnOnce(&mut Call)) -> Self {
        change(self.history.calls.last_mut().expect("a call was made before"));
        self
    }

    pub fn add(self, text: TextId, began: u64, ended: u64) -> Self {
        self.call(
            What::Add { text, finish: true },
            (began, ended),
            Outcome::Answered(Answer::Ok),
        )
    }

    pub fn part(self, text: TextId, began: u64, ended: u64) -> Self {
        self.call(
            What::Add { text, finish: false },
            (began, ended),
            Outcome::Answered(Answer::Ok),
        )
    }

    pub fn clear(self, began: u64, ended: u64) -> Self {
        self.call(What::Clear, (began, ended), Outcome::Answered(Answer::Ok))
    }

    pub fn get(self, values: &[&[TextId]], began: u64, ended: u64) -> Self {
        let values: Vec<Value> = values.iter().map(|value| value.to_vec()).collect();
        self.call(What::Get, (began, ended), Outcome::Answered(Answer::Values(values)))
    }

    pub fn count(self, count: u64, began: u64, ended: u64) -> Self {
        self.call(What::Count, (began, ended), Outcome::Answered(Answer::Count(count)))
    }

    pub fn page(self, (offset, limit): (u64, u64), values: &[&[TextId]], began: u64, ended: u64) -> Self {
        self.get(values, began, ended)
            .with(|call| call.what = What::Page { offset, limit })
    }

    pub fn list(self, keys: &[u8], began: u64, ended: u64) -> Self {
        self.list_page(Listing::default(), keys, None, began, ended)
    }

    pub fn list_page(self, listing: Listing, keys: &[u8], next: Option<u8>, began: u64, ended: u64) -> Self {
        let keys = keys.to_vec();
        self.call(
            What::List(listing),
            (began, ended),
            Outcome::Answered(Answer::Keys { keys, next }),
        )
    }

    /// The call that was made last was never answered.
    pub fn unanswered(self) -> Self {
        self.with(|call| call.outcome = Outcome::Unknown("no answer".into()))
    }

    pub fn refused(self) -> Self {
        self.with(|call| call.outcome = Outcome::Refused("refused".into()))
    }

    /// The call that was made last is one more attempt at the op before it.
    pub fn again(self) -> Self {
        self.with(|call| call.op -= 1)
    }

    pub fn last_on(self, node: u8) -> Self {
        self.with(|call| {
            call.node = node;
            call.level = Level::One;
            call.is_last = true;
        })
    }

    pub fn at(self, level: Level) -> Self {
        self.with(|call| call.level = level)
    }

    /// What a node's disk holds of these texts; each is the value of an op of its own.
    pub fn survey(mut self, node: u8, at_us: u64, texts: &[TextId]) -> Self {
        let op = |text: &TextId| HeldOp {
            name: 0,
            place: Some(PLACE),
            dot: Dot {
                origin: OriginId(1),
                slot: SlotId(0),
                seq: *text,
            },
            time: HybridTime(*text),
            request: None,
            kind: HeldKind::Value,
            digest: *text,
            text: Some(*text),
            stands: true,
        };
        self.history.surveys.push(Survey {
            at_us,
            node,
            ops: texts.iter().map(op).collect(),
            ..Survey::default()
        });
        self
    }

    /// What a node's disk covers of one origin.
    pub fn survey_of_clock(mut self, node: u8, at_us: u64, last: u64) -> Self {
        self.history.surveys.push(Survey {
            at_us,
            node,
            clocks: clocks(0, 1, last),
            ..Survey::default()
        });
        self
    }

    /// Changes the ops of the survey that was made last.
    pub fn with_held(mut self, change: impl Fn(&mut HeldOp)) -> Self {
        let survey = self.history.surveys.last_mut().expect("a survey was made before");
        survey.ops.iter_mut().for_each(change);
        self
    }

    /// The node of the survey that was made last counts itself whole.
    pub fn whole(mut self) -> Self {
        let survey = self.history.surveys.last_mut().expect("a survey was made before");
        survey.is_whole = true;
        self
    }

    pub fn lost_disk(mut self, node: u8, at_us: u64) -> Self {
        let loss = Loss::All;
        self.history.lost_disks.push(LostDisk { node, at_us, loss });
        self
    }

    pub fn trouble(mut self, node: u8, from_us: u64, to_us: u64) -> Self {
        self.history.troubles.push(Trouble {
            node: Some(node),
            from_us,
            to_us,
        });
        self
    }

    pub fn passes(&self, check: super::Check) {
        assert_eq!(check(&super::Judged::new(&self.history)), Ok(()));
    }

    pub fn fails(&self, check: super::Check) {
        assert!(
            check(&super::Judged::new(&self.history)).is_err(),
            "it should have failed"
        );
    }
}
