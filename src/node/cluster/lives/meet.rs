//! Meeting the lives of others: whether one that introduces itself runs on an older copy of its disk.

use super::file::Life;
use crate::core::clock::SlotClocks;
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::clocks::Finding;
use crate::planted::{Bug, planted};
use crate::types::NodeId;
use crate::wire::Response;

impl Inner {
    /// A peer comes in this life, on a new connection.
    pub(in crate::node::cluster) async fn meet(
        &self,
        (from, connection): (NodeId, u64),
        starts: u64,
        life: u64,
    ) -> Response {
        self.note_introduced(from);
        let table = self.layout().table.clone();
        let named = Life { starts, origin: life };
        let is_gone = |node| node != from && table.is_removed(node);
        let met = self.lives.file.meet(&self.env, from, named, is_gone).await;
        if matches!(met, Response::OlderCopy { .. }) {
            self.clocks.meet_older_copy(from, connection);
            return met;
        }
        match self.clocks.begin_life(from, life, connection) {
            true => Response::OlderCopy { starts },
            false => met,
        }
    }

    /// A peer has told its clocks, and asks whether it told more before.
    pub(in crate::node::cluster) async fn judge(&self, (from, connection): (NodeId, u64)) -> Result<Response, OpError> {
        let sound = Response::Clocks(Vec::new());
        let missing = match self.clocks.finding(from, connection) {
            Finding::Sound => SlotClocks::default(),
            Finding::Lacks(missing) => missing,
            Finding::Untold => return Err(OpError::ShardUnavailable { maybe_applied: false }),
        };
        let is_set_back = !planted(Bug::SetBackUnnoticed) && self.lacks_what_it_should_hold(from, &missing).await?;
        // What was found may be of a life before the one that came meanwhile.
        match self.clocks.finding(from, connection) {
            Finding::Untold => return Err(OpError::ShardUnavailable { maybe_applied: false }),
            Finding::Lacks(now) if now != missing => return Err(OpError::ShardUnavailable { maybe_applied: false }),
            _ => {}
        }
        self.clocks.end_review(from, is_set_back);
        self.lives.judged.lock().remove(&from);
        if !is_set_back {
            return Ok(sound);
        }
        tracing::warn!(node = %from, ops = missing.count(), "a member's disk was set back: it lacks what it told to be durable");
        let starts = self.lives.file.starts_of(from);
        Ok(Response::OlderCopy { starts })
    }

    /// The same as `should_be_held`, looked at once for the peer: it asks again long before a large disk is read, and must not have it read by several at once.
    pub(super) async fn lacks_what_it_should_hold(&self, peer: NodeId, missing: &SlotClocks) -> Result<bool, OpError> {
        // It waits for nothing that is looked at for its former life.
        if missing.is_empty() {
            return Ok(false);
        }
        let judged = self.lives.judged.lock().entry(peer).or_default().clone();
        let mut judged = judged.lock().await;
        if let Some((before, is_held)) = &*judged
            && before == missing
        {
            return Ok(*is_held);
        }
        let is_held = self.should_be_held(missing).await?;
        *judged = Some((missing.clone(), is_held));
        Ok(is_held)
    }

    /// Whether one who held these dots has to hold one of them still. What it took for dropped, because others had cleared it, it may
    /// not have noted durably; that is covered here, and gone.
    pub(in crate::node::cluster) async fn should_be_held(&self, dots: &SlotClocks) -> Result<bool, OpError> {
        if dots.is_empty() {
            return Ok(false);
        }
        let mut held = self.local.ops_with(dots)?;
        while let Some(ops) = held.next(1).await? {
            if !ops.is_empty() {
                return Ok(true);
            }
        }
        Ok(!self.local.all_clocks()?.covers(dots))
    }
}
