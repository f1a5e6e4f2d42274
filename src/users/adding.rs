//! Adding a user, while others may add or remove the same name through other nodes.
//!
//! Who adds first claims the name, then looks, and goes on only where nobody else claims it or has it; else the claim is given up, and after
//! a while it is looked again. A claim that stays, because its node died over it, is given up for it.
//!
//! Invariants:
//! - nobody gets what an earlier user of the name had, wherever it is;
//! - nothing that is stored under the name is removed. A name that nobody has, and under which something is stored, is not added unless whoever
//!   adds it says that it is the new user's: the records of users may have been lost, and their data not;
//! - of two who are both told that they added the name, one was told after the other one's user had been removed.
//!
//! Not known is whether one is added who was told nothing, or that it is in doubt. And a node that stands still for [`CLAIM_STALE`] between
//! its claim and its user, just while another one, which takes the claim for left behind, dies over that, may be told of a user that is not
//! there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::OpError;
use crate::types::{Consistency, UserId};

use super::changes::{being_removed, contended};
use super::history::{History, Standing};
use super::record::Record;
use super::record_store::Sight;
use super::removal::Backoff;
use super::{Inner, UsersError};

/// Between a claim and its user lie two writes. What takes so long has died, or will find its claim given up.
const CLAIM_STALE: Duration = Duration::from_secs(5);
/// Two who claim a name at the same time each wait a random part of this, doubled with every try, so that one comes first.
const PAUSE_FIRST: Duration = Duration::from_millis(40);
const TRIES_MAX: u32 = 8;

/// What becomes of that which is stored under a name that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// The name is not added.
    Refused,
    /// It is the new user's.
    Adopted,
}

fn exists(user: &UserId) -> UsersError {
    UsersError::Exists(user.as_str().to_owned())
}

impl Inner {
    pub(super) async fn add(
        self: &Arc<Self>,
        user: &UserId,
        password_hash: Box<[u8]>,
        admin: bool,
        kept: Stored,
    ) -> Result<(), UsersError> {
        let is_used = self.check_free(user).await?.is_used();
        self.check_name(user, is_used, kept).await?;
        if kept == Stored::Refused {
            self.check_no_keys(user, is_used).await?;
        }
        let stored = self.hashing.hash(password_hash).await?;
        for attempt in 0..TRIES_MAX {
            let life = self.new_id();
            let claim = Record::Adding { life: life.clone() };
            self.write(user, &claim).await?;
            let history = self.history(user, Sight::Quorum).await?;
            let is_free = matches!(history.standing(), Standing::None);
            let rivals: Vec<String> = history
                .claims()
                .filter(|claim| **claim != life)
                .map(str::to_owned)
                .collect();
            if is_free && rivals.is_empty() && history.is_claimed(&life) {
                let active = Record::Active {
                    life: life.clone(),
                    stored: stored.clone(),
                    admin,
                };
                self.write(user, &active).await?;
                return match self.history_after(user).await?.stands(&life) {
                    true => Ok(()),
                    false => Err(contended(user)),
                };
            }
            self.write(user, &Record::Void { id: life }).await?;
            self.outlast(user, &rivals, PAUSE_FIRST * 2_u32.pow(attempt)).await?;
            self.check_free(user).await?;
        }
        Err(contended(user))
    }

    /// A name of old may have been anything, and whatever is stored under it can be adopted.
    async fn check_name(&self, user: &UserId, is_used: bool, kept: Stored) -> Result<(), UsersError> {
        if !user.as_str().contains(char::is_control) {
            return Ok(());
        }
        match kept == Stored::Adopted && (is_used || self.has_keys(user, Consistency::Quorum).await?) {
            true => Ok(()),
            false => Err(UsersError::Name(user.as_str().to_owned())),
        }
    }

    /// What there is of a name that nobody has.
    async fn check_free(&self, user: &UserId) -> Result<History, UsersError> {
        let history = self.history(user, Sight::Quorum).await?;
        match history.standing() {
            Standing::None => Ok(history),
            Standing::Removing { .. } => Err(being_removed(user)),
            Standing::Active { .. } | Standing::Damaged(_) => Err(exists(user)),
        }
    }

    /// What an earlier user of the name wrote through one node alone, which is away since, no quorum knows of, and no removal could empty. So where
    /// there may have been one, all have to say that they hold nothing.
    async fn check_no_keys(&self, user: &UserId, is_used: bool) -> Result<(), UsersError> {
        let name = || user.as_str().to_owned();
        let level = if is_used { Consistency::All } else { Consistency::Quorum };
        match self.has_keys(user, level).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(UsersError::KeysLeft(name())),
            Err(OpError::Quorum { .. } | OpError::Deadline { .. }) if is_used => Err(UsersError::KeysUnknown(name())),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a part of `pause`, and until none of these claims is open; one that stays open is given up.
    async fn outlast(self: &Arc<Self>, user: &UserId, rivals: &[String], pause: Duration) -> Result<(), UsersError> {
        let since = Instant::now();
        loop {
            let part = pause.as_micros() as u64;
            tokio::time::sleep(Duration::from_micros(part / 4 + self.entropy.u64() % part.max(1))).await;
            let history = self.history(user, Sight::Quorum).await?;
            let open: Vec<&str> = history
                .claims()
                .filter(|claim| rivals.iter().any(|rival| rival == claim))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            if since.elapsed() >= CLAIM_STALE {
                for claim in open {
                    self.give_up(user, claim).await?;
                }
                return Ok(());
            }
        }
    }

    /// Gives up another one's claim. Who comes to life after this sees it when it looks whether its user stands; who made its user at this
    /// very moment may not have seen it, and has its user back.
    async fn give_up(self: &Arc<Self>, user: &UserId, claim: &str) -> Result<(), UsersError> {
        let void = Record::Void { id: claim.to_owned() };
        let given_up = async {
            self.write(user, &void).await?;
            self.restore_if_added(user, claim).await
        };
        let given_up = given_up.await;
        if given_up.is_err() {
            // It may be given up, and its user waits to be seen.
            tokio::spawn(self.clone().restore_later(user.clone(), claim.to_owned()));
        }
        given_up
    }

    async fn restore_if_added(&self, user: &UserId, claim: &str) -> Result<(), UsersError> {
        if self.history(user, Sight::Quorum).await?.is_added(claim) {
            let id = claim.to_owned();
            self.write(user, &Record::Restored { id }).await?;
        }
        Ok(())
    }

    async fn restore_later(self: Arc<Self>, user: UserId, claim: String) {
        let mut pause = Backoff::default();
        loop {
            pause.wait().await;
            match self.restore_if_added(&user, &claim).await {
                Ok(()) | Err(UsersError::Store(OpError::ShuttingDown)) => return,
                Err(error) => tracing::warn!(user = user.as_str(), %error, "cannot read the record of this user yet"),
            }
        }
    }
}
