//! Many operations in one body.
//!
//! Operations on the same key are carried out in their order, each after the one before it was answered, so a get sees the
//! writes before it; but adds that follow each other go together, and share commits. Those on different keys run side by side. When a write fails, the operations on its key that follow are not
//! carried out, so that a retry of all of them keeps their order.

mod series;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::{BATCH_ANSWER_BYTES_MAX, Batch, ErrorBody, Operation, OperationTerms, OutageCode};
use crate::http::Terms;
use crate::http::answer::{Answer, to_json};
use crate::http::backend::Backend;
use crate::http::config::{ANSWER_FRAME_BYTES, BATCH_IN_FLIGHT_MAX};
use crate::http::failure::Failure;
use crate::http::front::Front;
use crate::http::request::Submitted;
use crate::quota::Share;
use crate::types::{Consistency, Key, RequestId, UserId};

use super::values::{List, long_bytes};

const OK: Bytes = Bytes::from_static(br#"{"status_code":200,"status":"OK"}"#);
const IN_PROGRESS: Bytes = Bytes::from_static(br#"{"status_code":200,"status":"IN_PROGRESS"}"#);

/// What is said of an operation, its key and values aside, is no longer, or not much where it failed.
const RESULT_BYTES: usize = 256;

const NOT_CARRIED_OUT: &str = "not carried out, for an earlier write to this key failed; retry them together";

/// An operation within its limits.
struct Step<'a> {
    /// Its place in the batch.
    index: usize,
    act: Act<'a>,
    /// Its time begins when it is begun.
    consistency: Consistency,
    patience: Duration,
}

enum Act<'a> {
    Add {
        value: Cow<'a, str>,
        finish: bool,
        request_id: Option<RequestId>,
    },
    Get {
        offset: u64,
        limit: u64,
    },
    Count,
    Clear {
        request_id: Option<RequestId>,
    },
}

impl Act<'_> {
    /// Of the text that it brings.
    fn text_bytes(&self) -> usize {
        match self {
            Self::Add { value, .. } => value.len(),
            Self::Get { .. } | Self::Count | Self::Clear { .. } => 0,
        }
    }

    /// What is said of an add that was carried out.
    fn added(&self) -> Bytes {
        match self {
            Self::Add { finish: false, .. } => IN_PROGRESS,
            _ => OK,
        }
    }
}

pub async fn run<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: Batch = submitted.parse()?;
    let count = body.operations.len();
    let common = OperationTerms {
        consistency: body.consistency,
        deadline_ms: body.deadline_ms,
    };
    let by_key = steps_by_key(submitted, body.operations, common)?;
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;

    let room = Room::new(submitted.front, count * RESULT_BYTES)?;
    // Together no more than there are if each goes alone.
    let series_max = (BATCH_IN_FLIGHT_MAX / by_key.len().max(1)).clamp(1, series::ADDS_MAX);
    let mut waiting = by_key.into_iter();
    let mut running = FuturesUnordered::new();
    let mut results = vec![Bytes::new(); count];
    loop {
        while running.len() < BATCH_IN_FLIGHT_MAX
            && let Some((key, steps)) = waiting.next()
        {
            running.push(one_key(submitted, &user, key, steps.into(), series_max, &room));
        }
        let Some(of_one_key) = running.next().await else { break };
        for (index, result) in of_one_key {
            if let Some(place) = results.get_mut(index) {
                *place = result;
            }
        }
    }
    drop(running);
    Ok(Answer::json(join(&results)).holding(Some(room.held.into_inner())))
}

/// The operations of each key, in their order.
fn steps_by_key<'a, B: Backend>(
    submitted: &Submitted<'_, B>,
    operations: Vec<Operation<'a>>,
    common: OperationTerms,
) -> Result<BTreeMap<Key, Vec<Step<'a>>>, Failure> {
    let mut by_key: BTreeMap<Key, Vec<Step<'a>>> = BTreeMap::new();
    let common_patience = submitted.patience(common.deadline_ms)?;
    for (index, operation) in operations.into_iter().enumerate() {
        let (key, act, terms) = act_of(submitted, operation)?;
        let patience = match terms.deadline_ms {
            None => common_patience,
            own => submitted.patience(own)?,
        };
        let step = Step {
            index,
            act,
            consistency: terms.consistency.or(common.consistency).unwrap_or_default(),
            patience,
        };
        by_key.entry(submitted.key(&key)?).or_default().push(step);
    }
    Ok(by_key)
}

/// What an operation asks for: its key, the act, and terms of its own.
fn act_of<'a, B: Backend>(
    submitted: &Submitted<'_, B>,
    operation: Operation<'a>,
) -> Result<(Cow<'a, str>, Act<'a>, OperationTerms), Failure> {
    Ok(match operation {
        Operation::AddValue {
            key,
            value,
            finish_value,
            request_id,
            terms,
        } => {
            let request_id = submitted.request_id(request_id.as_deref())?;
            (
                key,
                Act::Add {
                    value,
                    finish: finish_value,
                    request_id,
                },
                terms,
            )
        }
        Operation::GetValue {
            key,
            count_only: true,
            terms,
            ..
        } => (key, Act::Count, terms),
        Operation::GetValue {
            key,
            offset,
            limit,
            terms,
            ..
        } => (
            key,
            Act::Get {
                offset: offset.unwrap_or(0),
                limit: limit.unwrap_or(u64::MAX),
            },
            terms,
        ),
        Operation::ClearKey { key, request_id, terms } => {
            let request_id = submitted.request_id(request_id.as_deref())?;
            (key, Act::Clear { request_id }, terms)
        }
    })
}

async fn one_key<B: Backend>(
    submitted: &Submitted<'_, B>,
    user: &UserId,
    key: Key,
    mut steps: VecDeque<Step<'_>>,
    series_max: usize,
    room: &Room<'_, B>,
) -> Vec<(usize, Bytes)> {
    let mut results = Vec::with_capacity(steps.len());
    let (mut broken, mut one_by_one) = (false, 0);
    loop {
        if !broken && one_by_one == 0 {
            let count = series::first_of(&steps, series_max);
            let done = series::add(submitted, user, &key, steps.iter().take(count)).await;
            // Of the others nothing was done. What was in the way is told to each that is tried by itself, or is in its way no more.
            one_by_one = count - done.len();
            broken = done.iter().any(Result::is_err);
            for (step, done) in steps.drain(..done.len()).zip(done) {
                let result = done.map_or_else(|error| failed(error.into()), |_| step.act.added());
                results.push((step.index, result));
            }
            if count > 0 && one_by_one == 0 {
                continue;
            }
        }
        let Some(step) = steps.pop_front() else { break };
        one_by_one = one_by_one.saturating_sub(1);
        let Step { index, act, .. } = step;
        let result = if broken {
            let outage = OutageCode::NotCarriedOut.unchanged();
            Err(Failure::outage(
                StatusCode::SERVICE_UNAVAILABLE,
                outage,
                NOT_CARRIED_OUT,
            ))
        } else {
            let terms = Terms {
                consistency: step.consistency,
                deadline: Instant::now() + step.patience,
            };
            let writes = matches!(act, Act::Add { .. } | Act::Clear { .. });
            let result = one(submitted, user, &key, act, terms, room).await;
            broken = writes && result.is_err();
            result
        };
        results.push((index, result.unwrap_or_else(failed)));
    }
    results
}

async fn one<B: Backend>(
    submitted: &Submitted<'_, B>,
    user: &UserId,
    key: &Key,
    act: Act<'_>,
    terms: Terms,
    room: &Room<'_, B>,
) -> Result<Bytes, Failure> {
    let backend = &submitted.front.backend;
    match act {
        Act::Add {
            value,
            finish,
            request_id,
        } => {
            backend
                .add(user, key, submitted.text(value), finish, request_id, terms)
                .await?;
            Ok(if finish { OK } else { IN_PROGRESS })
        }
        Act::Clear { request_id } => {
            backend.clear(user, key, request_id, terms).await?;
            Ok(OK)
        }
        Act::Count => {
            let count = backend.count(user, key, terms).await.map_err(Failure::of_read)?;
            let counted = to_json(&Counted {
                status_code: 200,
                key: key.as_str(),
                count,
            });
            room.take(counted.len())?;
            Ok(counted)
        }
        Act::Get { offset, limit } => {
            let reader = backend.get(user, key, offset, limit, terms).await;
            let reader = reader.map_err(Failure::of_read)?;
            values(List::new(br#"{"status_code":200,"#, key, reader), room).await
        }
    }
}

/// What the batch's answer may still hold.
struct Room<'f, B> {
    left: AtomicUsize,
    front: &'f Front<B>,
    held: Mutex<Share>,
}

impl<'f, B: Backend> Room<'f, B> {
    /// `bytes` for what is not values. Taken before anything is done: an answer that says what was done is not refused afterwards.
    fn new(front: &'f Front<B>, bytes: usize) -> Result<Self, Failure> {
        Ok(Self {
            left: AtomicUsize::new(BATCH_ANSWER_BYTES_MAX),
            front,
            held: Mutex::new(front.answer_room(bytes)?),
        })
    }

    fn take(&self, bytes: usize) -> Result<(), Failure> {
        let left = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
        left.map_err(|_| too_much())?;
        let room = self.front.answer_room(bytes).inspect_err(|_| self.give_back(bytes))?;
        self.held.lock().join(room);
        Ok(())
    }

    /// To the other operations of this batch; the permits stay until its end.
    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Relaxed);
    }
}

fn too_much() -> Failure {
    let limit = BATCH_ANSWER_BYTES_MAX;
    let detail = format!("the values read by one batch are limited to {limit} bytes; use get_value for this key");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// A whole list, as long as the batch has room for it.
async fn values<B: Backend>(mut list: List<B::Reader>, room: &Room<'_, B>) -> Result<Bytes, Failure> {
    let mut taken = 0;
    let mut long = room.front.answer_room(0)?;
    let refused = loop {
        if let Err(error) = list.fill(taken + ANSWER_FRAME_BYTES).await {
            break Failure::of_read(error);
        }
        match room.front.answer_room(long_bytes(&list).saturating_sub(long.units())) {
            Ok(more) => long.join(more),
            Err(failure) => break failure,
        }
        // There is less of it where it began anew.
        room.give_back(taken.saturating_sub(list.out.len()));
        taken = taken.min(list.out.len());
        if let Err(failure) = room.take(list.out.len() - taken) {
            break failure;
        }
        taken = list.out.len();
        if list.is_done() {
            return Ok(list.out.freeze());
        }
    };
    room.give_back(taken);
    Err(refused)
}

#[derive(Serialize)]
struct Counted<'a> {
    status_code: u16,
    key: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct Failed {
    status_code: u16,
    #[serde(flatten)]
    error: ErrorBody,
}

fn failed(failure: Failure) -> Bytes {
    to_json(&Failed {
        status_code: failure.status.as_u16(),
        error: failure.into(),
    })
}

fn join(results: &[Bytes]) -> Bytes {
    let total: usize = results.iter().map(|result| result.len() + 1).sum();
    let mut out = BytesMut::with_capacity(total + 16);
    out.extend_from_slice(br#"{"results":["#);
    for (index, result) in results.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.extend_from_slice(result);
    }
    out.extend_from_slice(b"]}");
    out.freeze()
}
