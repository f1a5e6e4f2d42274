//! The product's own client over the simulated network: which node it asks, when it asks the next one and how often, it decides itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kv_storage::api::{DEADLINE_MS_DEFAULT, Operation, OperationTerms};
use kv_storage::client::{Client, ClientError, Page};
use kv_storage::types::Consistency;

use super::history::{Answer, Level, Outcome, What};
use super::listing::Listing;
use super::net::{HostId, HostNet};
use super::node::{CLIENT_PORT, password};
use super::plan::Plan;
use super::record::{Asked, Recorder, key_name, key_of, user_name};
use crate::rng::Rng;

pub struct ProductClient {
    /// For each user.
    clients: BTreeMap<u8, Client>,
    recorder: Recorder,
}

impl ProductClient {
    /// It knows all nodes, in an order of its own.
    pub fn new(plan: &Plan, net: HostNet, recorder: Recorder, rng: &mut Rng) -> Self {
        let mut nodes: Vec<u8> = (0..plan.nodes).collect();
        let mut urls = Vec::new();
        while !nodes.is_empty() {
            let node = nodes.swap_remove(rng.below(nodes.len() as u64) as usize);
            urls.push(format!("http://{}:{CLIENT_PORT}", HostId(node).ip()));
        }
        let net = Arc::new(net);
        let client = |user: u8| {
            let builder = Client::builder()
                .urls(urls.clone())
                .net(net.clone())
                .user(user_name(user))
                .password_hash(password(&user_name(user)))
                .timeout(Duration::from_millis(plan.load.timeout_ms))
                .retries(plan.product.retries)
                .part_bytes(plan.product.part_bytes);
            builder.build().expect("addresses, a user and a password are given")
        };
        let clients = (0..plan.load.users).map(|user| (user, client(user)));
        Self {
            clients: clients.collect(),
            recorder,
        }
    }

    /// With no more time than it was asked with, or than `deadline_ms`.
    fn client(&self, asked: &Asked, deadline_ms: Option<u64>) -> Client {
        let client = self.clients[&asked.place.user].with_consistency(consistency(asked.level));
        match deadline_ms.unwrap_or(asked.deadline_ms) {
            // What the nodes take when they are told nothing; the client has patience then.
            DEADLINE_MS_DEFAULT => client,
            deadline_ms => client.with_deadline(Duration::from_millis(deadline_ms)),
        }
    }

    pub async fn ask(&self, asked: &Asked, deadline_ms: Option<u64>) -> Outcome {
        let answer = self.answer(asked, &self.client(asked, deadline_ms)).await;
        answer.map_or_else(|error| failed(&asked.what, &error), Outcome::Answered)
    }

    async fn answer(&self, asked: &Asked, client: &Client) -> Result<Answer, ClientError> {
        let (key, id) = (key_name(asked.place.key), self.recorder.request_id(asked));
        Ok(match &asked.what {
            What::Add { text, finish } => {
                let text = self.recorder.text(*text);
                match (asked.with_id, finish) {
                    (true, finish) => client.add(&key, &text, *finish, &id).await?,
                    (false, true) => client.add_value(&key, &text).await?,
                    (false, false) => client.add_value_part(&key, &text).await?,
                }
                Answer::Ok
            }
            What::Clear => {
                match asked.with_id {
                    true => client.clear(&key, &id).await?,
                    false => client.clear_key(&key).await?,
                }
                Answer::Ok
            }
            What::Get => self.values(client.get_value(&key).await?),
            What::Page { offset, limit } => {
                let page = Page {
                    offset: *offset,
                    limit: Some(*limit),
                };
                self.values(client.get_value_page(&key, page).await?)
            }
            What::Count => Answer::Count(client.count(&key).await?),
            What::List(Listing { prefix, after, limit }) => {
                let (prefix, after) = (prefix.map(key_name), after.map(key_name));
                let page = client.list_keys(prefix.as_deref(), after.as_deref(), *limit).await?;
                let next = page.after.as_deref().map(key_of);
                let keys: Option<Vec<u8>> = page.keys.iter().map(|key| key_of(key)).collect();
                match (keys, next) {
                    (Some(keys), None) => Answer::Keys { keys, next: None },
                    (Some(keys), Some(Some(next))) => Answer::Keys { keys, next: Some(next) },
                    _ => Answer::Garbled(format!("{page:?}")),
                }
            }
            What::Forged(_) => Answer::Garbled("this client has one password".to_owned()),
        })
    }

    fn values(&self, values: Vec<String>) -> Answer {
        let parsed: Option<_> = values.iter().map(|value| self.recorder.parse(value)).collect();
        parsed.map_or_else(|| Answer::Garbled(format!("{values:?}")), Answer::Values)
    }

    /// One value of all these texts, each as long as the client sends at once. Of one that failed it does not say how far it came.
    pub async fn add_in_parts(&self, parts: &[Asked]) -> Outcome {
        let Some(first) = parts.first() else {
            return Outcome::Answered(Answer::Ok);
        };
        let texts = parts.iter().map(|part| match part.what {
            What::Add { text, .. } => self.recorder.text(text),
            _ => String::new(),
        });
        let value: String = texts.collect();
        let client = self.client(first, None);
        let id = self.recorder.request_id(first);
        match client.add(&key_name(first.place.key), &value, true, &id).await {
            Ok(()) => Outcome::Answered(Answer::Ok),
            Err(error) => match failed(&first.what, &error) {
                Outcome::Refused(why) => Outcome::Unknown(why),
                outcome => outcome,
            },
        }
    }

    /// All of one user, at one level.
    pub async fn batch(&self, batch: &[Asked]) -> Vec<Outcome> {
        let Some(first) = batch.first() else {
            return Vec::new();
        };
        let mut operations: Vec<Operation> = batch.iter().map(|asked| self.operation(asked)).collect();
        let client = self.clients[&first.place.user].with_consistency(consistency(first.level));
        let answered = client.batch(&mut operations).await;
        let each = batch.iter().enumerate().map(|(at, asked)| match &answered {
            Ok(results) => match &results[at] {
                Ok(result) => self.recorder.answer(&asked.what, 200, result),
                Err(error) => failed(&asked.what, error),
            },
            Err(error) => failed(&asked.what, error),
        });
        each.collect()
    }

    fn operation(&self, asked: &Asked) -> Operation<'static> {
        let key = key_name(asked.place.key).into();
        let request_id = asked.with_id.then(|| self.recorder.request_id(asked).into());
        let deadline_ms = (asked.deadline_ms != DEADLINE_MS_DEFAULT).then_some(asked.deadline_ms);
        let terms = OperationTerms {
            deadline_ms,
            ..OperationTerms::default()
        };
        match &asked.what {
            What::Add { text, finish } => Operation::AddValue {
                key,
                value: self.recorder.text(*text).into(),
                finish_value: *finish,
                request_id,
                terms,
            },
            What::Clear => Operation::ClearKey { key, request_id, terms },
            what => Operation::GetValue {
                key,
                offset: None,
                limit: None,
                count_only: *what == What::Count,
                terms,
            },
        }
    }
}

fn consistency(level: Level) -> Consistency {
    match level {
        Level::One => Consistency::One,
        Level::Quorum => Consistency::Quorum,
        Level::All => Consistency::All,
    }
}

/// An error means that nothing was changed, unless it says that it may have been.
fn failed(what: &What, error: &ClientError) -> Outcome {
    let why = error.to_string();
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::TooLarge { .. }
        | ClientError::Unavailable { .. }
        | ClientError::Server { .. } => {}
        // A full disk keeps reading.
        ClientError::DiskFull { .. } if what.is_write() => {}
        // A right request of a user that exists, to nodes that speak this API.
        _ => return Outcome::Answered(Answer::Garbled(format!("{error:?}"))),
    }
    match error.is_in_doubt() {
        true => Outcome::Unknown(why),
        false => Outcome::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_no_doubt_is_refused() {
        let broken = ClientError::Broken {
            url: String::new(),
            reason: String::new(),
            silent: false,
        };
        assert!(matches!(failed(&What::Clear, &broken), Outcome::Unknown(_)));
        let nobody = ClientError::Unreachable { tried: Vec::new() };
        assert!(matches!(failed(&What::Clear, &nobody), Outcome::Refused(_)));
        let full = ClientError::DiskFull { detail: String::new() };
        assert!(matches!(failed(&What::Clear, &full), Outcome::Refused(_)));
        assert!(matches!(
            failed(&What::Get, &full),
            Outcome::Answered(Answer::Garbled(_))
        ));
        let stranger = ClientError::Credentials { detail: String::new() };
        assert!(matches!(
            failed(&What::Get, &stranger),
            Outcome::Answered(Answer::Garbled(_))
        ));
    }
}
