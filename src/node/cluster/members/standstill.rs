//! A member that said that it holds no user data takes none for a moment: whoever asked is about to change who holds which slot.
//!
//! Where each slot has one replica, a member that goes by the table from before the change may hold a slot alone by its own table that is another
//! one's by now. What it took then would be acknowledged, and not be found before it was brought to that one (`catch_up::offer`). Where there are more
//! replicas, whoever comes in copies from those that stay, and a quorum of the new ones meets every quorum of the old ones (`lives::named`); what was acknowledged at
//! `one` is brought to them in the same way.
//!
//! Invariant: a user's write that is acknowledged here was carried out before this node said that it holds none, and then it did not say so, or by
//! the table that came after; unless that takes longer than `STANDSTILL_MAX` to come here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::change::MemberRefused;
use super::layout::Layout;
use super::table::MemberTable;
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::at_work::{AtWork, Task};
use crate::node::local::Wanted;
use crate::node::peers::Peer;
use crate::types::NodeId;
use crate::wire::{Request, Response};

/// If the change does not come by then, it was given up, or who asked has died.
const STANDSTILL_MAX: Duration = Duration::from_secs(5);
/// A member that does not answer by then is silent.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Where members stand still, a change is made only if all have answered within this time, so that enough of theirs is left for it to come to them.
const ASKING_MAX: Duration = Duration::from_secs(1);
/// Writes that take longer are not waited for, and the answer is not given.
const WRITES_MAX: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Standstill {
    /// The table that is about to change, and until when that is waited for.
    now: Mutex<Option<(Arc<Layout>, Instant)>>,
    /// Users' writes that are being carried out here.
    writes: AtWork,
    /// Members that hold user data. They are not asked again: who held some once always counts as holding some.
    holders: Mutex<BTreeSet<NodeId>>,
}

impl Inner {
    /// Before a write is carried out here, and before it is looked at the table for it; to be held while it is.
    pub(in crate::node::cluster) fn begin_user_write(&self, wanted: &Wanted<'_>) -> Result<Option<Task>, OpError> {
        if wanted.user.is_system() || self.layout().table.replication() != 1 {
            return Ok(None);
        }
        // In this order: whoever stands still after the look waits for this.
        let task = self.members.standstill.writes.begin();
        let mut now = self.members.standstill.now.lock();
        let is_over =
            |(layout, until): &(Arc<Layout>, Instant)| Instant::now() >= *until || !Arc::ptr_eq(layout, &self.layout());
        now.take_if(|now| is_over(now));
        match *now {
            None => Ok(Some(task)),
            Some(_) => Err(OpError::NotReady(
                "a member is coming in or going; this takes a moment".to_owned(),
            )),
        }
    }

    /// Whether any user's data is here. If not, none comes here before the table changes, or was about to.
    pub(in crate::node::cluster) async fn has_data(&self) -> Result<bool, OpError> {
        let layout = self.layout();
        if self.local.holds_user_data() || layout.table.replication() != 1 {
            return Ok(self.local.holds_user_data());
        }
        let standstill = &self.members.standstill;
        *standstill.now.lock() = Some((layout, Instant::now() + STANDSTILL_MAX));
        // What lies in an open group is not seen before it is durable.
        let ended = timeout(WRITES_MAX, standstill.writes.ended()).await;
        let has_data = self.local.holds_user_data();
        if has_data || ended.is_err() {
            *standstill.now.lock() = None;
        }
        match has_data || ended.is_ok() {
            true => Ok(has_data),
            false => Err(OpError::ShardUnavailable { maybe_applied: false }),
        }
    }

    /// That no member holds user data, and none takes any for the time of a change.
    pub(super) async fn check_no_data(&self, table: &MemberTable) -> Result<(), MemberRefused> {
        let members: Vec<NodeId> = table.up().map(|(node, _)| node).collect();
        if self.local.holds_user_data()
            || members
                .iter()
                .any(|node| self.members.standstill.holders.lock().contains(node))
        {
            return Err(MemberRefused::HoldsData);
        }
        let others = members.into_iter().filter(|node| *node != self.me);
        let up = |node| {
            self.peers
                .get(node)
                .filter(|peer| peer.is_up())
                .ok_or(MemberRefused::Silent(node))
        };
        // Before anybody stands still for nothing.
        let others = others.map(up).collect::<Result<Vec<_>, _>>()?;
        let stands_still = (table.replication() == 1).then(|| Instant::now() + ASKING_MAX);
        if self.has_data().await? {
            return Err(MemberRefused::HoldsData);
        }
        let until = stands_still.unwrap_or_else(|| Instant::now() + ANSWER_MAX);
        let ask = async |peer: Peer| {
            let silent = MemberRefused::Silent(peer.node());
            let call = peer.call(Request::HasData).map_err(|_| silent.clone())?;
            match tokio::time::timeout_at(until, call).await {
                Ok(Ok(Response::HasData(false))) => Ok(()),
                Ok(Ok(Response::HasData(true))) => {
                    self.members.standstill.holders.lock().insert(peer.node());
                    Err(MemberRefused::HoldsData)
                }
                _ => Err(silent),
            }
        };
        all_at_once(others, ask).await
    }
}

/// Asks all of them at once, as the time for it does not grow with their number; gives the first refusal that comes.
async fn all_at_once<T, A: Future<Output = Result<(), MemberRefused>>>(
    whom: Vec<T>,
    ask: impl Fn(T) -> A,
) -> Result<(), MemberRefused> {
    try_join_all(whom.into_iter().map(ask)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_members_are_asked_in_the_time_that_one_takes() {
        let begun = Instant::now();
        let far = Duration::from_millis(100);
        let asked = all_at_once((0..100).collect(), async |_| {
            sleep(far).await;
            Ok(())
        });
        assert_eq!((asked.await, begun.elapsed()), (Ok(()), far));
        // Nobody waits for the rest.
        let refused = all_at_once((1..100).collect(), async |number| {
            sleep(far * number).await;
            Err(MemberRefused::Silent(NodeId(number.into())))
        });
        assert_eq!(refused.await, Err(MemberRefused::Silent(NodeId(1))));
        assert_eq!(begun.elapsed(), 2 * far);
    }
}
