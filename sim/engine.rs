//! What the simulation asks of a storage engine: one shard, synchronous, on a disk that may fail.

use std::path::Path;

use kv_storage::core::op::Dot;
use kv_storage::node::Added;
use kv_storage::types::{Key, RequestId, UserId, WallMs};

use crate::disk::Mount;
use crate::rng::Rng;

/// Where the files of the engine lie on the simulated disk.
pub const DATA_DIR: &str = "/data";

/// The sizes that a scenario draws, small enough that everything happens often.
#[derive(Debug, Clone)]
pub struct Tuning {
    pub log_bytes: u64,
    pub fill_bytes: u64,
    pub frozen_max: usize,
    pub fan_out: usize,
    pub idle_ms: u64,
    pub value_bytes_max: u64,
}

impl Tuning {
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            log_bytes: *rng.pick(&[68 << 10, 80 << 10, 160 << 10]),
            fill_bytes: *rng.pick(&[4 << 10, 16 << 10, 64 << 10]),
            frozen_max: *rng.pick(&[1, 2]),
            fan_out: *rng.pick(&[2, 4]),
            idle_ms: *rng.pick(&[0, 3_000, 20_000]),
            value_bytes_max: *rng.pick(&[2_000, 25_000, 1 << 30]),
        }
    }
}

/// Why the engine did not do something.
#[derive(Debug)]
pub enum Refusal {
    /// Nothing was changed; it goes on.
    DiskFull,
    /// The value that the add belongs to would be longer than allowed; nothing was changed.
    TooLong,
    /// The engine stopped; what it had not acknowledged may or may not have happened.
    Failed(String),
}

/// What a read gave.
#[derive(Debug, Default)]
pub struct Seen {
    pub values: Vec<String>,
    /// The name and text of each op that the key is made of, as far as the engine has such names.
    pub ops: Vec<(Dot, String)>,
}

/// Whose key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub user: UserId,
    pub key: Key,
}

pub trait Engine: Sized {
    /// Opens what is on the disk, or a new store when there is nothing. `seed` decides its entropy.
    fn open(disk: Mount, dir: &Path, tuning: &Tuning, seed: u64, now: WallMs) -> Result<Self, Refusal>;

    /// Takes the op into the group that the next `commit` makes durable. Its answer counts from then on.
    fn add(
        &mut self,
        place: &Place,
        text: &str,
        finish: bool,
        request: Option<RequestId>,
        now: WallMs,
    ) -> Result<Added, Refusal>;

    fn clear(&mut self, place: &Place, now: WallMs) -> Result<(), Refusal>;

    /// Everything taken so far is durable on Ok.
    fn commit(&mut self, now: WallMs) -> Result<(), Refusal>;

    fn get(&mut self, place: &Place, now: WallMs) -> Result<Seen, Refusal>;

    /// One page of the user's keys that have values, and the key after which the next page begins, if there may be more.
    fn keys(
        &mut self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
        now: WallMs,
    ) -> Result<(Vec<String>, Option<String>), Refusal>;

    /// One step of background work; whether there was any.
    fn maintain(&mut self, now: WallMs) -> Result<bool, Refusal>;

    /// Background work until there is none left.
    fn settle(&mut self, now: WallMs) -> Result<(), Refusal>;
}
