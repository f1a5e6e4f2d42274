//! The removal of a user: mark the record, look who else is there, decide, empty every key, empty the record.
//!
//! Invariants:
//! - the records go last. As long as they are there the removal is not done; a node that starts takes it up again, and so does one that is asked
//!   for it once more. One record stays, that the name was somebody's;
//! - a key is emptied only of what it held before the record was seen to say that the user is being removed. Another node may have finished
//!   the removal, and the name be somebody else's;
//! - an admin's removal is decided only when another admin was seen without a mark after this one's mark was written. Of admins who remove
//!   each other, the last one to be marked finds all others marked and stays; two who are marked at the same moment may both stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use crate::core::clock::Clock;
use crate::node::OpError;
use crate::planted::{Bug, planted};
use crate::types::{Consistency, UserId};

use super::changes::{being_removed, contended, doubted, last_admin, unknown};
use super::history::{History, RemovalMark, Standing};
use super::record::{self, NO_LIFE, Record};
use super::record_store::Sight;
use super::{Inner, UsersError};

/// Keys in one page of those to be emptied.
const PAGE_KEYS: usize = 1000;
/// Keys emptied at the same time: they share group commits, and leave room for other clients in the shards' queues.
const CLEARS_AT_ONCE: usize = 32;
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// From here on it is worth a warning.
const RETRY_LONG: Duration = Duration::from_secs(3);
/// Removals that cannot go on are tried again this often at least.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A removal that is marked and not decided for so long was left behind by a node that died over it.
const MARK_STALE: Duration = Duration::from_secs(5);

/// The removals that this process carries out, each of them once.
#[derive(Default)]
pub(super) struct Removals {
    under_way: Mutex<BTreeSet<UserId>>,
    /// Names that are looked at for a removal to go on with, and whether that was asked for again meanwhile.
    looked_at: Mutex<BTreeMap<UserId, bool>>,
}

/// The right and duty to carry out one removal, which was decided.
pub(super) struct Removal {
    user: UserId,
    life: String,
}

/// What came of going through a user's keys once.
enum Pass {
    /// So many were found.
    Emptied(usize),
    /// By these records they may not be emptied, or not any more.
    Refused(History),
}

/// How carrying out a removal ended.
enum Erased {
    /// The user is gone, through this node or another one.
    Done,
    /// Another node found that the user has to stay.
    Kept,
}

impl Removals {
    /// To be called only by one whose turn it is. `None` when it is under way already.
    fn begin(&self, user: &UserId, life: &str) -> Option<Removal> {
        let removal = || Removal {
            user: user.clone(),
            life: life.to_owned(),
        };
        self.under_way.lock().insert(user.clone()).then(removal)
    }

    /// Whether nobody looks at the name yet; whoever does will look once more.
    fn begin_look(&self, user: &UserId) -> bool {
        let mut looked_at = self.looked_at.lock();
        let is_new = !looked_at.contains_key(user);
        looked_at.insert(user.clone(), !is_new);
        is_new
    }

    /// Whether that was all: nobody asked again meanwhile.
    fn end_look(&self, user: &UserId) -> bool {
        let mut looked_at = self.looked_at.lock();
        if looked_at.remove(user) == Some(true) {
            looked_at.insert(user.clone(), false);
            return false;
        }
        true
    }

    fn is_under_way(&self, user: &UserId) -> bool {
        self.under_way.lock().contains(user)
    }
}

impl Inner {
    pub(super) async fn begin_removal(&self, user: &UserId) -> Result<Removal, UsersError> {
        let history = self.history(user, Sight::Quorum).await?;
        let life = match history.standing() {
            // What is stored under a name that nobody has goes the same way.
            Standing::None if self.has_keys(user, Consistency::Quorum).await? => NO_LIFE,
            Standing::None => return Err(unknown(user)),
            Standing::Removing { .. } => return Err(being_removed(user)),
            Standing::Active { admin: true, .. } if !self.has_other_admin(user).await? => return Err(last_admin(user)),
            Standing::Active { life, .. } => life,
            // Removing is also how a damaged record is got rid of.
            Standing::Damaged(_) => NO_LIFE,
        };
        let mark = RemovalMark {
            life: life.to_owned(),
            id: self.new_id(),
            decided: false,
        };
        self.write(user, &mark.record()).await?;
        let refused = match self.history_after(user).await?.standing() {
            Standing::Removing { marks, admin } if marks.first().is_some_and(|first| first.id == mark.id) => {
                return self.decide(user, &marks, admin).await.map_err(doubted);
            }
            Standing::Removing { .. } => being_removed(user),
            Standing::None => unknown(user),
            Standing::Active { .. } | Standing::Damaged(_) => contended(user),
        };
        self.write(user, &Record::Void { id: mark.id }).await?;
        Err(refused)
    }

    /// Whether a removal that is marked may be done; if not, the marks are taken back.
    async fn decide(&self, user: &UserId, marks: &[RemovalMark], admin: bool) -> Result<Removal, UsersError> {
        let decided = marks.iter().find(|mark| mark.decided);
        let mark = decided.or(marks.first()).ok_or_else(|| unknown(user))?;
        if decided.is_none() {
            if admin && !self.has_other_admin(user).await? {
                for mark in marks {
                    self.write(user, &Record::Void { id: mark.id.clone() }).await?;
                }
                return Err(last_admin(user));
            }
            let decided = RemovalMark {
                decided: true,
                ..mark.clone()
            };
            self.write(user, &decided.record()).await?;
        }
        let removal = self.removals.begin(user, &mark.life);
        removal.ok_or_else(|| being_removed(user))
    }

    /// Carries out a removal; if it cannot now, says why, and goes on in the background.
    pub(super) async fn finish_removal(self: &Arc<Self>, removal: Removal) -> Result<(), UsersError> {
        match self.erase(&removal).await {
            Ok(Erased::Done) => Ok(()),
            Ok(Erased::Kept) => Err(UsersError::Contended(removal.user.as_str().to_owned())),
            Err(error) => {
                tracing::warn!(user = removal.user.as_str(), %error, "the removal of this user is delayed");
                tokio::spawn(self.clone().erase_until_done(removal));
                Err(error.into())
            }
        }
    }

    /// Takes up the removals that an earlier life of the node began.
    pub(super) async fn resume_removals(self: Arc<Self>) {
        let mut pause = Backoff::default();
        let names = loop {
            match self.names().await {
                Ok(names) => break names,
                Err(OpError::ShuttingDown) => return,
                // Why a node is not let in is told where it asks for that.
                Err(error) if pause.is_long() && !matches!(error, OpError::NotReady(_)) => {
                    tracing::warn!(%error, "cannot look for unfinished removals of users yet")
                }
                // A node that comes in cannot do so at once.
                Err(error) => tracing::debug!(%error, "cannot look for unfinished removals of users yet"),
            }
            pause.wait().await;
        };
        for user in names {
            self.clone().resume_removal(user).await;
        }
    }

    /// Goes on with the removal of this user, if one was marked and left. However often it is asked for while it cannot be told, one looks.
    pub(super) async fn resume_removal(self: Arc<Self>, user: UserId) {
        if !self.removals.begin_look(&user) {
            return;
        }
        loop {
            self.clone().look_for_removal(&user).await;
            if self.removals.end_look(&user) {
                return;
            }
        }
    }

    async fn look_for_removal(self: Arc<Self>, user: &UserId) {
        let mut pause = Backoff::default();
        let removal = loop {
            match self.unfinished_removal(user).await {
                Ok(removal) => break removal,
                Err(UsersError::Store(OpError::ShuttingDown)) => return,
                Err(error) => tracing::warn!(user = user.as_str(), %error, "cannot read the record of this user yet"),
            }
            pause.wait().await;
        };
        if let Some(removal) = removal {
            tracing::info!(user = user.as_str(), "going on with the removal of this user");
            tokio::spawn(self.erase_until_done(removal));
        }
    }

    async fn unfinished_removal(&self, user: &UserId) -> Result<Option<Removal>, UsersError> {
        match self.marks(user).await? {
            Some((marks, _)) if !marks.iter().any(|mark| mark.decided) => tokio::time::sleep(MARK_STALE).await,
            _ => {}
        }
        let _turn = self.changes.own().await;
        // In this order: a removal that ends after the first look has emptied the record before the second.
        if self.removals.is_under_way(user) {
            return Ok(None);
        }
        let Some((marks, admin)) = self.marks(user).await? else {
            return Ok(None);
        };
        match self.decide(user, &marks, admin).await {
            Err(UsersError::LastAdmin(_) | UsersError::BeingRemoved(_)) => Ok(None),
            decided => decided.map(Some),
        }
    }

    /// The marks of the user's removal, if there is one, and whether an admin is removed.
    async fn marks(&self, user: &UserId) -> Result<Option<(Vec<RemovalMark>, bool)>, OpError> {
        Ok(match self.history(user, Sight::Quorum).await?.standing() {
            Standing::Removing { marks, admin } => Some((marks, admin)),
            Standing::Active { .. } | Standing::Damaged(_) | Standing::None => None,
        })
    }

    async fn erase_until_done(self: Arc<Self>, removal: Removal) {
        let mut pause = Backoff::default();
        loop {
            match self.erase(&removal).await {
                Ok(Erased::Done) => return tracing::info!(user = removal.user.as_str(), "this user is removed"),
                Ok(Erased::Kept) => return tracing::info!(user = removal.user.as_str(), "this user stays"),
                Err(OpError::ShuttingDown) => return,
                Err(error) => {
                    tracing::warn!(user = removal.user.as_str(), %error, "the removal of this user is delayed");
                }
            }
            pause.wait().await;
        }
    }

    async fn erase(&self, removal: &Removal) -> Result<Erased, OpError> {
        let user = &removal.user;
        let being_removed = |standing: &Standing| matches!(standing, Standing::Removing { .. });
        let erased = loop {
            let Ok(key) = record::key_of(user) else {
                break Erased::Done;
            };
            let records = self.store.seen(&UserId::system(), &key).await?;
            let is_empty = match self.clear_keys_while(user, being_removed).await? {
                Pass::Emptied(keys) => keys == 0,
                Pass::Refused(history) => match history.standing() {
                    Standing::Active { life, .. } if life == removal.life => break Erased::Kept,
                    // It was as far as this, and then failed. Not, when another node has ended it: who adds the name anew has a claim by then.
                    Standing::None if history.is_void(&removal.life) && history.claims().next().is_none() => true,
                    _ => break Erased::Done,
                },
            };
            if is_empty {
                // After those that go.
                let id = removal.life.clone();
                if let Ok(gone) = (Record::Void { id }).encode(user) {
                    self.store.append(&key, gone).await?;
                }
                self.store.clear_seen(&UserId::system(), &key, records).await?;
                break Erased::Done;
            }
        };
        self.removals.under_way.lock().remove(user);
        Ok(erased)
    }

    /// Whether anything is stored under the name, by the word of so many replicas.
    pub(super) async fn has_keys(&self, user: &UserId, level: Consistency) -> Result<bool, OpError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list_all_keys(user, after.as_deref(), 1, level).await?;
            after = page.next_after.map(|key| key.as_str().to_owned());
            if !page.keys.is_empty() || after.is_none() {
                return Ok(!page.keys.is_empty());
            }
        }
    }

    /// Goes through the user's keys once and empties them, for as long as `may` allows it by the records that are read after a key's clock.
    async fn clear_keys_while(&self, user: &UserId, may: impl Fn(&Standing<'_>) -> bool) -> Result<Pass, OpError> {
        let mut cleared = 0;
        let mut after: Option<String> = None;
        loop {
            let listed = self
                .store
                .list_all_keys(user, after.as_deref(), PAGE_KEYS, Consistency::Quorum);
            let mut page = listed.await?;
            if planted(Bug::RemovalSkipsLast) {
                page.keys.pop();
            }
            let asked: Vec<_> = page.keys.iter().map(|key| self.store.seen(user, key)).collect();
            let seen: Vec<Clock> = stream::iter(asked).buffered(CLEARS_AT_ONCE).try_collect().await?;
            let history = self.history(user, Sight::Quorum).await?;
            if !may(&history.standing()) {
                return Ok(Pass::Refused(history));
            }
            let keys = page.keys.iter().zip(seen);
            let clears: Vec<_> = keys
                .map(|(key, seen)| Ok(self.store.clear_seen(user, key, seen)))
                .collect();
            stream::iter(clears)
                .try_for_each_concurrent(CLEARS_AT_ONCE, |clear| clear)
                .await?;
            cleared += page.keys.len();
            after = page.next_after.map(|key| key.as_str().to_owned());
            if after.is_none() {
                return Ok(Pass::Emptied(cleared));
            }
        }
    }
}

pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: RETRY_FIRST }
    }
}

impl Backoff {
    /// Whether it has been going on for seconds.
    fn is_long(&self) -> bool {
        self.next >= RETRY_LONG
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(RETRY_MAX);
    }
}
