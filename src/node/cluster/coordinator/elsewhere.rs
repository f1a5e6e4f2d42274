//! Reads handed to another replica: when this node's copy is damaged or unreadable, or cannot be brought up to date
//! quickly because its disk is full, hangs or is slow.

use std::sync::Arc;

use super::forward::RemoteReader;
use super::read::{Found, Unequal};
use crate::core::slot::SlotId;
use crate::node::cluster::calls::is_worth_another;
use crate::node::cluster::{Cluster, Inner};
use crate::node::hedged::{self, Unsent, ValueReader, is_own_disk};
use crate::node::replica::place_of;
use crate::node::{OpError, Terms};
use crate::store::source::KeySource;
use crate::types::{Key, NodeId, UserId};

impl Cluster {
    pub async fn get(
        &self,
        user: &UserId,
        key: &Key,
        offset: u64,
        limit: u64,
        terms: Terms,
    ) -> Result<ValueReader, OpError> {
        let inner = &self.inner;
        inner.refuse_if_outside(user)?;
        let elsewhere = Elsewhere::new(inner, (user, key), (offset, limit), terms);
        inner.counted(user, elsewhere.here_or_there().await)
    }

    pub async fn count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        self.inner.refuse_if_outside(user)?;
        self.inner.counted(user, self.inner.count(user, key, terms).await)
    }
}

/// A read that another node, which holds the key too, can carry out as well.
#[derive(Clone)]
pub struct Elsewhere {
    inner: Arc<Inner>,
    user: UserId,
    key: Key,
    offset: u64,
    limit: u64,
    terms: Terms,
    /// Replicas that could not carry it out.
    without: Vec<NodeId>,
}

impl Elsewhere {
    pub(super) fn new(
        inner: &Arc<Inner>,
        (user, key): (&UserId, &Key),
        (offset, limit): (u64, u64),
        terms: Terms,
    ) -> Self {
        Self {
            inner: inner.clone(),
            user: user.clone(),
            key: key.clone(),
            offset,
            limit,
            terms,
            without: Vec::new(),
        }
    }

    pub(in crate::node) fn without(&self, node: NodeId) -> Self {
        let mut less = self.clone();
        less.without.push(node);
        less
    }

    /// From this node's disk if this node votes, else through another replica.
    pub(super) async fn here_or_there(self) -> Result<ValueReader, OpError> {
        let inner = self.inner.clone();
        let others = inner.has_others(&self.user, &self.key);
        match inner.look(&self.user, &self.key, self.terms).await {
            Ok(Found::Here(source)) => Ok(self.here(source, others)),
            Ok(Found::Elsewhere) => self.there().await,
            Ok(Found::Unequal(unequal)) => Box::pin(self.equal_or_there(unequal)).await,
            Err(error) if others && is_own_disk(&error) => self.there().await,
            Err(error) => Err(error),
        }
    }

    fn here(self, source: KeySource, others: bool) -> ValueReader {
        let reader = self.inner.local.read(source, self.offset, self.limit);
        let unsent = Unsent {
            deadline: self.terms.deadline,
            elsewhere: others.then(|| Arc::new(self)),
        };
        ValueReader::local(reader, Some(unsent))
    }

    async fn there(self) -> Result<ValueReader, OpError> {
        let reader = self.open().await?;
        let unsent = Unsent {
            deadline: self.terms.deadline,
            elsewhere: Some(Arc::new(self.without(reader.node()))),
        };
        Ok(ValueReader::remote(reader, Some(unsent)))
    }

    /// Makes the replicas equal, and asks another one beside that if it takes long: the disk that hangs, or the slow line, may be another
    /// replica's.
    async fn equal_or_there(self, unequal: Unequal) -> Result<ValueReader, OpError> {
        let (inner, terms, slot) = (self.inner.clone(), self.terms, unequal.slot);
        let there = self.clone().there();
        let here = async {
            match inner.make_equal(&self.user, &self.key, unequal).await? {
                Some(source) => Ok(self.clone().here(source, true)),
                None => self.clone().there().await,
            }
        };
        hedged::by(terms.deadline, inner.unless_stalled(slot, here, there)).await
    }

    pub(in crate::node) async fn open(&self) -> Result<RemoteReader, OpError> {
        let wanted = (self.offset, self.limit);
        RemoteReader::open(&self.inner, (&self.user, &self.key), wanted, &self.without, self.terms).await
    }
}

impl Inner {
    /// Whether the key has more than one replica.
    fn has_others(&self, user: &UserId, key: &Key) -> bool {
        let (slot, _) = place_of(user, key);
        self.layout().placement.replicas(slot).len() > 1
    }

    pub(super) async fn count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        let (found, others) = (self.look(user, key, terms).await, self.has_others(user, key));
        let there = self.forward_count(user, key, terms);
        match found {
            Ok(Found::Here(source)) => {
                let own = self.local.count_of(source);
                match others {
                    true => hedged::by(terms.deadline, hedged::own_or_other(own, there)).await,
                    false => hedged::by(terms.deadline, own).await,
                }
            }
            Ok(Found::Elsewhere) => there.await,
            Ok(Found::Unequal(unequal)) => {
                let slot = unequal.slot;
                let here = async {
                    match self.make_equal(user, key, unequal).await? {
                        Some(source) => self.local.count_of(source).await,
                        None => self.forward_count(user, key, terms).await,
                    }
                };
                Box::pin(hedged::by(terms.deadline, self.unless_stalled(slot, here, there))).await
            }
            Err(error) if others && is_own_disk(&error) => there.await,
            Err(error) => Err(error),
        }
    }

    /// Carries out a read that may have to write here first. A disk that hangs is not even asked while another replica can do it.
    async fn unless_stalled<T>(
        &self,
        slot: SlotId,
        here: impl Future<Output = Result<T, OpError>>,
        there: impl Future<Output = Result<T, OpError>>,
    ) -> Result<T, OpError> {
        if !self.local.is_stalled(slot) {
            return hedged::first_or_other(here, there, is_worth_another).await;
        }
        match there.await {
            Ok(done) => Ok(done),
            Err(_) => here.await,
        }
    }
}
