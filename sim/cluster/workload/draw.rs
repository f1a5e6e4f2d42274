//! What a client does next, drawn by its random numbers.

use kv_storage::api::DEADLINE_MS_DEFAULT;

use super::{AUDITOR_ID, Client, home};
use crate::cluster::history::{ANY_NODE, Level, Place, What};
use crate::cluster::listing::Listing;
use crate::cluster::plan::Topology;
use crate::cluster::record::Asked;

impl Client {
    pub(super) fn draw_place(&mut self) -> Place {
        let load = &self.shared.plan.load;
        let (users, keys) = (load.users, load.keys);
        // One key is hot.
        let key = if self.rng.percent(40) {
            0
        } else {
            self.rng.below(keys.into()) as u8
        };
        Place {
            user: self.rng.below(users.into()) as u8,
            key,
        }
    }

    pub(super) fn draw_level(&mut self) -> Level {
        let load = &self.shared.plan.load;
        let (one, all) = (load.one_percent, load.all_percent);
        match self.rng.below(100) {
            draw if draw < one => Level::One,
            draw if draw < one + all => Level::All,
            _ => Level::Quorum,
        }
    }

    pub(super) fn draw_what(&mut self) -> What {
        let load = self.shared.plan.load.clone();
        if self.rng.percent(load.clear_percent) {
            return What::Clear;
        }
        match self.rng.below(100) {
            0..55 => What::Add {
                text: self
                    .shared
                    .recorder
                    .new_text(match self.rng.percent(load.long_percent) {
                        true => self.rng.below(load.text_bytes_max),
                        false => self.rng.below(load.text_bytes_max.min(30)),
                    }),
                finish: !self.rng.percent(load.part_percent),
            },
            55..85 => What::Get,
            85..90 => What::Page {
                offset: self.rng.below(12),
                limit: self.rng.between(1, 5),
            },
            90..95 => What::Count,
            _ => What::List(Listing {
                // The names of some begin with that of this one.
                prefix: self.rng.percent(30).then_some(1),
                after: None,
                limit: self.rng.percent(50).then(|| self.rng.between(1, 5)),
            }),
        }
    }

    pub fn draw_node(&mut self, place: Place) -> u8 {
        match self.shared.plan.topology {
            Topology::Separate => home(&self.shared.plan, place),
            Topology::Cluster if self.product.is_some() => ANY_NODE,
            Topology::Cluster => self.rng.below(self.shared.plan.nodes.into()) as u8,
        }
    }

    pub fn draw_op(&mut self, place: Place, what: What) -> Asked {
        let usual_ms = match &self.product {
            Some(_) => self.shared.plan.product.deadline_ms.unwrap_or(DEADLINE_MS_DEFAULT),
            None => DEADLINE_MS_DEFAULT,
        };
        let deadline_ms = match what {
            What::Clear if self.id != AUDITOR_ID => self.shared.plan.clear_deadline_ms,
            _ => usual_ms,
        };
        Asked {
            op: self.shared.recorder.new_op(),
            client: self.id,
            node: self.draw_node(place),
            place,
            with_id: what.is_write(),
            what,
            level: self.draw_level(),
            batch: None,
            deadline_ms,
            is_last: false,
        }
    }
}
