//! The service on an in-memory store, with Argon2id runs that are counted and can be held back.

mod changes;
mod login;
mod removal;
mod slowing;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use argon2::Params;

use super::record_store::RecordStore;
use super::{AuthError, Principal, Users, locked};
use crate::env::{Blocking, BoxFuture, Env};
use crate::node::{KeyPage, OpError};
use crate::os;
use crate::types::{Key, UserId};

pub(super) fn id(name: &str) -> UserId {
    UserId::new(name).expect("a short name")
}

pub(super) fn key(text: &str) -> Key {
    Key::new(text).expect("a short key")
}

pub(super) fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

/// Everything that outlives a restart of the service, and the counters.
#[derive(Clone, Default)]
pub(super) struct World {
    pub store: Arc<Memory>,
    pub threads: Arc<Threads>,
}

impl World {
    /// Starts the service, as after a restart of the node.
    pub fn start(&self) -> Users {
        let env = Env {
            blocking: self.threads.clone(),
            ..os::env()
        };
        let cheap = Params::new(8, 1, 1, Some(32)).expect("within Argon2's limits");
        Users::start_on(env, Box::new(self.store.clone()), cheap)
    }

    /// The service with the admin `ann`, whose password is `right`.
    pub async fn with_ann(&self) -> Users {
        let users = self.start();
        users.add(&id("ann"), "right", true).await.expect("the store is empty");
        users
    }

    pub fn runs(&self) -> usize {
        self.threads.runs.load(SeqCst)
    }
}

pub(super) fn admin(name: &str) -> Result<Principal, AuthError> {
    Ok(Principal {
        user: id(name),
        admin: true,
    })
}

/// Lets every task go as far as it can without time passing.
pub(super) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs work at once, on the caller's thread; or keeps it until it is released.
#[derive(Default)]
pub(super) struct Threads {
    pub runs: AtomicUsize,
    held: Mutex<Option<Vec<Job>>>,
}

impl Threads {
    pub fn hold(&self) {
        locked(&self.held).get_or_insert_default();
    }

    /// Work that waits now.
    pub fn held(&self) -> usize {
        locked(&self.held).as_ref().map_or(0, Vec::len)
    }

    /// Does what was held so far, and goes on holding.
    pub fn do_held(&self) {
        let jobs = locked(&self.held).replace(Vec::new());
        jobs.into_iter().flatten().for_each(|job| job());
    }

    /// Does what was held, and holds no more.
    pub fn release(&self) {
        let jobs = locked(&self.held).take();
        jobs.into_iter().flatten().for_each(|job| job());
    }
}

impl Blocking for Threads {
    fn submit(&self, job: Job) {
        self.runs.fetch_add(1, SeqCst);
        if let Some(held) = locked(&self.held).as_mut() {
            return held.push(job);
        }
        job();
    }
}

#[derive(Default)]
pub(super) struct Memory {
    /// An empty list is a key that holds unfinished parts only.
    pub lists: Mutex<BTreeMap<(UserId, Key), Vec<String>>>,
    pub reads: AtomicUsize,
    /// How many more clears succeed, and what the others fail with.
    pub clears_until_failure: Mutex<Option<(usize, OpError)>>,
}

impl Memory {
    pub fn put(&self, user: &UserId, key_text: &str, value: Option<&str>) {
        let mut lists = locked(&self.lists);
        lists
            .entry((user.clone(), key(key_text)))
            .or_default()
            .extend(value.map(str::to_owned));
    }

    pub fn keys_of(&self, user: &UserId) -> usize {
        locked(&self.lists).keys().filter(|(owner, _)| owner == user).count()
    }

    /// The current record, as text.
    pub fn record(&self, name: &str) -> Option<String> {
        let record_key = (UserId::system(), key(&format!("user/{name}")));
        locked(&self.lists).get(&record_key)?.last().cloned()
    }

    pub fn fail_after_clears(&self, clears: usize, error: OpError) {
        *locked(&self.clears_until_failure) = Some((clears, error));
    }

    pub fn heal(&self) {
        *locked(&self.clears_until_failure) = None;
    }

    fn page(&self, user: &UserId, prefix: &str, with_parts: bool, after: Option<&str>, limit: usize) -> KeyPage {
        let lists = locked(&self.lists);
        let mut keys = lists
            .iter()
            .filter(|((owner, key), values)| {
                let wanted = owner == user && key.as_str().starts_with(prefix);
                wanted && (with_parts || !values.is_empty()) && after.is_none_or(|after| key.as_str() > after)
            })
            .map(|((_, key), _)| key.clone());
        let page: Vec<Key> = keys.by_ref().take(limit).collect();
        KeyPage {
            next_after: page.last().cloned().filter(|_| keys.next().is_some()),
            keys: page,
        }
    }
}

impl RecordStore for Arc<Memory> {
    fn last<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<String>, OpError>> {
        self.reads.fetch_add(1, SeqCst);
        let list_key = (UserId::system(), key.clone());
        let last = locked(&self.lists).get(&list_key).and_then(|list| list.last().cloned());
        Box::pin(async { Ok(last) })
    }

    fn append<'a>(&'a self, key: &'a Key, record: String) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.put(&UserId::system(), key.as_str(), Some(&record));
            Ok(())
        })
    }

    fn list_records<'a>(&'a self, after: Option<&'a str>, limit: usize) -> BoxFuture<'a, Result<KeyPage, OpError>> {
        Box::pin(async move { Ok(self.page(&UserId::system(), "user/", false, after, limit)) })
    }

    fn list_all_keys<'a>(
        &'a self,
        user: &'a UserId,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage, OpError>> {
        Box::pin(async move { Ok(self.page(user, "", true, after, limit)) })
    }

    fn clear<'a>(&'a self, user: &'a UserId, key: &'a Key) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if let Some((left, error)) = locked(&self.clears_until_failure).as_mut() {
                *left = left.checked_sub(1).ok_or_else(|| error.clone())?;
            }
            locked(&self.lists).remove(&(user.clone(), key.clone()));
            Ok(())
        })
    }
}
