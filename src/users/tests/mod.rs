//! The service on an in-memory store, with Argon2id runs that are counted and can be held back.

mod at_once;
mod changes;
mod given_up;
mod login;
mod removal;
mod slowing;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use argon2::Params;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::record_store::{RecordStore, Sight};
use super::{AuthError, Fingerprint, PasswordCost, Principal, Users};
use crate::core::clock::Clock;
use crate::core::stamp::OriginId;
use crate::env::{Blocking, BoxFuture, Env};
use crate::node::{KeyPage, OpError};
use crate::os;
use crate::types::{Consistency, Key, UserId};

const ORIGIN: OriginId = OriginId(1);
pub(super) const NO_QUORUM: OpError = OpError::Quorum {
    needed: 2,
    answered: 1,
    maybe_applied: false,
};

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
        Users::start_on(env, Box::new(self.store.clone()), PasswordCost::of(cheap))
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
        record: Fingerprint::of("any"),
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
        self.held.lock().get_or_insert_default();
    }

    /// Work that waits now.
    pub fn held(&self) -> usize {
        self.held.lock().as_ref().map_or(0, Vec::len)
    }

    /// Does what was held so far, and goes on holding.
    pub fn do_held(&self) {
        let jobs = self.held.lock().replace(Vec::new());
        jobs.into_iter().flatten().for_each(|job| job());
    }

    /// Does what was held, and holds no more.
    pub fn release(&self) {
        let jobs = self.held.lock().take();
        jobs.into_iter().flatten().for_each(|job| job());
    }
}

impl Blocking for Threads {
    fn submit(&self, job: Job) {
        self.runs.fetch_add(1, SeqCst);
        if let Some(held) = self.held.lock().as_mut() {
            return held.push(job);
        }
        job();
    }
}

/// What is held under one key: each piece with its number, finished values with their text.
type Pieces = Vec<(u64, Option<String>)>;

#[derive(Default)]
pub(super) struct Memory {
    lists: Mutex<BTreeMap<(UserId, Key), Pieces>>,
    pub reads: AtomicUsize,
    /// Of three replicas one does not answer.
    pub one_is_away: AtomicBool,
    /// No other replica answers.
    pub is_cut_off: AtomicBool,
    written: AtomicU64,
    /// How many more clears succeed, and what the others fail with.
    clears_until_failure: Mutex<Option<(usize, OpError)>>,
    /// The same of what is read and written of records.
    records_until_failure: Mutex<Option<(usize, OpError)>>,
    /// Clears and records that wait for `let_go`.
    held: Mutex<Held>,
    let_go: Notify,
}

#[derive(Default)]
struct Held {
    clears: usize,
    /// Only those that contain this text.
    records: Option<String>,
    waiting: usize,
}

impl Memory {
    pub fn put(&self, user: &UserId, key_text: &str, value: Option<&str>) {
        let number = self.written.fetch_add(1, SeqCst) + 1;
        let piece = (number, value.map(str::to_owned));
        let mut lists = self.lists.lock();
        lists.entry((user.clone(), key(key_text))).or_default().push(piece);
    }

    pub fn keys_of(&self, user: &UserId) -> usize {
        self.lists.lock().keys().filter(|(owner, _)| owner == user).count()
    }

    pub fn values(&self, user: &UserId, key: &Key) -> Vec<String> {
        let lists = self.lists.lock();
        let pieces = lists.get(&(user.clone(), key.clone()));
        pieces
            .into_iter()
            .flatten()
            .filter_map(|(_, value)| value.clone())
            .collect()
    }

    /// The records of a name, as text.
    pub fn records_of(&self, name: &str) -> Vec<String> {
        self.values(&UserId::system(), &key(&format!("user/{name}")))
    }

    pub fn fail_after_clears(&self, clears: usize, error: OpError) {
        *self.clears_until_failure.lock() = Some((clears, error));
    }

    pub fn fail_after_records(&self, records: usize, error: OpError) {
        *self.records_until_failure.lock() = Some((records, error));
    }

    pub fn heal(&self) {
        *self.clears_until_failure.lock() = None;
        *self.records_until_failure.lock() = None;
    }

    /// So many clears, the next ones, wait until they are let go.
    pub fn hold_clears(&self, clears: usize) {
        self.held.lock().clears = clears;
    }

    /// The next record that contains this waits until it is let go.
    pub fn hold_record(&self, text: &str) {
        self.held.lock().records = Some(text.to_owned());
    }

    pub fn waiting(&self) -> usize {
        self.held.lock().waiting
    }

    pub fn let_go(&self) {
        self.held.lock().waiting = 0;
        self.let_go.notify_waiters();
    }

    async fn wait_if(&self, is_held: impl FnOnce(&mut Held) -> bool) {
        tokio::task::yield_now().await;
        let let_go = self.let_go.notified();
        let waits = {
            let mut held = self.held.lock();
            let waits = is_held(&mut held);
            held.waiting += usize::from(waits);
            waits
        };
        if waits {
            let_go.await;
        }
    }

    fn page(&self, user: &UserId, prefix: &str, with_parts: bool, after: Option<&str>, limit: usize) -> KeyPage {
        let lists = self.lists.lock();
        let mut keys = lists
            .iter()
            .filter(|((owner, key), values)| {
                let wanted = owner == user && key.as_str().starts_with(prefix);
                let has_values = values.iter().any(|(_, value)| value.is_some());
                wanted && (with_parts || has_values) && after.is_none_or(|after| key.as_str() > after)
            })
            .map(|((_, key), _)| key.clone());
        let page: Vec<Key> = keys.by_ref().take(limit).collect();
        KeyPage {
            next_after: page.last().cloned().filter(|_| keys.next().is_some()),
            keys: page,
        }
    }
}

/// Fails once so many have succeeded.
fn one_more(until_failure: &Mutex<Option<(usize, OpError)>>) -> Result<(), OpError> {
    if let Some((left, error)) = until_failure.lock().as_mut() {
        *left = left.checked_sub(1).ok_or_else(|| error.clone())?;
    }
    Ok(())
}

impl RecordStore for Arc<Memory> {
    fn records<'a>(&'a self, key: &'a Key, sight: Sight) -> BoxFuture<'a, Result<Vec<String>, OpError>> {
        self.reads.fetch_add(1, SeqCst);
        if sight == Sight::Quorum && self.is_cut_off.load(SeqCst) {
            return Box::pin(async { Err(NO_QUORUM) });
        }
        let values = one_more(&self.records_until_failure).map(|()| self.values(&UserId::system(), key));
        Box::pin(async { values })
    }

    fn append<'a>(&'a self, key: &'a Key, record: String) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            let is_held = |held: &mut Held| held.records.take_if(|text| record.contains(&**text)).is_some();
            self.wait_if(is_held).await;
            one_more(&self.records_until_failure)?;
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
        level: Consistency,
    ) -> BoxFuture<'a, Result<KeyPage, OpError>> {
        Box::pin(async move {
            match (self.one_is_away.load(SeqCst), level) {
                (true, Consistency::All) => Err(OpError::Quorum {
                    needed: 3,
                    answered: 2,
                    maybe_applied: false,
                }),
                _ => Ok(self.page(user, "", true, after, limit)),
            }
        })
    }

    fn seen<'a>(&'a self, _: &'a UserId, _: &'a Key) -> BoxFuture<'a, Result<Clock, OpError>> {
        let mut seen = Clock::default();
        seen.insert_range(ORIGIN, 1, self.written.load(SeqCst));
        Box::pin(async { Ok(seen) })
    }

    fn clear_seen<'a>(&'a self, user: &'a UserId, key: &'a Key, seen: Clock) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            let is_held = |held: &mut Held| {
                let waits = held.clears > 0;
                held.clears -= usize::from(waits);
                waits
            };
            self.wait_if(is_held).await;
            one_more(&self.clears_until_failure)?;
            let mut lists = self.lists.lock();
            if let Some(pieces) = lists.get_mut(&(user.clone(), key.clone())) {
                pieces.retain(|(number, _)| !seen.contains(ORIGIN, *number));
            }
            lists.retain(|_, pieces| !pieces.is_empty());
            Ok(())
        })
    }
}
