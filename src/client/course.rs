//! The way of one request through the nodes: the next one when a try fails, a second one beside it when nothing comes, rounds with
//! growing pauses when all have failed, but for those that are silent still. One that answers wrongly is not asked again.
//!
//! Invariants:
//! - a request that may have taken effect is tried again only when its sender said that this is safe; and at two nodes at the same time only
//!   when it said that too;
//! - a change is not told to have failed while a try of it is at work, and not without doubt when one may have taken effect.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::{ClientError, unconnected};
use super::failures::Failures;
use super::nodes::Nodes;
use super::notice::{Notice, Waiting};
use super::repeat::{Again, Patience, Repeat, pause};
use super::upload::Progress;
use crate::planted::{Bug, planted};

/// When a small request has no answer so long after it was sent, and its node answered nothing else meanwhile, it goes to the next node too.
const HEDGE_AFTER: Duration = Duration::from_millis(300);
/// A node that answers others meanwhile is slow, not gone: it is given longer, so that a load that is too much is not doubled.
const HEDGE_AFTER_LIVELY: Duration = Duration::from_millis(1_000);
/// Longer bodies are given longer: this much for each KiB.
const HEDGE_AFTER_KIB: Duration = Duration::from_millis(1);

pub(super) struct Course<'a> {
    nodes: &'a Nodes,
    repeat: Repeat<'a>,
    patience: Patience,
    /// What the body's size adds to the time after which the next node is asked too.
    allowance: Duration,
    /// Nodes that were not tried in this round, the next one last.
    untried: Vec<usize>,
    round: u32,
    /// Rounds since then beside a try that is silent. They are not counted: it is waited for anyway.
    beside: u32,
    /// Nodes that answered wrongly.
    given_up: Vec<usize>,
    failures: Failures,
    /// Nodes that a try is under way at, and how far its body has come.
    running: Vec<(usize, Progress)>,
    /// When the next round begins beside these.
    again_at: Option<Instant>,
    /// The node of the youngest try, when it began, and how far its body has come.
    youngest: (usize, Instant, Progress),
    /// Who is to hear what it waits for, and when.
    notice: Option<(&'a Notice, Instant)>,
}

impl<'a> Course<'a> {
    pub fn new(
        nodes: &'a Nodes,
        repeat: Repeat<'a>,
        patience: Patience,
        body_bytes: usize,
        notice: Option<&'a Notice>,
    ) -> Self {
        Self {
            nodes,
            patience,
            notice: notice.map(|notice| (notice, Instant::now() + notice.after)),
            allowance: HEDGE_AFTER_KIB * u32::try_from(body_bytes / 1024).unwrap_or(u32::MAX),
            untried: nodes.order(),
            round: 1,
            beside: 0,
            given_up: Vec::new(),
            failures: Failures::new(repeat.changes),
            repeat,
            running: Vec::new(),
            again_at: None,
            youngest: (0, Instant::now(), Progress::begin()),
        }
    }

    /// Tries until one succeeds. `attempt` is given the number of a node, and is to note there how far it has come with the body.
    pub async fn run<T, F: Future<Output = Result<T, ClientError>>>(
        mut self,
        attempt: impl Fn(usize, Progress) -> F,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.patience.deadline;
        match timeout_at(deadline, self.try_all(attempt)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.too_late()),
        }
    }

    async fn try_all<T, F: Future<Output = Result<T, ClientError>>>(
        &mut self,
        attempt: impl Fn(usize, Progress) -> F,
    ) -> Result<T, ClientError> {
        let mut running = FuturesUnordered::new();
        let begin = |(node, progress): (usize, Progress)| {
            let tried = attempt(node, progress);
            async move { (node, tried.await) }
        };
        loop {
            if running.is_empty() {
                running.extend(self.next_node().map(begin));
            }
            let (hedge_at, again_at) = (self.hedge_at(), self.again_at);
            let notice_at = self.notice.map(|(_, at)| at);
            let (node, outcome) = tokio::select! {
                biased;
                Some(ended) = running.next() => ended,
                () = sleep_until(hedge_at), if self.may_hedge() => {
                    // The node may have answered something since.
                    if self.hedge_at() > Instant::now() {
                        continue;
                    }
                    self.nodes.avoid(self.youngest.0);
                    running.extend(self.next_node().map(begin));
                    continue;
                }
                () = sleep_until(again_at.unwrap_or(hedge_at)), if again_at.is_some() => {
                    self.beside += 1;
                    self.begin_round();
                    running.extend(self.next_node().map(begin));
                    continue;
                }
                () = sleep_until(notice_at.unwrap_or(hedge_at)), if notice_at.is_some() => {
                    self.give_notice();
                    continue;
                }
            };
            self.running.retain(|(other, _)| *other != node);
            match outcome {
                Ok(answer) => {
                    self.nodes.prefer(node);
                    // Of a batch, the answer may tell that something was not done that another one is about to do.
                    if self.sent_to().is_some() {
                        self.tell_doubt();
                    }
                    return Ok(answer);
                }
                Err(error) => self.note(node, error),
            }
            if self.failures.refused().is_some() {
                // A read that another one answers after all has no effect that could be missed.
                if running.is_empty() || !self.repeat.changes {
                    return Err(self.failure());
                }
            } else if let Some(next) = self.next_node() {
                running.push(begin(next));
            } else if running.is_empty() {
                self.next_round().await?;
            } else if self.may_go_round() {
                let failed = self.failure();
                let pause = pause(self.round + self.beside, self.failures.last().unwrap_or(&failed));
                self.again_at = Some(Instant::now() + pause);
            }
        }
    }

    fn next_node(&mut self) -> Option<(usize, Progress)> {
        let node = self.untried.pop()?;
        let progress = Progress::begin();
        self.youngest = (node, Instant::now(), progress.clone());
        self.running.push((node, progress.clone()));
        Some((node, progress))
    }

    fn may_hedge(&self) -> bool {
        self.repeat.again == Again::AtOnce && !self.untried.is_empty()
    }

    /// Whether those that have failed can be asked again while others are silent.
    fn may_go_round(&self) -> bool {
        let has_others = self.again().len() > self.running.len();
        self.repeat.again == Again::AtOnce && has_others
    }

    /// Who can be asked in another round, the next one last.
    fn again(&self) -> Vec<usize> {
        let mut again = self.nodes.order();
        again.retain(|node| !self.given_up.contains(node));
        again
    }

    fn begin_round(&mut self) {
        self.untried = self.again();
        self.untried
            .retain(|node| !self.running.iter().any(|(running, _)| running == node));
        self.again_at = None;
        self.failures.begin_round();
    }

    fn hedge_at(&self) -> Instant {
        let (node, began, progress) = &self.youngest;
        // While it still goes up, nothing can come.
        let sent_by = progress.sent_by() + self.allowance;
        let silent_until = sent_by + HEDGE_AFTER;
        match self.nodes.last_answer(*node) {
            Some(heard) if heard >= *began => {
                let lively_until = sent_by + HEDGE_AFTER_LIVELY;
                lively_until.min(silent_until.max(heard + HEDGE_AFTER))
            }
            _ => silent_until,
        }
    }

    fn note(&mut self, node: usize, error: ClientError) {
        if error.is_in_doubt() && !planted(Bug::DoubtForgotten) {
            self.tell_doubt();
            self.failures.note_doubtful(error.clone());
        }
        if !error.is_passing() {
            if self.repeat.again != Again::AtOnce || !error.is_of_one_node() {
                return self.refuse(error);
            }
            self.nodes.avoid(node);
            self.given_up.push(node);
            return self.failures.note_wrong(error);
        }
        if self.repeat.again == Again::InTurnUnlessSilent && matches!(error, ClientError::Broken { silent: true, .. }) {
            return self.refuse(error);
        }
        self.nodes.avoid(node);
        self.failures.note_passing(error);
    }

    /// The request must not be tried again.
    fn refuse(&mut self, error: ClientError) {
        self.failures.note_refused(error);
        self.untried.clear();
        self.again_at = None;
    }

    fn tell_doubt(&self) {
        if let Some(in_doubt) = self.repeat.in_doubt {
            in_doubt.store(true, Ordering::Relaxed);
        }
    }

    async fn next_round(&mut self) -> Result<(), ClientError> {
        let failed = self.failure();
        if self.again().is_empty() {
            return Err(self.failures.wrong().unwrap_or(failed));
        }
        let unconnected = matches!(failed, ClientError::Unreachable { .. }) && !self.nodes.heard_any();
        let rounds_max = match unconnected {
            true => self.patience.rounds_max.min(self.patience.rounds_unconnected_max),
            false => self.patience.rounds_max,
        };
        if self.round >= rounds_max {
            return Err(failed);
        }
        let until = Instant::now() + pause(self.round, self.failures.last().unwrap_or(&failed));
        let notice_at = self.notice.map(|(_, at)| at).filter(|at| *at < until);
        if let Some(at) = notice_at {
            sleep_until(at).await;
            self.give_notice();
        }
        sleep_until(until).await;
        self.round += 1;
        self.beside = 0;
        self.begin_round();
        Ok(())
    }

    /// What has to be said after the tries so far.
    fn failure(&self) -> ClientError {
        self.failures.summary().unwrap_or_else(|| self.no_answer())
    }

    fn too_late(&mut self) -> ClientError {
        if self.sent_to().is_some() {
            self.tell_doubt();
            return self.failures.cut_off(self.no_answer());
        }
        for (node, _) in std::mem::take(&mut self.running) {
            self.failures
                .note_passing(unconnected(self.nodes.url(node), self.patience.deadline));
        }
        self.failure()
    }

    /// The last node that anything of a try under way was sent to.
    fn sent_to(&self) -> Option<usize> {
        let mut sent = self.running.iter().rev().filter(|(_, progress)| progress.is_begun());
        sent.next().map(|(node, _)| *node)
    }

    fn give_notice(&mut self) {
        let Some((notice, _)) = self.notice.take() else {
            return;
        };
        let failed = self
            .failures
            .refused()
            .or(self.failures.last())
            .map(ClientError::reason);
        let silent = self
            .running
            .iter()
            .map(|(node, _)| self.nodes.url(*node))
            .collect::<Vec<_>>();
        let silent = (!silent.is_empty()).then(|| format!("no answer from {} yet", silent.join(", ")));
        let why: Vec<String> = failed.into_iter().chain(silent).collect();
        notice.give(&Waiting {
            why: why.join("; "),
            deadline: self.patience.deadline,
        });
    }

    fn no_answer(&self) -> ClientError {
        let node = self.sent_to().unwrap_or(self.youngest.0);
        ClientError::Broken {
            url: self.nodes.url(node).to_owned(),
            reason: format!("none within {} s", self.patience.deadline.as_secs_f32()),
            silent: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    /// How many nodes were asked until a request of a mebibyte was answered by a node that takes of its body's `pieces` these many, a second
    /// apart, and after that takes its time.
    async fn asked(pieces: usize, taken: usize, then: Duration) -> u32 {
        let nodes = Nodes::new(&["a:1", "b:1", "c:1"].map(str::to_owned)).unwrap();
        let patience = Patience {
            rounds_max: 1,
            rounds_unconnected_max: 1,
            deadline: Duration::from_secs(3_600),
        };
        let asked = Cell::new(0);
        let attempt = |_, progress: Progress| {
            asked.set(asked.get() + 1);
            async move {
                for left in (0..pieces).rev().take(taken) {
                    sleep(Duration::from_secs(1)).await;
                    progress.note_piece(left);
                }
                sleep(then).await;
                Ok(())
            }
        };
        let course = Course::new(&nodes, Repeat::SAFE, patience, 1 << 20, None);
        course.run(attempt).await.unwrap();
        asked.get()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_up_slowly_goes_to_one_node_only() {
        assert_eq!(asked(60, 60, Duration::ZERO).await, 1);
        // What is in buffers yet goes up as slowly; and the first pause is as long as others.
        assert_eq!(asked(60, 60, Duration::from_secs(5)).await, 1);
        assert_eq!(asked(60, 1, Duration::from_secs(5)).await, 1);
        // Then it is a silence; and so it is of one that takes nothing, or no more.
        assert_eq!(asked(60, 60, Duration::from_secs(12)).await, 2);
        assert_eq!(asked(60, 0, Duration::from_secs(2)).await, 2);
        assert_eq!(asked(60, 1, Duration::from_secs(7)).await, 2);
    }
}
