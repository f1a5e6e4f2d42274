//! Adds to one key that follow each other in a batch: they go together.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{Act, Step};
use crate::http::Terms;
use crate::http::backend::Backend;
use crate::http::request::Submitted;
use crate::node::series::together;
use crate::node::{Add, Added, OpError};
use crate::types::{Key, UserId};

/// So many go together at most.
pub const ADDS_MAX: usize = 64;

/// How many adds, on the same terms, stand first.
pub fn first_of(steps: &VecDeque<Step<'_>>, max: usize) -> usize {
    let terms = steps.front().map(|step| (step.consistency, step.patience));
    let belongs =
        |step: &&Step<'_>| matches!(step.act, Act::Add { .. }) && terms == Some((step.consistency, step.patience));
    let first = steps.iter().take(max).take_while(belongs);
    together(first.map(|step| step.act.text_bytes()))
}

/// Carries out several adds, or as many of them as go together: the first ones.
pub async fn add<'s, B: Backend>(
    submitted: &Submitted<'_, B>,
    user: &UserId,
    key: &Key,
    steps: impl ExactSizeIterator<Item = &'s Step<'s>>,
) -> Vec<Result<Added, OpError>> {
    if steps.len() < 2 {
        return Vec::new();
    }
    let mut terms = None;
    let mut adds = Vec::with_capacity(steps.len());
    for step in steps {
        terms = Some(Terms {
            consistency: step.consistency,
            deadline: Instant::now() + step.patience,
        });
        if let Act::Add {
            value,
            finish,
            request_id,
        } = &step.act
        {
            adds.push(Add {
                text: submitted.text(value.clone()),
                finish: *finish,
                request_id: *request_id,
            });
        }
    }
    match terms {
        Some(terms) => submitted.front.backend.add_series(user, key, adds, terms).await,
        None => Vec::new(),
    }
}
