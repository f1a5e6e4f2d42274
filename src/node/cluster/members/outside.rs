//! What a node that does not belong refuses, and why it does not.

use super::change::MemberRefused;
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::types::UserId;

impl Inner {
    /// Refuses a client's request on a node that (1) was removed from the cluster, since it no longer hears of
    /// changed users; (2) is the only member in its table and may have an outdated one; or (3), for users' keys, sees
    /// a second cluster that may hold data that this one lacks.
    pub(in crate::node::cluster) fn refuse_if_outside(&self, user: &UserId) -> Result<(), OpError> {
        if self.layout().table.is_removed(self.me) {
            return Err(OpError::NotReady(self.why_no_member()));
        }
        if let Some(why) = self.why_unknown() {
            return Err(OpError::NotReady(why));
        }
        match self.why_other_cluster().filter(|_| !user.is_system()) {
            Some(why) => Err(OpError::NotReady(why)),
            None => Ok(()),
        }
    }

    pub(in crate::node::cluster) fn why_no_member(&self) -> String {
        if self.layout().table.is_removed(self.me) {
            return MemberRefused::Removed(self.me).to_string();
        }
        let why = self.members.why_not_in.lock().clone();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        format!("the node was not let into the cluster yet{why}")
    }

    /// Why this node takes no users' writes for others either, where the table has it and it does not belong: it has to ask to be let in again,
    /// and what it sent on to members would keep it out.
    pub(in crate::node::cluster) fn why_displaced(&self) -> Option<String> {
        let table = &self.layout().table;
        let is_displaced = table.get(self.me).is_some() && !table.is_up(self.me);
        is_displaced.then(|| self.why_no_member())
    }
}
