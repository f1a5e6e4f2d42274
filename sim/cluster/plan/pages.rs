//! How large the pages between nodes are: as usual, all that a run writes goes into one.

use kv_storage::node::Pages;

use super::Plan;
use crate::rng::Rng;

impl Plan {
    /// The pages of a swarm.
    pub fn draw_pages(&mut self, rng: &mut Rng) {
        let usual = Pages::default();
        let pages = &mut self.bounds.node.pages;
        pages.key_bytes = *rng.pick(&[200, 4 << 10, usual.key_bytes]);
        pages.reader_bytes = *rng.pick(&[200, 4 << 10, usual.reader_bytes]);
        pages.pull_bytes = *rng.pick(&[200, 4 << 10, usual.pull_bytes]);
        pages.portion_bytes = *rng.pick(&[200, 4 << 10, usual.portion_bytes]);
    }
}
