//! What an operator may ask for by mistake. All of it must be refused, whatever the node that is asked knows.

use super::Operator;
use super::table::{Member, Seen};
use crate::cluster::history::{History, Level, What};

/// Nobody has this id.
const NOBODY: &str = "00000000000000ab";

impl Operator {
    /// One of them, of a node that says what it knows.
    pub(super) async fn ask_wrongly(&mut self) -> Result<(), String> {
        let node = self.draw_node();
        let Some(seen) = self.look(node, false).await? else {
            return Ok(());
        };
        let (Some(up), true) = (self.pick(seen.up()), seen.ids().contains(&seen.own)) else {
            return Ok(());
        };
        let new = self.pick(seen.joining());
        let kind = match new {
            Some(_) => self.rng.below(5),
            None => self.rng.below(7),
        };
        let new = new.map_or(NOBODY.to_owned(), |new| new.node);
        match kind {
            // Its place is another one's by now.
            0 | 1 => {
                let Some(removed) = self.pick(seen.removed()) else {
                    return Ok(());
                };
                self.ask_for_wrong(node, &removed.node, &new).await
            }
            // The one that is asked is there.
            2 => self.ask_for_wrong(node, &seen.own, &new).await,
            3 => {
                let nobody = *self.rng.pick(&[NOBODY, "nobody"]);
                self.ask_for_wrong(node, nobody, &new).await
            }
            // A member has its place already.
            4 => {
                let taken = self.pick(seen.up().filter(|other| other.node != up.node));
                let Some(taken) = taken else { return Ok(()) };
                self.ask_for_wrong(node, &up.node, &taken.node).await
            }
            5 => self.ask_for_wrong(node, &up.node, NOBODY).await,
            _ => self.ask_to_remove_holder(node, &seen).await,
        }
    }

    async fn ask_for_wrong(&mut self, node: u8, old: &str, new: &str) -> Result<(), String> {
        self.ask(node, old, Some(new), true).await.map(drop)
    }

    fn pick<'a>(&mut self, members: impl Iterator<Item = &'a Member>) -> Option<Member> {
        let members: Vec<&Member> = members.collect();
        (!members.is_empty()).then(|| (*self.rng.pick(&members)).clone())
    }

    /// While there is user data, nobody goes. The node that is asked is there itself, so nobody has taken its place.
    async fn ask_to_remove_holder(&mut self, node: u8, seen: &Seen) -> Result<(), String> {
        let mut holds_data = false;
        self.shared
            .recorder
            .change(|history| holds_data = is_data_held(history));
        if !holds_data {
            return Ok(());
        }
        self.ask(node, &seen.own, None, true).await.map(drop)
    }
}

/// Whether something lies on a quorum: on one disk, at least, that was not lost. What was cleared counts.
fn is_data_held(history: &History) -> bool {
    let mut calls = history.calls.iter();
    calls.any(|call| matches!(call.what, What::Add { .. }) && call.level >= Level::Quorum && call.answer().is_some())
}
