//! The node's identity while it runs: written only where a thread may block.
//!
//! The disk may hang just then: a new name is taken because something on it has failed. Whoever else needs the names of now does not wait for that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::identity::{Identity, IdentityError};
use crate::core::stamp::OriginId;
use crate::env::Env;
use crate::node::jobs::JobGate;

/// The names of a node: the one in use, and all that its disk ever had, that one included.
#[derive(Clone)]
pub struct Names {
    pub origin: OriginId,
    pub own: Arc<BTreeSet<OriginId>>,
}

impl Names {
    fn of(identity: &Identity) -> Self {
        Self {
            origin: identity.origin,
            own: Arc::new(identity.own_origins()),
        }
    }
}

pub struct IdentityKeeper {
    /// Locked for as long as the disk takes.
    kept: Mutex<Kept>,
    /// As they stand in the file; locked for a moment only.
    names: Mutex<Names>,
    /// Changes that were asked for, in their order.
    asked: AtomicU64,
    /// Those of them that are under way, and all else of the folder's own files.
    pub gate: JobGate,
}

struct Kept {
    identity: Identity,
    /// The latest change that was made.
    last: u64,
}

impl IdentityKeeper {
    pub fn new(identity: Identity, gate: JobGate) -> Self {
        Self {
            names: Mutex::new(Names::of(&identity)),
            kept: Mutex::new(Kept { identity, last: 0 }),
            asked: AtomicU64::new(0),
            gate,
        }
    }

    pub fn names(&self) -> Names {
        self.names.lock().clone()
    }

    /// Takes a new origin: durable on Ok. Blocks on the disk.
    pub fn renew_origin(&self, env: &Env) -> Result<OriginId, IdentityError> {
        let mut kept = self.kept.lock();
        kept.identity.renew_origin(&*env.disk, &*env.entropy)?;
        let names = Names::of(&kept.identity);
        let origin = names.origin;
        *self.names.lock() = names;
        Ok(origin)
    }

    /// Whether the node waits for its first copy of what the others hold, where that is to change, and how many starts there were at least; `then` is told when that is
    /// durable. Does not block.
    pub fn set_new(
        self: &Arc<Self>,
        env: &Env,
        is_new: Option<bool>,
        starts: u64,
        then: impl FnOnce(Result<(), IdentityError>) + Send + 'static,
    ) {
        let (keeper, disk) = (self.clone(), env.disk.clone());
        let nth = is_new.map(|is_new| (self.asked.fetch_add(1, Ordering::Relaxed) + 1, is_new));
        // The gate is wide enough for all changes there can be.
        let permit = self.gate.0.clone().try_acquire_owned();
        env.blocking.submit(Box::new(move || {
            let saved = {
                let mut kept = keeper.kept.lock();
                // Threads may come here in another order than they were asked in: the last word counts.
                let is_new = match nth {
                    Some((nth, is_new)) if nth > kept.last => {
                        kept.last = nth;
                        is_new
                    }
                    _ => kept.identity.is_new,
                };
                kept.identity.set_new(is_new, starts, &*disk)
            };
            drop(permit);
            then(saved);
        }));
    }
}
