//! Keeps one node running until it is told to stop: starts it, and when it dies starts it again, at the same address.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};

use super::folder::{new_log, same_log};
use super::process::{NodeProcess, Program, Start, address_in};

/// Longest wait for a node to stop by itself; a little more than it allows itself.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(65);
/// Between a death and the next start: long enough to be seen.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// A node that lived for less than this died at once.
const LIVED_MIN: Duration = Duration::from_secs(10);
/// So many such deaths in a row, and it is given up.
const EARLY_DEATHS_MAX: u32 = 3;

/// What the keepers are told. It only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    No,
    InOrder,
    Kill,
}

/// What the keepers tell.
#[derive(Debug)]
pub enum Event {
    /// With the line that it printed.
    Ready { node: usize, line: String },
    /// For the person who watches.
    Died { report: String },
}

pub struct Keeper {
    start: Start,
    program: Program,
    events: mpsc::UnboundedSender<Event>,
    was_ready: bool,
    early_deaths: u32,
}

impl Keeper {
    pub fn new(start: Start, program: Program, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            start,
            program,
            events,
            was_ready: false,
            early_deaths: 0,
        }
    }

    /// Err when the node never served, when it is given up, and when it did not stop in good order.
    pub async fn keep(mut self, mut orders: watch::Receiver<Stop>) -> anyhow::Result<()> {
        let mut log = new_log(&self.start.log)?;
        loop {
            let began = Instant::now();
            let mut node = NodeProcess::spawn(&self.start, &self.program, log)?;
            let death = tokio::select! {
                biased;
                _ = orders.wait_for(|order| *order > Stop::No) => None,
                death = self.live(&mut node) => Some(death?),
            };
            let Some(death) = death else {
                return stop(node, &mut orders).await;
            };
            if !self.was_ready {
                return Err(death);
            }
            self.early_deaths = early_deaths(self.early_deaths, began.elapsed());
            if self.early_deaths >= EARLY_DEATHS_MAX {
                return Err(death.context(format!("node {} is not started again", self.start.number)));
            }
            let report = format!("{death}\nnode {} is started again", self.start.number);
            self.tell(Event::Died { report });
            tokio::select! {
                biased;
                _ = orders.wait_for(|order| *order > Stop::No) => return Ok(()),
                () = tokio::time::sleep(RESTART_AFTER) => {}
            }
            log = same_log(&self.start.log)?;
        }
    }

    /// Until its death, which it returns.
    async fn live(&mut self, node: &mut NodeProcess) -> anyhow::Result<anyhow::Error> {
        let line = match node.ready().await {
            Ok(line) => line,
            Err(death) => return Ok(death),
        };
        // Clients and peers know it there from now on.
        self.start.listen = address_in(&line)?;
        self.was_ready = true;
        let node_number = self.start.number;
        self.tell(Event::Ready {
            node: node_number,
            line,
        });
        let status = node.exited().await?;
        Ok(node.death(status))
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the run is over.
        let _ = self.events.send(event);
    }
}

/// In a row, after one that lived for so long.
fn early_deaths(before: u32, lived: Duration) -> u32 {
    if lived < LIVED_MIN { before + 1 } else { 0 }
}

async fn stop(mut node: NodeProcess, orders: &mut watch::Receiver<Stop>) -> anyhow::Result<()> {
    node.terminate();
    let in_time = tokio::select! {
        biased;
        _ = orders.wait_for(|order| *order == Stop::Kill) => None,
        waited = tokio::time::timeout(STOP_TIMEOUT, node.exited()) => waited.ok(),
    };
    let Some(status) = in_time else {
        node.kill().await?;
        let number = node.number;
        anyhow::bail!("node {number} was killed: it did not stop by itself. Nothing that it had acknowledged is lost")
    };
    let status = status?;
    if obeyed(status) {
        Ok(())
    } else {
        Err(node.death(status))
    }
}

/// The signal may have come before the node could listen for it.
fn obeyed(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(Signal::TERM.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_lived_for_long_has_all_its_tries_again() {
        assert_eq!(early_deaths(0, Duration::ZERO), 1);
        assert_eq!(early_deaths(1, LIVED_MIN / 2), 2);
        assert_eq!(early_deaths(2, LIVED_MIN), 0);
    }
}
