//! The user that the start of a node gave: made when there is none of that name, and waited for until then.

use std::sync::Arc;

use crate::node::OpError;
use crate::types::UserId;

use super::history::Standing;
use super::record_store::Sight;
use super::{Inner, Users, UsersError};

/// What [`Users::ensure_admin`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    Created,
    /// The user exists, with whatever password and right; nothing was changed.
    Present,
}

/// While it is held, the node is not ready: nobody can log in as the user that the start gave.
pub struct AwaitedAdmin {
    inner: Arc<Inner>,
}

impl Drop for AwaitedAdmin {
    fn drop(&mut self) {
        *self.inner.awaited.lock() = None;
    }
}

impl Users {
    /// Makes the first admin; does nothing when a user of that name exists. What is stored under the name is the admin's: whoever starts the
    /// node has the files, and may only have lost the records.
    pub async fn ensure_admin(&self, user: &UserId, password_hash: &str) -> Result<Ensured, UsersError> {
        match self.adopt(user, password_hash, true).await {
            Ok(()) => {
                tracing::warn!(
                    user = user.as_str(),
                    "there was no user of the name that the start gave: made, as an admin"
                );
                Ok(Ensured::Created)
            }
            Err(UsersError::Exists(_)) => Ok(Ensured::Present),
            Err(error) => Err(error),
        }
    }

    /// Whoever is told that the node is ready would be refused before this user is made. Of one at a time.
    pub fn await_admin(&self, user: &UserId) -> AwaitedAdmin {
        *self.inner.awaited.lock() = Some(user.clone());
        AwaitedAdmin {
            inner: self.inner.clone(),
        }
    }

    /// Whether somebody is known to have the name, as far as any one replica tells; or once had, where the record is damaged.
    pub async fn is_there(&self, user: &UserId) -> bool {
        match self.inner.history(user, Sight::Own).await {
            Ok(history) => !matches!(history.standing(), Standing::None),
            Err(OpError::Damaged(_)) => true,
            // Nothing is known yet.
            Err(_) => false,
        }
    }

    /// Why nobody should be told yet that the node serves, if so.
    pub fn why_not_ready(&self) -> Option<String> {
        let awaited = self.inner.awaited.lock();
        let user = awaited.as_ref()?.as_str();
        Some(format!("the user that the start gave, {user:?}, is not made yet"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::super::AuthError;
    use super::super::tests::{NO_QUORUM, World, address, admin, id};
    use super::*;

    #[tokio::test]
    async fn the_first_admin_is_made_once_and_never_changed() {
        let world = World::default();
        let users = world.start();
        assert_eq!(users.is_empty().await, Ok(true));
        assert_eq!(users.ensure_admin(&id("ann"), "right").await, Ok(Ensured::Created));
        assert_eq!(users.is_empty().await, Ok(false));
        assert_eq!(users.ensure_admin(&id("ann"), "other").await, Ok(Ensured::Present));
        assert_eq!(users.verify("ann", "other", address(1)).await, Err(AuthError::Invalid));
        assert_eq!(users.verify("ann", "right", address(1)).await, admin("ann"));
    }

    #[tokio::test]
    async fn a_node_is_not_ready_while_its_first_admin_is_awaited() {
        let users = World::default().start();
        assert_eq!(users.why_not_ready(), None);
        let awaited = users.await_admin(&id("ann"));
        let why = users.clone().why_not_ready().expect("nobody can log in");
        assert!(why.contains("\"ann\""), "{why}");
        drop(awaited);
        assert_eq!(users.why_not_ready(), None);
    }

    #[tokio::test]
    async fn cut_off_from_the_others_a_node_knows_that_there_is_its_user() {
        let world = World::default();
        let users = world.with_ann().await;
        world.store.is_cut_off.store(true, SeqCst);
        let ensured = users.ensure_admin(&id("ann"), "right").await;
        assert_eq!(ensured, Err(UsersError::Store(NO_QUORUM)));
        assert!(users.is_there(&id("ann")).await && !users.is_there(&id("bob")).await);
        // What cannot be read now is not known. Of a record that is damaged nothing more is to be waited for.
        world.store.fail_after_records(0, NO_QUORUM);
        assert!(!users.is_there(&id("ann")).await);
        world
            .store
            .fail_after_records(0, OpError::Damaged("its block".to_owned()));
        assert!(users.is_there(&id("ann")).await);
    }
}
