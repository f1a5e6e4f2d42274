//! What a client sends that is more than one operation: batches, and values in parts.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::{Client, credentials};
use crate::cluster::client::Reply;
use crate::cluster::history::{Outcome, Place, What};
use crate::cluster::os;
use crate::cluster::plan::Topology;
use crate::cluster::record::{Asked, Recorder, user_name};

impl Client {
    /// Several operations in one request; sent again as a whole, with the same ids, until all of them are answered, or for some time.
    pub(super) async fn batch(&mut self) {
        let first = self.draw_place();
        let (node, level, batch) = (self.draw_node(first), self.draw_level(), self.shared.recorder.new_op());
        let mut ops = Vec::new();
        for at in 0..self.rng.between(1, 8) as usize {
            let drawn = self.draw_place();
            // In every second one all are of one key: what goes together is to be met.
            let place = match batch % 2 {
                0 => first,
                _ => Place {
                    user: first.user,
                    ..drawn
                },
            };
            let what = match self.draw_what() {
                What::Page { .. } | What::List(_) => What::Get,
                what => what,
            };
            if self.draw_node(place) != node && self.shared.plan.topology == Topology::Separate {
                continue;
            }
            ops.push(Asked {
                node,
                level,
                batch: Some((batch, at)),
                ..self.draw_op(place, what)
            });
        }
        let hours = self.shared.recorder.hours();
        for _ in 0..self.rng.between(1, self.shared.plan.load.attempts_max) {
            let is_answered = self.try_batch(&ops).await;
            // After an hour it may be new to the nodes.
            if is_answered || self.shared.recorder.hours() != hours {
                return;
            }
            sleep(Duration::from_millis(self.rng.between(1, 300))).await;
            let node = self.draw_node(first);
            ops.iter_mut().for_each(|asked| asked.node = node);
        }
    }

    /// Whether all of it was answered.
    async fn try_batch(&mut self, ops: &[Asked]) -> bool {
        let Some(first) = ops.first() else { return true };
        let began_us = os::now_us();
        let outcomes = match &self.product {
            Some(product) => product.batch(ops).await,
            None => self.ask_for_batch(first.node, ops).await,
        };
        let is_answered = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Answered(_)));
        for (asked, outcome) in ops.iter().zip(outcomes) {
            self.shared.recorder.end(asked.clone(), began_us, outcome);
        }
        is_answered
    }

    /// All of one user, at one level.
    async fn ask_for_batch(&mut self, node: u8, ops: &[Asked]) -> Vec<Outcome> {
        let recorder = self.shared.recorder.clone();
        let operations: Vec<Json> = ops.iter().map(|asked| operation(&recorder, asked)).collect();
        let Some(first) = ops.first() else {
            return Vec::new();
        };
        let body = json!({
            "operations": operations,
            "consistency": first.level.name(),
            "user": credentials(&user_name(first.place.user)),
        });
        let reply = self.http.call(node, "/batch", &body).await;
        let each = ops.iter().enumerate().map(|(at, asked)| match &reply {
            Reply::Status(200, body) => {
                let result = &body["results"][at];
                let status = result["status_code"].as_u64().unwrap_or(0);
                recorder.answer(&asked.what, status as u16, result)
            }
            reply => recorder.outcome(&asked.what, reply),
        });
        each.collect()
    }

    /// One value of several texts, through the product's client, which cuts it between them; until it is told to be there, or for some time.
    pub(super) async fn add_in_parts(&mut self) {
        let (place, level, batch) = (self.draw_place(), self.draw_level(), self.shared.recorder.new_op());
        let (count, bytes) = (self.rng.between(2, 4) as usize, self.shared.plan.product.part_bytes);
        let mut parts = Vec::new();
        for at in 0..count {
            let text = self.shared.recorder.new_text_of(bytes);
            let finish = at + 1 == count;
            parts.push(Asked {
                level,
                // As a batch they stand in this order.
                batch: Some((batch, at)),
                // The others have ids that come from this one's.
                with_id: at == 0,
                ..self.draw_op(place, What::Add { text, finish })
            });
        }
        let hours = self.shared.recorder.hours();
        for _ in 0..self.rng.between(1, self.shared.plan.load.attempts_max) {
            let Some(product) = &self.product else { return };
            let began_us = os::now_us();
            let outcome = product.add_in_parts(&parts).await;
            for part in &parts {
                self.shared.recorder.end(part.clone(), began_us, outcome.clone());
            }
            // After an hour it may be new to the nodes.
            if matches!(outcome, Outcome::Answered(_)) || self.shared.recorder.hours() != hours {
                return;
            }
            sleep(Duration::from_millis(self.rng.between(1, 300))).await;
        }
    }
}

pub(super) fn operation(recorder: &Recorder, asked: &Asked) -> Json {
    let (path, mut body) = recorder.request(asked);
    body["op"] = path.trim_start_matches('/').into();
    body
}
