//! What one run does how often.

use crate::rng::Rng;

/// How often each kind of step is taken. Each seed leaves some out: a mixture of everything hides what only long runs of few
/// things show (swarm testing).
#[derive(Debug)]
pub struct Habits {
    weights: [(Step, u64); 12],
    pub group_max: u64,
    pub big_texts: bool,
    pub clear_percent: u64,
    pub part_percent: u64,
    pub retry_percent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Write,
    Read,
    List,
    Settle,
    Maintain,
    Reopen,
    Kill,
    CrashSoon,
    CrashNow,
    FailSoon,
    Fill,
    Wait,
}

impl Habits {
    pub fn draw(rng: &mut Rng) -> Self {
        let mut weight = |usual: u64| if rng.percent(25) { 0 } else { rng.between(1, usual) };
        let weights = [
            (Step::Write, 40),
            (Step::Read, weight(10)),
            (Step::List, weight(4)),
            (Step::Settle, weight(2)),
            (Step::Maintain, weight(10)),
            (Step::Reopen, weight(3)),
            (Step::Kill, weight(3)),
            (Step::CrashSoon, weight(6)),
            (Step::CrashNow, weight(3)),
            (Step::FailSoon, weight(3)),
            (Step::Fill, weight(3)),
            (Step::Wait, weight(5)),
        ];
        Self {
            weights,
            group_max: *rng.pick(&[1, 3, 6]),
            big_texts: rng.percent(30),
            clear_percent: *rng.pick(&[0, 2, 10, 30]),
            part_percent: *rng.pick(&[0, 20, 60]),
            retry_percent: *rng.pick(&[0, 10, 40]),
        }
    }

    pub fn step(&self, rng: &mut Rng) -> Step {
        let mut left = rng.below(self.weights.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in self.weights {
            if left < weight {
                return step;
            }
            left -= weight;
        }
        Step::Write
    }
}
