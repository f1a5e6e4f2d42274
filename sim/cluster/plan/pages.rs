//! How large the pages between nodes are: as usual, all that a run writes goes into one.

use kv_storage::node::Pages;

use super::Plan;
use crate::rng::Rng;

/// Less than most texts.
const SMALL_PAGE_BYTES: usize = 200;

impl Plan {
    /// The pages of a swarm.
    pub fn draw_pages(&mut self, rng: &mut Rng) {
        let usual = Pages::default();
        let pages = &mut self.bounds.node.pages;
        pages.key_bytes = *rng.pick(&[SMALL_PAGE_BYTES, 4 << 10, usual.key_bytes]);
        pages.reader_bytes = *rng.pick(&[SMALL_PAGE_BYTES, 4 << 10, usual.reader_bytes]);
        pages.pull_bytes = *rng.pick(&[SMALL_PAGE_BYTES, 4 << 10, usual.pull_bytes]);
        pages.portion_bytes = *rng.pick(&[SMALL_PAGE_BYTES, 4 << 10, usual.portion_bytes]);
        // A reader elsewhere asks for one page after the other, and where lines lose packets each may take a while: several long lists,
        // read one after the other, would come in no client's time.
        if pages.reader_bytes == SMALL_PAGE_BYTES && self.link.loss_percent > 0 {
            self.load.batch_percent = 0;
        }
    }
}
