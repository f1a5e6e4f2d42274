//! Keeps gossip running, and restarts it where it cannot go on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::node::cluster::{Inner, TICK};
use crate::node::membership::{About, ClusterView, Membership, MembershipConfig, MembershipError};

impl Inner {
    /// Starts gossip in this generation.
    pub(in crate::node::cluster) async fn start_gossip(&self, generation: u64) -> Result<(), MembershipError> {
        let layout = self.layout();
        let members = layout.table.up().map(|(_, record)| record.peer);
        let seeds: BTreeSet<SocketAddr> = members.chain(self.config.join.iter().copied()).collect();
        let config = MembershipConfig {
            node: self.me,
            generation,
            cluster_name: self.config.name.clone(),
            listen: self.peers.local_addr(),
            advertise: self.config.advertise,
            seeds: seeds
                .into_iter()
                .filter(|seed| *seed != self.config.advertise)
                .collect(),
            keys: self.config.keys.clone(),
            about: About {
                peer: self.config.advertise,
                http: self.config.http,
                zone: self.config.zone.clone(),
            },
        };
        let membership = Membership::start(&self.env, config).await?;
        *self.members.membership.lock() = Some(membership);
        Ok(())
    }

    fn gossip(&self) -> Option<(watch::Receiver<ClusterView>, watch::Receiver<Option<u64>>)> {
        let membership = self.members.membership.lock();
        membership.as_ref().map(|running| (running.view(), running.outdated()))
    }

    /// The generation to go on with after this one: gossip ended by itself, or others know this node by one that is not older. That is noted on the disk
    /// first, or the next start would be taken for an older copy.
    pub(in crate::node::cluster) async fn later_generation(&self, generation: u64, known: Option<u64>) -> u64 {
        let next = known.unwrap_or(generation).max(generation) + 1;
        let noted = match known {
            None => self.local.note_starts(next).await,
            Some(known) => {
                tracing::error!(
                    known,
                    generation,
                    "others know this node by a later start: its disk is an older copy of itself, or another process runs on a copy of its folder"
                );
                // What this process stamps next may be named like what they have.
                if known == generation && self.lives.is_put_back(generation) {
                    self.local.renew_origins();
                }
                self.clocks.set_new();
                self.local.set_new(next).await
            }
        };
        if let Err(error) = noted {
            tracing::error!(%error, "that cannot be noted on the disk");
        }
        next
    }

    /// Who is there, by gossip.
    pub(in crate::node::cluster) fn view(&self) -> ClusterView {
        self.members.view.borrow().clone()
    }

    pub(in crate::node::cluster) fn refused_datagrams(&self) -> Vec<(&'static str, u64)> {
        let membership = self.members.membership.lock();
        let counters = membership.as_ref().map(Membership::counters);
        counters
            .map(|counters| counters.refused.by_reason().collect())
            .unwrap_or_default()
    }

    pub(in crate::node::cluster) async fn stop_gossip(&self) {
        let running = self.members.membership.lock().take();
        if let Some(running) = running {
            running.stop().await;
        }
    }

    async fn restart_gossip(&self, generation: u64) {
        self.stop_gossip().await;
        if let Err(error) = self.start_gossip(generation).await {
            tracing::error!(%error, "gossip cannot be started; it is tried again");
        }
    }
}

/// Tells of what gossip sees, for as long as the node runs.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let mut generation = inner.local.life().starts;
    loop {
        let Some((mut view, mut outdated)) = inner.gossip() else {
            tokio::time::sleep(TICK).await;
            inner.restart_gossip(generation).await;
            continue;
        };
        loop {
            let seen = view.borrow_and_update().clone();
            inner.members.view.send_replace(seen);
            tokio::select! {
                biased;
                changed = outdated.changed() => if changed.is_err() || outdated.borrow().is_some() {
                    break;
                },
                changed = view.changed() => if changed.is_err() {
                    break;
                },
            }
        }
        let known = *outdated.borrow();
        generation = inner.later_generation(generation, known).await;
        inner.restart_gossip(generation).await;
    }
}
