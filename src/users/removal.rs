//! The removal of a user: mark the record, empty every key, empty the record.
//!
//! Invariant: the record goes last. As long as it is there the removal is not done, and a node that starts takes it up again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{TryStreamExt, stream};

use crate::node::OpError;
use crate::types::UserId;

use super::record::{self, Record};
use super::{Inner, locked};

/// Keys in one page of those to be emptied.
const PAGE_KEYS: usize = 1000;
/// Keys emptied at the same time: they share group commits, and leave room for other clients in the shards' queues.
const CLEARS_AT_ONCE: usize = 32;
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Removals that cannot go on are tried again this often at least.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The removals that this process carries out: none of them is ever carried out twice at once, or it could outlast the first
/// and take what a new user of the same name has stored since.
#[derive(Default)]
pub(super) struct Removals {
    under_way: Mutex<BTreeSet<UserId>>,
}

/// The right and duty to carry out one removal.
pub(super) struct Removal {
    user: UserId,
}

impl Removals {
    /// To be called only by one who holds `Inner::changes`. `None` when it is under way already.
    pub fn begin(&self, user: &UserId) -> Option<Removal> {
        let user = user.clone();
        locked(&self.under_way).insert(user.clone()).then_some(Removal { user })
    }

    fn is_under_way(&self, user: &UserId) -> bool {
        locked(&self.under_way).contains(user)
    }
}

impl Inner {
    /// Carries out a removal; if it cannot now, says why, and goes on in the background.
    pub(super) async fn finish_removal(self: &Arc<Self>, removal: Removal) -> Result<(), OpError> {
        let erased = self.erase(&removal).await;
        if let Err(error) = &erased {
            tracing::warn!(user = removal.user.as_str(), %error, "the removal of this user is delayed");
            tokio::spawn(self.clone().erase_until_done(removal));
        }
        erased
    }

    /// Takes up the removals that an earlier life of the node began.
    pub(super) async fn resume_removals(self: Arc<Self>) {
        let mut pause = Backoff::default();
        let names = loop {
            match self.names().await {
                Ok(names) => break names,
                Err(OpError::ShuttingDown) => return,
                Err(error) => tracing::warn!(%error, "cannot look for unfinished removals of users yet"),
            }
            pause.wait().await;
        };
        for user in names {
            let removal = loop {
                match self.unfinished_removal(&user).await {
                    Ok(removal) => break removal,
                    Err(OpError::ShuttingDown) => return,
                    Err(error) => {
                        tracing::warn!(user = user.as_str(), %error, "cannot read the record of this user yet")
                    }
                }
                pause.wait().await;
            };
            if let Some(removal) = removal {
                tracing::info!(user = user.as_str(), "going on with the removal of this user");
                tokio::spawn(self.clone().erase_until_done(removal));
            }
        }
    }

    async fn unfinished_removal(&self, user: &UserId) -> Result<Option<Removal>, OpError> {
        let _turn = self.changes.lock().await;
        // In this order: a removal that ends after the first look has emptied the record before the second.
        if self.removals.is_under_way(user) {
            return Ok(None);
        }
        match self.read(user).await? {
            Some(Ok(Record::Removing)) => Ok(self.removals.begin(user)),
            Some(Ok(Record::Active { .. }) | Err(_)) | None => Ok(None),
        }
    }

    async fn erase_until_done(self: Arc<Self>, removal: Removal) {
        let mut pause = Backoff::default();
        loop {
            match self.erase(&removal).await {
                Ok(()) => return tracing::info!(user = removal.user.as_str(), "this user is removed"),
                Err(OpError::ShuttingDown) => return,
                Err(error) => {
                    tracing::warn!(user = removal.user.as_str(), %error, "the removal of this user is delayed");
                }
            }
            pause.wait().await;
        }
    }

    async fn erase(&self, removal: &Removal) -> Result<(), OpError> {
        if self.clear_keys_while(&removal.user, true).await?
            && let Ok(key) = record::key_of(&removal.user)
        {
            self.store.clear(&UserId::system(), &key).await?;
        }
        locked(&self.removals.under_way).remove(&removal.user);
        Ok(())
    }

    /// Empties every key of the user, until a look at all of them finds none: requests that were under way may still write.
    pub(super) async fn clear_keys(&self, user: &UserId) -> Result<(), OpError> {
        self.clear_keys_while(user, false).await.map(|_| ())
    }

    /// The same; `marked`: for as long as the record says that the user is being removed. Another node may have finished the removal, and the
    /// name be somebody else's. Whether it came to its end.
    async fn clear_keys_while(&self, user: &UserId, marked: bool) -> Result<bool, OpError> {
        let mut cleared = 0;
        let mut after: Option<String> = None;
        loop {
            if marked && !matches!(self.read(user).await?, Some(Ok(Record::Removing))) {
                return Ok(false);
            }
            let page = self.store.list_all_keys(user, after.as_deref(), PAGE_KEYS).await?;
            stream::iter(page.keys.iter().map(Ok))
                .try_for_each_concurrent(CLEARS_AT_ONCE, |key| self.store.clear(user, key))
                .await?;
            cleared += page.keys.len();
            after = page.next_after.map(|key| key.as_str().to_owned());
            if after.is_none() && std::mem::take(&mut cleared) == 0 {
                return Ok(true);
            }
        }
    }
}

struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: RETRY_FIRST }
    }
}

impl Backoff {
    async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(RETRY_MAX);
    }
}
