//! A store and users in memory, with switches for what may go wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api::{ClusterStatus, Member, MemberState};
use crate::core::op::Text;
use crate::http::{Backend, ClusterError, Reader, Terms};
use crate::node::{Add, Added, Fragment, KeyPage, OpError};
use crate::types::{Consistency, Key, NodeId, RequestId, UserId};
use crate::users::{AuthError, Fingerprint, Principal, UserInfo, UsersError};

#[derive(Default)]
struct Held {
    values: Vec<String>,
    open: String,
    requests: Vec<RequestId>,
}

/// A key with this prefix holds a long run of generated values, `long:<values>+<bytes of one more>`; see [`FakeReader`].
pub const LONG: &str = "long:";
/// A key with this prefix, and a number, begins with so many generated values; if none of them was sent, it begins anew with one that is "new".
pub const ANEW: &str = "anew:";
/// A text that cannot be added.
pub const REFUSED: &str = "refused";
/// Bytes of each generated fragment.
pub const FRAGMENT_BYTES: usize = 10_000;

pub struct Fake {
    keys: Mutex<BTreeMap<(UserId, Key), Held>>,
    users: Mutex<BTreeMap<String, (String, bool)>>,
    pub fail: Mutex<Option<OpError>>,
    pub auth_busy: AtomicBool,
    pub ready: AtomicBool,
    pub counts: AtomicBool,
    /// Writes wait for a permit from here.
    pub gate: Semaphore,
    pub waiting: AtomicUsize,
    /// New passwords wait for a permit from here.
    pub passwords: Semaphore,
    /// Of the cluster; none: this node is alone.
    pub members: Mutex<Vec<Member>>,
    /// The terms of every operation, in order; the deadline as what is left of it.
    pub terms: Mutex<Vec<(Consistency, Duration)>>,
    /// How many each series of adds had.
    pub series: Mutex<Vec<usize>>,
    /// Pages of keys that are given before there is no time left.
    pub pages: AtomicUsize,
    /// Fragments that readers gave out.
    pub pulled: Arc<AtomicUsize>,
}

impl Default for Fake {
    fn default() -> Self {
        let users = [("123", ("abc123", false)), ("root", ("secret", true))];
        let users = users.map(|(name, (hash, admin))| (name.to_owned(), (hash.to_owned(), admin)));
        Self {
            series: Mutex::default(),
            keys: Mutex::default(),
            users: Mutex::new(users.into()),
            fail: Mutex::default(),
            auth_busy: AtomicBool::new(false),
            ready: AtomicBool::new(true),
            counts: AtomicBool::new(true),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            waiting: AtomicUsize::new(0),
            passwords: Semaphore::new(Semaphore::MAX_PERMITS),
            members: Mutex::default(),
            terms: Mutex::default(),
            pages: AtomicUsize::new(usize::MAX),
            pulled: Arc::default(),
        }
    }
}

impl Fake {
    fn note(&self, terms: Terms) {
        let left = terms.deadline.saturating_duration_since(Instant::now());
        self.terms.lock().push((terms.consistency, left));
    }

    fn failure(&self) -> Result<(), OpError> {
        self.fail.lock().clone().map_or(Ok(()), Err)
    }

    async fn pass_gate(&self) -> Result<(), OpError> {
        self.failure()?;
        self.waiting.fetch_add(1, SeqCst);
        let _permit = self.gate.acquire().await.map_err(|_| OpError::ShuttingDown)?;
        self.waiting.fetch_sub(1, SeqCst);
        Ok(())
    }

    pub fn put(&self, user: &str, key: &str, values: &[&str]) {
        let place = (UserId::new(user).unwrap(), Key::new(key).unwrap());
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.keys.lock().insert(
            place,
            Held {
                values,
                ..Held::default()
            },
        );
    }

    pub fn values(&self, user: &str, key: &str) -> Vec<String> {
        let place = (UserId::new(user).unwrap(), Key::new(key).unwrap());
        self.keys
            .lock()
            .get(&place)
            .map(|held| held.values.clone())
            .unwrap_or_default()
    }
}

pub enum FakeReader {
    Held(Vec<Fragment>),
    /// How many values come first.
    Anew(usize, BeginsAnew),
    /// `left` more fragments, each a value of its own, and one of `last` bytes if that is not 0; an error instead of the end when `breaks`.
    Long {
        left: usize,
        last: usize,
        breaks: bool,
        pulled: Arc<AtomicUsize>,
    },
}

fn generated() -> Fragment {
    Fragment {
        text: "x".repeat(FRAGMENT_BYTES).into(),
        ends_value: true,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginsAnew {
    /// What comes first was not given yet.
    Later,
    Next,
    Now,
    Never,
}

impl Reader for FakeReader {
    fn until_sent(&mut self) {}

    fn sent(&mut self) {
        if let Self::Anew(_, begins) = self {
            *begins = BeginsAnew::Never;
        }
    }

    fn began_anew(&mut self) -> bool {
        let anew = matches!(self, Self::Anew(_, BeginsAnew::Now));
        if anew {
            *self = Self::Held(Vec::new());
        }
        anew
    }

    async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        match self {
            Self::Held(fragments) => Ok(std::mem::take(fragments)),
            Self::Anew(_, BeginsAnew::Never | BeginsAnew::Now) => Ok(Vec::new()),
            Self::Anew(count, begins @ BeginsAnew::Later) => {
                *begins = BeginsAnew::Next;
                Ok(vec![generated(); *count])
            }
            Self::Anew(_, begins @ BeginsAnew::Next) => {
                *begins = BeginsAnew::Now;
                Ok(vec![Fragment {
                    text: "new".into(),
                    ends_value: true,
                }])
            }
            Self::Long {
                left: 0, breaks: true, ..
            } => Err(OpError::Damaged("a block".into())),
            Self::Long { left: 0, last, .. } if *last > 0 => Ok(vec![Fragment {
                text: "y".repeat(std::mem::take(last)).into(),
                ends_value: true,
            }]),
            Self::Long { left, pulled, .. } => {
                let count = (budget_bytes / FRAGMENT_BYTES).clamp(1, 100).min(*left);
                *left -= count;
                pulled.fetch_add(count, SeqCst);
                Ok(vec![generated(); count])
            }
        }
    }
}

impl Backend for Arc<Fake> {
    type Reader = FakeReader;

    async fn add(
        &self,
        user: &UserId,
        key: &Key,
        text: Text,
        finish: bool,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> Result<Added, OpError> {
        self.note(terms);
        self.pass_gate().await?;
        if AsRef::<str>::as_ref(&text) == REFUSED {
            return Err(OpError::ValueTooLong { got: 2, max: 1 });
        }
        let mut keys = self.keys.lock();
        let held = keys.entry((user.clone(), key.clone())).or_default();
        if let Some(id) = request_id {
            if held.requests.contains(&id) {
                return Ok(Added::Repeated);
            }
            held.requests.push(id);
        }
        held.open.push_str(text.as_ref());
        if finish {
            held.values.push(std::mem::take(&mut held.open));
        }
        Ok(Added::Appended)
    }

    async fn add_series(&self, user: &UserId, key: &Key, adds: Vec<Add>, terms: Terms) -> Vec<Result<Added, OpError>> {
        self.series.lock().push(adds.len());
        let mut done = Vec::new();
        for Add {
            text,
            finish,
            request_id,
        } in adds
        {
            // What it is, is told to whoever tries it by itself.
            if AsRef::<str>::as_ref(&text) == REFUSED {
                break;
            }
            let added = self.add(user, key, text, finish, request_id, terms).await;
            let is_over = added.is_err();
            done.push(added);
            if is_over {
                break;
            }
        }
        done
    }

    async fn clear(
        &self,
        user: &UserId,
        key: &Key,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> Result<(), OpError> {
        self.note(terms);
        self.pass_gate().await?;
        let mut keys = self.keys.lock();
        let held = keys.entry((user.clone(), key.clone())).or_default();
        if request_id.is_some_and(|id| held.requests.contains(&id)) {
            return Ok(());
        }
        held.requests.extend(request_id);
        (held.values, held.open) = Default::default();
        Ok(())
    }

    async fn get(
        &self,
        user: &UserId,
        key: &Key,
        offset: u64,
        limit: u64,
        terms: Terms,
    ) -> Result<FakeReader, OpError> {
        self.note(terms);
        self.failure()?;
        if let Some(count) = key.as_str().strip_prefix(ANEW) {
            return Ok(FakeReader::Anew(count.parse().unwrap(), BeginsAnew::Later));
        }
        if let Some(rest) = key.as_str().strip_prefix(LONG) {
            let (left, breaks) = rest.strip_prefix("broken:").map_or((rest, false), |left| (left, true));
            let (left, last) = left.split_once('+').unwrap_or((left, "0"));
            return Ok(FakeReader::Long {
                left: left.parse().unwrap(),
                last: last.parse().unwrap(),
                breaks,
                pulled: self.pulled.clone(),
            });
        }
        let keys = self.keys.lock();
        let values = keys
            .get(&(user.clone(), key.clone()))
            .map(|held| held.values.as_slice())
            .unwrap_or_default();
        let shown = values.iter().skip(offset as usize).take(limit.min(1 << 40) as usize);
        // Every value in two fragments, cut in the middle of whatever is there.
        let fragments = shown.flat_map(|value| {
            let cut = (value.len() / 2..).find(|at| value.is_char_boundary(*at)).unwrap_or(0);
            let (left, right) = value.split_at(cut);
            [(left, false), (right, true)].map(|(text, ends_value)| Fragment {
                text: text.into(),
                ends_value,
            })
        });
        Ok(FakeReader::Held(fragments.collect()))
    }

    async fn count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        self.note(terms);
        self.failure()?;
        let keys = self.keys.lock();
        Ok(keys
            .get(&(user.clone(), key.clone()))
            .map_or(0, |held| held.values.len() as u64))
    }

    async fn list_keys(
        &self,
        user: &UserId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        terms: Terms,
    ) -> Result<KeyPage, OpError> {
        self.note(terms);
        self.failure()?;
        if self.pages.load(SeqCst) == 0 {
            return Err(OpError::Deadline { maybe_applied: false });
        }
        self.pages.fetch_sub(1, SeqCst);
        let keys = self.keys.lock();
        let mut found = keys.iter().filter(|((of, key), _)| {
            let behind = after.is_none_or(|after| key.as_str() > after);
            of == user && key.as_str().starts_with(prefix) && behind
        });
        // As below: keys without values take part of the page, and do not show.
        let page: Vec<_> = found.by_ref().take(limit).collect();
        let last = page.last().map(|((_, key), _)| key.clone());
        let shown = page.iter().filter(|(_, held)| !held.values.is_empty());
        Ok(KeyPage {
            keys: shown.map(|((_, key), _)| key.clone()).collect(),
            next_after: last.filter(|_| found.next().is_some()),
        })
    }

    fn commit_time(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn why_not_ready(&self) -> Option<String> {
        (!self.ready.load(SeqCst)).then(|| "not every shard serves yet".to_owned())
    }

    fn why_not_counting(&self) -> Option<String> {
        let why = || (!self.counts.load(SeqCst)).then(|| "its word does not count yet".to_owned());
        self.why_not_ready().or_else(why)
    }

    async fn verify(&self, user_id: &str, password_hash: &str, _: IpAddr) -> Result<Principal, AuthError> {
        if self.auth_busy.load(SeqCst) {
            return Err(AuthError::Busy { retry_after_s: 9 });
        }
        let users = self.users.lock();
        match users.get(user_id) {
            Some((hash, admin)) if hash == password_hash => Ok(Principal {
                user: UserId::new(user_id).unwrap(),
                admin: *admin,
                record: Fingerprint::of(hash),
            }),
            _ => Err(AuthError::Invalid),
        }
    }

    async fn add_user(
        &self,
        _: &Principal,
        user: &UserId,
        password_hash: &str,
        admin: bool,
        _: bool,
    ) -> Result<(), UsersError> {
        let mut users = self.users.lock();
        if users.contains_key(user.as_str()) {
            return Err(UsersError::Exists(user.as_str().into()));
        }
        users.insert(user.as_str().into(), (password_hash.into(), admin));
        Ok(())
    }

    async fn remove_user(&self, _: &Principal, user: &UserId) -> Result<(), UsersError> {
        let mut users = self.users.lock();
        match users.get(user.as_str()) {
            None => Err(UsersError::Unknown(user.as_str().into())),
            Some((_, true)) => Err(UsersError::LastAdmin(user.as_str().into())),
            Some(_) => {
                users.remove(user.as_str());
                Ok(())
            }
        }
    }

    async fn set_password(&self, _: &Principal, user: &UserId, password_hash: &str) -> Result<(), UsersError> {
        self.waiting.fetch_add(1, SeqCst);
        let _permit = self.passwords.acquire().await.map_err(|_| OpError::ShuttingDown)?;
        self.waiting.fetch_sub(1, SeqCst);
        let mut users = self.users.lock();
        let Some(entry) = users.get_mut(user.as_str()) else {
            return Err(UsersError::Unknown(user.as_str().into()));
        };
        entry.0 = password_hash.into();
        Ok(())
    }

    async fn list_users(&self) -> Result<Vec<UserInfo>, UsersError> {
        let users = self.users.lock();
        let info = |(name, (_, admin)): (&String, &(String, bool))| UserInfo {
            user: UserId::new(name).unwrap(),
            admin: *admin,
        };
        Ok(users.iter().map(info).collect())
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, ClusterError> {
        let members = self.members.lock().clone();
        let first = members.first().ok_or(ClusterError::Alone)?;
        Ok(ClusterStatus {
            cluster: "kv".to_owned(),
            node: first.node.clone(),
            replication: 3,
            members,
        })
    }

    async fn remove_node(&self, node: NodeId) -> Result<(), ClusterError> {
        let mut members = self.members.lock();
        let found = members.iter_mut().find(|member| member.node == node.to_string());
        let member = found.ok_or_else(|| ClusterError::Unknown(node.to_string()))?;
        if member.alive {
            return Err(ClusterError::Refused(format!("{node} is alive; stop it first")));
        }
        member.state = MemberState::Removed;
        Ok(())
    }

    async fn replace_node(&self, old: NodeId, new: NodeId) -> Result<(), ClusterError> {
        self.remove_node(old).await?;
        let mut members = self.members.lock();
        let found = members.iter_mut().find(|member| member.node == new.to_string());
        found.ok_or_else(|| ClusterError::Unknown(new.to_string()))?.state = MemberState::Up;
        Ok(())
    }
}
