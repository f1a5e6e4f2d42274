//! Opening a data folder: its lock, its identity, and every shard in it.

use std::path::PathBuf;
use std::sync::Arc;

use super::NodeConfig;
use super::folder::identity::{Identity, IdentityError, Role};
use super::folder::identity_keeper::IdentityKeeper;
use super::jobs::JobGate;
use super::shards::permits::Limits;
use super::shards::supervisor::{ShardDoor, SupervisorArguments};
use super::turns::Turns;
use crate::core::slot::{SYSTEM_SLOT, shard_slots};
use crate::core::stamp::OriginId;
use crate::env::{Abandoned, Env};
use crate::shard::{OpenReport, Place, Shard, ShardConfig};
use crate::store::cache::BlockCache;
use crate::store::log::{LogSecret, SECRET_BYTES};
use crate::store::recover::RecoverError;

/// The system's key range is small; it gets less log space, bytes.
const SYSTEM_LOG_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("the node's actors could not be started: {0}")]
    Actor(String),
    #[error(transparent)]
    Cluster(#[from] super::cluster::ClusterError),
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
}

/// What every start of a shard needs.
#[derive(Clone)]
pub struct Plan {
    pub(super) index: u16,
    pub(super) place: Place,
    config: ShardConfig,
}

pub(super) type Opened = Result<(Shard, OpenReport), RecoverError>;

/// A data folder that is locked, with its shards still to be opened.
struct Opening {
    identity: Identity,
    cache: Arc<BlockCache>,
    plans: Vec<Plan>,
    limits: Limits,
}

impl Opening {
    fn begin(env: &Env, config: &NodeConfig) -> Result<Self, StartError> {
        let identity = Identity::open(env, &config.data, config.shards, config.role())?;
        let cache = Arc::new(BlockCache::new(config.cache_bytes));
        let plans = (0..=identity.shards)
            .map(|index| plan(env, config, &identity, &cache, index))
            .collect();
        let limits = config.limits;
        Ok(Self {
            identity,
            cache,
            plans,
            limits,
        })
    }

    fn finish(mut self, env: &Env, opened: Vec<Opened>) -> Result<SupervisorArguments, StartError> {
        let mut shards = Vec::new();
        let mut damaged = Vec::new();
        let any = opened.iter().any(Result::is_ok);
        for (plan, opened) in self.plans.into_iter().zip(opened) {
            match opened {
                Ok((shard, report)) => {
                    log_report(&plan, &report);
                    damaged.push(!report.damage.is_empty());
                    shards.push((plan, Some(shard)));
                }
                // One part of the disk that fails does not take the others down: the supervisor goes on trying.
                Err(error @ RecoverError::Io { .. }) if any => {
                    tracing::error!(shard = plan.index, %error, "a shard cannot be opened");
                    damaged.push(false);
                    shards.push((plan, None));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if damaged.contains(&true) {
            // Sequences that this origin gave out may be lost: they must not be given out again.
            let renewed = self.identity.renew_origin(&*env.disk, &*env.entropy);
            if let Err(error) = &renewed {
                tracing::error!(%error, "no new origin could be taken; the damaged shards wait for one");
            }
            for ((_, shard), damaged) in shards.iter_mut().zip(damaged) {
                if renewed.is_err() && damaged {
                    *shard = None;
                }
                if let Some(shard) = shard {
                    shard.set_origin(self.identity.origin);
                }
            }
        }
        Ok(SupervisorArguments {
            env: env.clone(),
            cache: self.cache,
            doors: shards.iter().map(|_| ShardDoor::new(self.limits)).collect(),
            turns: Turns::default(),
            identity: self.identity,
            files: JobGate::default(),
            shards,
        })
    }
}

/// Opens the data folder and every shard in it, one after the other. Blocks on the disk.
pub fn open(env: &Env, config: &NodeConfig) -> Result<SupervisorArguments, StartError> {
    let opening = Opening::begin(env, config)?;
    let origin = opening.identity.origin;
    let opened = opening.plans.iter().map(|plan| plan.open(origin)).collect();
    opening.finish(env, opened)
}

/// Like [`open`], with all shards at once.
pub async fn open_at_once(env: Env, config: NodeConfig) -> Result<SupervisorArguments, StartError> {
    let opening = {
        let env = env.clone();
        env.clone()
            .run_blocking(move || Opening::begin(&env, &config))
            .await??
    };
    let origin = opening.identity.origin;
    let shards = opening.plans.iter().map(|plan| {
        let plan = plan.clone();
        env.run_blocking(move || plan.open(origin))
    });
    let opened = futures_util::future::try_join_all(shards).await?;
    env.clone().run_blocking(move || opening.finish(&env, opened)).await?
}

impl Plan {
    /// Opens the shard again while the node runs, with a new origin where what it stamped last may live on elsewhere. Blocks on the disk.
    pub(super) fn open_again(&self, identity: &IdentityKeeper, env: &Env) -> Result<Shard, StartError> {
        let names = identity.names();
        let mut plan = self.clone();
        if plan.place.own_origins.is_some() {
            plan.place.own_origins = Some(names.own);
        }
        let (mut shard, report) = plan.open(names.origin)?;
        log_report(&plan, &report);
        // What is lost here may be held by other replicas: these names must not be given out again.
        if !report.damage.is_empty() || plan.config.replicated {
            shard.set_origin(identity.renew_origin(env)?);
        }
        Ok(shard)
    }

    pub(super) fn open(&self, origin: OriginId) -> Opened {
        Shard::open(self.place.clone(), self.config.clone(), origin)
    }
}

fn plan(env: &Env, config: &NodeConfig, identity: &Identity, cache: &Arc<BlockCache>, index: u16) -> Plan {
    let system = index == identity.shards;
    let slots = if system {
        SYSTEM_SLOT.0..SYSTEM_SLOT.0 + 1
    } else {
        shard_slots(index, identity.shards)
    };
    let mut shard_config = config.shard.clone();
    shard_config.replicated = config.role() != Role::Alone;
    if system {
        shard_config.log_bytes = shard_config.log_bytes.min(SYSTEM_LOG_BYTES);
        shard_config.fill_bytes = shard_config.fill_bytes.min(SYSTEM_LOG_BYTES / 4);
    }
    let mut new_secret = [0; SECRET_BYTES];
    env.entropy.fill(&mut new_secret);
    Plan {
        index,
        place: Place {
            disk: env.disk.clone(),
            dir: identity.shard_dir(index),
            shard: index,
            slots,
            cache: cache.clone(),
            new_secret: LogSecret::new(new_secret),
            own_origins: (config.role() != Role::Alone).then(|| Arc::new(identity.own_origins())),
        },
        config: shard_config,
    }
}

fn log_report(plan: &Plan, report: &OpenReport) {
    let dir: PathBuf = plan.place.dir.clone();
    if report.damage.is_empty() {
        tracing::debug!(dir = %dir.display(), ops = report.recovered_ops, torn = report.torn_logs, "shard opened");
    } else {
        tracing::error!(dir = %dir.display(), damage = report.damage.len(), "shard opened with damage");
    }
}
