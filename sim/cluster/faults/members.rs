//! Members that are lost for good, and machines that begin anew.

use crate::cluster::history::Loss;
use crate::cluster::net::HostId;
use crate::cluster::world::World;

/// How long a machine is down that is emptied on purpose.
const EMPTYING_US: u64 = 500_000;

impl World {
    /// The machine burns down with its disk. Another one with an empty disk is started in its place, at another address, so that nobody takes
    /// the new node for the lost one: an operator has to say so (`workload::operator`).
    pub(super) fn lose_member(&mut self, id: HostId, now_us: u64, back_us: u64) {
        self.power_off(id, back_us);
        let node = &mut self.nodes[usize::from(id.0)];
        node.stand_elsewhere();
        let peer = node.peer;
        self.faults.images.remove(&id);
        self.faults.running_images.remove(&id);
        self.recorder.lost_disk(id.0, Loss::All);
        self.shared.machines.lose(id, peer, now_us);
    }

    /// An operator empties the disk of a node that was removed, while nobody has stored anything; or of one that was lost and has no place yet.
    pub fn empty(&mut self, id: HostId, now_us: u64) {
        self.power_off(id, now_us + EMPTYING_US);
        self.nodes[usize::from(id.0)].disk.wipe();
        self.faults.running_images.remove(&id);
        if self.faults.is_begun() {
            self.recorder.lost_disk(id.0, Loss::All);
        }
    }
}
