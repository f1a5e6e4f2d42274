//! Argon2id: what turns a `password_hash` into what is stored, and checks it later.
//!
//! Invariant: at most so many runs at a time as the node was given ([`RUNS_MAX`] or fewer), whoever asks and even when they go away in the middle, because a run's
//! permits travel with it to the thread that does it.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::env::Env;
use crate::node::OpError;

use super::address::AddressSlot;

/// OWASP's first choice for Argon2id: 19 MiB, two passes, one lane.
pub(super) const MEMORY_KIB: u32 = 19 * 1024;
pub(super) const PASSES: u32 = 2;
pub(super) const LANES: u32 = 1;
const COST: Params = match Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT_BYTES)) {
    Ok(params) => params,
    Err(_) => panic!("these parameters are within Argon2's limits"),
};

/// What a password costs to hash, for whoever guesses as for us, and how much of that is done at a time. Stored hashes keep the cost that they
/// were made with.
#[derive(Debug, Clone)]
pub struct PasswordCost {
    params: Params,
    runs_max: usize,
}

impl Default for PasswordCost {
    /// OWASP's first choice.
    fn default() -> Self {
        Self::of(COST)
    }
}

impl PasswordCost {
    /// `None` beyond Argon2's limits. Less than the default makes stolen records easier to guess.
    pub fn new(memory_kib: u32, passes: u32) -> Option<Self> {
        let params = Params::new(memory_kib, passes, LANES, Some(OUTPUT_BYTES));
        params.ok().map(Self::of)
    }

    pub(super) fn of(params: Params) -> Self {
        Self {
            params,
            runs_max: RUNS_MAX,
        }
    }

    /// For a machine with so many processors: most of them stay free for requests, whoever logs in.
    #[must_use]
    pub fn on_processors(self, processors: usize) -> Self {
        let runs_max = (processors / PROCESSORS_PER_RUN).clamp(1, RUNS_MAX);
        Self { runs_max, ..self }
    }
}
const OUTPUT_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// Bounds on what a record may ask for: one that asks for more is damaged, and must not take the node's memory or time.
const STORED_MEMORY_KIB_MAX: u32 = 256 * 1024;
const STORED_PASSES_MAX: u32 = 64;
const STORED_LANES_MAX: u32 = 16;

/// Argon2id runs at the same time at most: it is as much work as memory, and requests must go on beside it.
pub(super) const RUNS_MAX: usize = 2;
const PROCESSORS_PER_RUN: usize = 4;
/// Logins that run or wait to. A run takes some tens of milliseconds on an idle core, so the last of them waits a second or
/// three: longer, and clients would give up on an answer that is still being worked for.
pub(super) const QUEUE_MAX: usize = 64;

/// What is stored of a password.
#[derive(Clone)]
pub(super) struct StoredHash {
    /// In the PHC format, `$argon2id$v=19$m=…,t=…,p=…$salt$output`.
    text: Arc<str>,
    parsed: Arc<PasswordHash>,
}

impl StoredHash {
    pub fn parse(text: &str) -> Result<Self, password_hash::Error> {
        let parsed = PasswordHash::new(text)?;
        if parsed.algorithm != argon2::ARGON2ID_IDENT {
            return Err(password_hash::Error::Algorithm);
        }
        if parsed.salt.is_none() || parsed.hash.is_none() {
            return Err(password_hash::Error::EncodingInvalid);
        }
        let params = Params::try_from(&parsed)?;
        if params.m_cost() > STORED_MEMORY_KIB_MAX
            || params.t_cost() > STORED_PASSES_MAX
            || params.p_cost() > STORED_LANES_MAX
        {
            return Err(password_hash::Error::ParamsInvalid);
        }
        Ok(Self {
            text: text.into(),
            parsed: parsed.into(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A place in the queue, held until the run is over.
pub(super) struct Place {
    _address: AddressSlot,
    _queue: OwnedSemaphorePermit,
}

pub(super) struct Hashing {
    env: Env,
    cost: Params,
    queue: Arc<Semaphore>,
    runs: Arc<Semaphore>,
}

impl Hashing {
    pub fn new(env: Env, cost: PasswordCost) -> Self {
        Self {
            env,
            cost: cost.params,
            queue: Arc::new(Semaphore::new(QUEUE_MAX)),
            runs: Arc::new(Semaphore::new(cost.runs_max)),
        }
    }

    /// A place in the queue, if there is one.
    pub fn try_enter(&self, address: AddressSlot) -> Option<Place> {
        let queue = self.queue.clone().try_acquire_owned().ok()?;
        Some(Place {
            _address: address,
            _queue: queue,
        })
    }

    /// Whether the password is the stored one. With nothing stored the same work is done, for the same answer as a wrong one.
    pub async fn check(&self, password: Box<[u8]>, stored: Option<StoredHash>, place: Place) -> Result<bool, OpError> {
        let cost = self.cost.clone();
        self.run(place, move || match stored {
            Some(stored) => match Argon2::default().verify_password(&password, stored.parsed.as_ref()) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error),
            },
            None => {
                let mut output = [0; OUTPUT_BYTES];
                argon2id(cost).hash_password_into(&password, &[0; SALT_BYTES], &mut output)?;
                std::hint::black_box(output);
                Ok(false)
            }
        })
        .await
    }

    /// Hashes a new password. Changes of records come one at a time, so they need no place in the queue.
    pub async fn hash(&self, password: Box<[u8]>) -> Result<StoredHash, OpError> {
        let cost = self.cost.clone();
        let mut salt = [0; SALT_BYTES];
        self.env.entropy.fill(&mut salt);
        self.run((), move || {
            let parsed = argon2id(cost).hash_password_with_salt(&password, &salt)?;
            Ok(StoredHash {
                text: parsed.to_string().into(),
                parsed: parsed.into(),
            })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        place: impl Send + 'static,
        work: impl FnOnce() -> Result<T, password_hash::Error> + Send + 'static,
    ) -> Result<T, OpError> {
        let permit = self
            .runs
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| OpError::ShuttingDown)?;
        let done = self.env.run_blocking(move || {
            let _held_until_done = (permit, place);
            work()
        });
        match done.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => {
                tracing::error!(%error, "Argon2id failed");
                Err(OpError::Overloaded {
                    what: "memory for password hashing",
                    retry_after_s: 1,
                })
            }
            Err(_) => Err(OpError::ShuttingDown),
        }
    }
}

fn argon2id(cost: Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_processors_stay_free_of_argon2id() {
        let runs = [1, 2, 4, 7, 8, 64].map(|processors| PasswordCost::default().on_processors(processors).runs_max);
        assert_eq!(runs, [1, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn a_stored_hash_that_asks_for_too_much_is_damaged() {
        let tail = "$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let parse = |head: &str| StoredHash::parse(&format!("{head}{tail}")).is_ok();
        assert!(parse("$argon2id$v=19$m=19456,t=2,p=1"));
        assert!(!parse("$argon2id$v=19$m=4294967295,t=2,p=1"));
        assert!(!parse("$argon2id$v=19$m=19456,t=4294967295,p=1"));
        assert!(!parse("$argon2id$v=19$m=19456,t=2,p=1000"));
        assert!(!parse("$argon2i$v=19$m=19456,t=2,p=1"));
        assert!(StoredHash::parse("$argon2id$v=19$m=19456,t=2,p=1").is_err());
        assert!(StoredHash::parse("").is_err());
    }
}
