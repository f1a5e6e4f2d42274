//! The calls on keys. Each checks the form of its body, then the credentials, then acts.

use bytes::{BufMut, BytesMut};

use crate::api::{
    AddValue, ClearKey, Count, GetValue, LIST_KEYS_ANSWER_BYTES_MAX, LIST_KEYS_LIMIT_DEFAULT, LIST_KEYS_LIMIT_MAX,
    ListKeys,
};
use crate::types::KEY_BYTES_MAX;

use super::answer::Answer;
use super::backend::Backend;
use super::escape::string_into;
use super::failure::Failure;
use super::request::Submitted;
use super::values::{self, List};

/// Keys that are asked of the node at a time; so at most a mebibyte of them.
const KEYS_PER_STEP: u64 = 1000;

pub async fn add_value<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: AddValue = submitted.parse()?;
    let key = submitted.key(&body.key)?;
    let request_id = submitted.request_id(body.request_id.as_deref())?;
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;
    let text = submitted.text(body.value);
    submitted
        .front
        .backend
        .add(&user, &key, text, body.finish_value, request_id)
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
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;
    submitted.front.backend.clear(&user, &key).await?;
    Ok(Answer::status_ok())
}

pub async fn get_value<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: GetValue = submitted.parse()?;
    let key = submitted.key(&body.key)?;
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;
    let backend = &submitted.front.backend;
    if body.count_only {
        let count = backend.count(&user, &key).await?;
        return Ok(Answer::of(&Count {
            key: body.key.into_owned(),
            count,
        }));
    }
    let (offset, limit) = (body.offset.unwrap_or(0), body.limit.unwrap_or(u64::MAX));
    let reader = backend.get(&user, &key, offset, limit).await?;
    values::answer(
        List::new(BytesMut::from(&b"{"[..]), &key, reader),
        &submitted.front.metrics,
    )
    .await
}

pub async fn list_keys<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: ListKeys = submitted.parse()?;
    let (prefix, mut after) = (body.prefix.unwrap_or_default(), body.after.map(String::from));
    let limit = body.limit.unwrap_or(LIST_KEYS_LIMIT_DEFAULT);
    let too_long = prefix.len() > KEY_BYTES_MAX || after.as_ref().is_some_and(|after| after.len() > KEY_BYTES_MAX);
    if too_long || !(1..=LIST_KEYS_LIMIT_MAX).contains(&limit) {
        return Err(submitted.reject("a limit is exceeded"));
    }
    let credentials = submitted.credentials(&body.user)?;
    let user = submitted.authenticate(credentials).await?.user;

    let mut out = BytesMut::from(&br#"{"keys":["#[..]);
    let mut left = limit;
    let more = loop {
        let step = left.min(KEYS_PER_STEP);
        let page = submitted
            .front
            .backend
            .list_keys(&user, &prefix, after.as_deref(), step as usize)
            .await?;
        let mut full = false;
        let mut unsent = page.keys.len();
        for key in &page.keys {
            if full {
                break;
            }
            if left < limit {
                out.put_u8(b',');
            }
            string_into(&mut out, key.as_str());
            (left, unsent) = (left.saturating_sub(1), unsent - 1);
            full = left == 0 || out.len() >= LIST_KEYS_ANSWER_BYTES_MAX;
            after = Some(key.as_str().to_owned());
        }
        if full || page.next_after.is_none() {
            break unsent > 0 || page.next_after.is_some();
        }
        after = page.next_after.map(|key| key.as_str().to_owned());
    };
    out.put_u8(b']');
    if let Some(after) = after.filter(|_| more) {
        out.extend_from_slice(br#","after":"#);
        string_into(&mut out, &after);
    }
    out.put_u8(b'}');
    Ok(Answer::json(out.freeze()))
}
