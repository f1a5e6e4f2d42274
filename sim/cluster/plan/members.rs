//! Who is lost for good, removed and replaced.

use super::{Fault, Plan, SECOND_US, Topology};
use crate::rng::Rng;

impl Plan {
    /// Clusters in which members are lost for good, among whatever else goes wrong.
    pub fn members(rng: &mut Rng) -> Self {
        let nodes = *rng.pick(&[2, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
        let mut plan = Self::draw(rng, Topology::Cluster, nodes);
        plan.replication = plan.replication.max(2);
        plan.lossy_nodes = plan.replication / 2;
        plan.has_guests = !plan.clears_all && rng.percent(30);
        plan.leaves = rng.percent(30).then(|| rng.below(nodes.into()) as u8);
        plan.faults.push((Fault::MemberLost, rng.between(5, 15) * SECOND_US));
        plan
    }

    /// In some swarms.
    pub(super) fn draw_member_changes(&mut self, apart: &mut Rng) {
        if self.lossy_nodes > 0 && apart.percent(25) {
            let mean_us = apart.between(5, 20) * SECOND_US;
            self.faults.push((Fault::MemberLost, mean_us));
        }
        if self.nodes > 1 && apart.percent(10) {
            self.leaves = Some(apart.below(self.nodes.into()) as u8);
        }
    }

    pub fn loses_members(&self) -> bool {
        self.faults.iter().any(|(fault, _)| *fault == Fault::MemberLost)
    }

    /// Whether somebody changes who belongs to the cluster.
    pub fn has_operator(&self) -> bool {
        self.leaves.is_some() || self.loses_members()
    }
}
