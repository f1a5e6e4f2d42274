//! The calls on keys.

use bytes::{BufMut, BytesMut};

use crate::api::{
    AddValue, ClearKey, Count, GetValue, LIST_KEYS_ANSWER_BYTES_MAX, LIST_KEYS_LIMIT_DEFAULT, LIST_KEYS_LIMIT_MAX,
    ListKeys,
};
use crate::http::answer::Answer;
use crate::http::backend::Backend;
use crate::http::failure::Failure;
use crate::http::request::Submitted;
use crate::node::{KeyPage, OpError};
use crate::planted::{Bug, planted};
use crate::quota::Share;
use crate::types::KEY_BYTES_MAX;

use super::escape::string_into;
use super::values::{self, List};

/// Keys that are asked of the node at a time; so at most a mebibyte of them.
const KEYS_PER_STEP: u64 = 1000;
/// Such steps in one call. Keys that were cleared do not show, but looking past them is work; a call that has only found
/// such keys, or has no time left, ends with what it has, and the next one goes on from there.
const LIST_STEPS_MAX: u32 = 64;

pub async fn add_value<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: AddValue = submitted.parse()?;
    let key = submitted.key(&body.key)?;
    let request_id = submitted.request_id(body.request_id.as_deref())?;
    let terms = submitted.terms(body.consistency, body.deadline_ms)?;
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;
    let text = submitted.text(body.value);
    submitted
        .front
        .backend
        .add(&user, &key, text, body.finish_value, request_id, terms)
        .await?;
    Ok(if body.finish_value {
        Answer::status_ok()
    } else {
        Answer::status_in_progress()
    })
}

pub async fn clear_key<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: ClearKey = submitted.parse()?;
    let key = submitted.key(&body.key)?;
    let request_id = submitted.request_id(body.request_id.as_deref())?;
    let terms = submitted.terms(body.consistency, body.deadline_ms)?;
    let credentials = submitted.credentials(&body.user)?;
    let user = match planted(Bug::ClearUnasked) {
        true => submitted.user_id(credentials.user_id)?,
        false => submitted.authenticate(credentials).await?.user,
    };
    submitted.front.backend.clear(&user, &key, request_id, terms).await?;
    Ok(Answer::status_ok())
}

pub async fn get_value<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: GetValue = submitted.parse()?;
    let key = submitted.key(&body.key)?;
    let terms = submitted.terms(body.consistency, body.deadline_ms)?;
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;
    let backend = &submitted.front.backend;
    if body.count_only {
        // Boxed, so that the usual case does not carry its state.
        let count = Box::pin(backend.count(&user, &key, terms)).await;
        let count = count.map_err(Failure::of_read)?;
        return Ok(Answer::of(&Count {
            key: body.key.into_owned(),
            count,
        }));
    }
    let (offset, limit) = (body.offset.unwrap_or(0), body.limit.unwrap_or(u64::MAX));
    let reader = backend.get(&user, &key, offset, limit, terms).await;
    let reader = reader.map_err(Failure::of_read)?;
    values::answer(List::new(b"{", &key, reader), submitted.front).await
}

pub async fn list_keys<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: ListKeys = submitted.parse()?;
    let (prefix, after) = (body.prefix.unwrap_or_default(), body.after.map(String::from));
    let limit = body.limit.unwrap_or(LIST_KEYS_LIMIT_DEFAULT);
    let too_long = prefix.len() > KEY_BYTES_MAX || after.as_ref().is_some_and(|after| after.len() > KEY_BYTES_MAX);
    if too_long || !(1..=LIST_KEYS_LIMIT_MAX).contains(&limit) {
        return Err(submitted.reject("a limit is exceeded"));
    }
    let terms = submitted.terms(body.consistency, body.deadline_ms)?;
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;

    let mut listing = Listing::new(limit, after);
    loop {
        let step = listing.left.min(KEYS_PER_STEP) as usize;
        let page = submitted
            .front
            .backend
            .list_keys(&user, &prefix, listing.after.as_deref(), step, terms)
            .await;
        let page = match page {
            // Else the next call would begin where this one did, and come no further.
            Err(OpError::Deadline { .. }) if listing.steps > 0 => return Ok(listing.finish()),
            page => page.map_err(Failure::of_read)?,
        };
        let before = listing.out.len();
        let done = listing.append(&page);
        let room = submitted.front.answer_room(listing.out.len() - before)?;
        match &mut listing.room {
            Some(held) => held.join(room),
            None => listing.room = Some(room),
        }
        if done {
            return Ok(listing.finish());
        }
    }
}

/// The answer of `list_keys` in the making.
struct Listing {
    out: BytesMut,
    /// Keys that may still go in.
    left: u64,
    /// The last key, or what the client gave.
    after: Option<String>,
    /// Whether keys follow that did not go in.
    more: bool,
    /// Pages of the node that were read.
    steps: u32,
    empty: bool,
    room: Option<Share>,
}

impl Listing {
    fn new(limit: u64, after: Option<String>) -> Self {
        let out = BytesMut::from(&br#"{"keys":["#[..]);
        Self {
            out,
            left: limit,
            after,
            more: false,
            steps: 0,
            empty: true,
            room: None,
        }
    }

    /// Whether that was all, or all that fits.
    fn append(&mut self, page: &KeyPage) -> bool {
        let is_full = |listing: &Self| listing.left == 0 || listing.out.len() >= LIST_KEYS_ANSWER_BYTES_MAX;
        let mut taken = 0;
        while !is_full(self)
            && let Some(key) = page.keys.get(taken)
        {
            if !self.empty {
                self.out.put_u8(b',');
            }
            string_into(&mut self.out, key.as_str());
            (self.left, self.empty, taken) = (self.left - 1, false, taken + 1);
        }
        let unsent = taken < page.keys.len();
        // The page may end at a key that does not show; the next one begins there all the same.
        let last = if unsent {
            taken.checked_sub(1).and_then(|last| page.keys.get(last))
        } else {
            page.next_after.as_ref()
        };
        if let Some(last) = last {
            self.after = Some(last.as_str().to_owned());
        }
        self.more = unsent || page.next_after.is_some();
        self.steps += 1;
        is_full(self) || !self.more || self.steps == LIST_STEPS_MAX
    }

    fn finish(mut self) -> Answer {
        self.out.put_u8(b']');
        if let Some(after) = self.after.filter(|_| self.more) {
            self.out.extend_from_slice(br#","after":"#);
            string_into(&mut self.out, &after);
        }
        self.out.put_u8(b'}');
        Answer::json(self.out.freeze()).holding(self.room)
    }
}
