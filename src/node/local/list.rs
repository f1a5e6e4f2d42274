//! Listing the keys that this node holds.

use std::sync::Arc;

use super::super::turns::{UserTurn, in_turn};
use super::{Local, damaged, report};
use crate::node::OpError;
use crate::node::shards::supervisor::ShardDoor;
use crate::store::keys::{KeyPage, KeyQuery};
use crate::types::Key;

impl Local {
    /// A page of the user's keys that this node holds.
    pub async fn list(&self, query: KeyQuery) -> Result<KeyPage, OpError> {
        let turn = Arc::new(self.inner.turns.of_user(&query.user).await?);
        let (shards, doors) = (usize::from(self.inner.shards), &self.inner.doors);
        let asked = if query.user.is_system() {
            &doors[shards..]
        } else {
            &doors[..shards]
        };
        let mut keys = Vec::new();
        // A page of one shard may end early; what others have beyond that point belongs to the next page.
        let mut bound: Option<Key> = None;
        for door in asked {
            let page = self.list_of_shard(door, query.clone(), turn.clone()).await?;
            bound = match (bound, page.next_after) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            keys.extend(page.keys);
        }
        keys.sort_unstable();
        if let Some(bound) = &bound {
            keys.retain(|key| key <= bound);
        }
        if keys.len() > query.limit {
            keys.truncate(query.limit);
            bound = keys.last().cloned();
        }
        Ok(KeyPage {
            keys,
            next_after: bound,
        })
    }

    async fn list_of_shard(&self, door: &ShardDoor, query: KeyQuery, turn: Arc<UserTurn>) -> Result<KeyPage, OpError> {
        let reader = door.reader()?;
        // Held for as long as somebody waits.
        let waits = Arc::new(());
        let watched = Arc::downgrade(&waits);
        let listed = in_turn(&self.inner.turns.lists, &self.inner.env, move || {
            // Given back with the work, too.
            let _turn = turn;
            let is_wanted = || watched.strong_count() > 0;
            let lister = reader.keys(query).map_err(Err)?;
            lister.list_while(is_wanted).map_err(Ok)
        });
        let listed = listed.await?;
        drop(waits);
        listed.map_err(|error| match error {
            Ok(error) => report(door.serving().as_deref(), error),
            Err(lost) => damaged(lost),
        })
    }
}
