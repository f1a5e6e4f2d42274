//! What a node's disk would hold after a power loss, read with the product's own recovery from a copy of the disk.
//!
//! The copy holds what was synced and nothing else, so whatever a survey shows was durable at its moment. The node notices nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use kv_storage::core::clock::{Clock, SlotClocks};
use kv_storage::core::key_ops::KeyOps;
use kv_storage::core::op::{Body, KeyedOp};
use kv_storage::core::slot::{SYSTEM_SLOT, shard_slots};
use kv_storage::core::stamp::OriginId;
use kv_storage::shard::{Place as Home, Shard, ShardConfig};
use kv_storage::store::cache::BlockCache;
use kv_storage::store::disk::{Disk, OpenMode};
use kv_storage::store::log::{self, LogSecret, SECRET_BYTES};
use kv_storage::types::{Key, UserId, WallMs};
use tracing::subscriber::{NoSubscriber, with_default};
use xxhash_rust::xxh3::xxh3_64;

use super::history::{HeldKind, HeldOp, Place, Survey};
use super::plan::{Plan, Topology};
use super::record::Recorder;
use crate::disk::SimDisk;
use crate::engine::DATA_DIR;

const BATCH_BYTES: usize = 1 << 20;
/// Never used to stamp anything.
const ORIGIN: OriginId = OriginId(u64::MAX);
/// Never used either: nothing is written.
const NEW_SECRET: LogSecret = LogSecret::new([0; SECRET_BYTES]);

/// What all logs of a node may take: of each shard those that wait to be sealed, the active one, the next one, and those that are used again or
/// about to be removed.
pub fn log_bytes_max(plan: &Plan) -> u64 {
    const OTHERS: u64 = 6;
    /// Beyond a log's size: the room that is kept for clears, and one record.
    const BEYOND_BYTES: u64 = 72 << 10;
    let logs = plan.shard.frozen_max as u64 + OTHERS;
    u64::from(plan.shards + 1) * logs * (plan.shard.log_bytes + BEYOND_BYTES)
}

/// Reads all that is durable on a node's disk.
pub fn of_disk(disk: &SimDisk, plan: &Plan, recorder: &Recorder) -> Result<Survey, String> {
    let left = disk.after_power_loss();
    let mut survey = Survey::default();
    let logs = left.files().into_iter();
    survey.log_bytes = logs
        .filter(|(path, _)| log::parse_file_name(&path.file_name().unwrap_or_default().to_string_lossy()).is_some())
        .map(|(_, len)| len)
        .sum();
    // What it says of damage would look as if the node said it.
    survey.is_whole = is_whole(&left).unwrap_or(false);
    with_default(NoSubscriber::default(), || {
        (0..=plan.shards).try_for_each(|index| read_shard(&left, plan, index, recorder, &mut survey))
    })?;
    Ok(survey)
}

/// What `node.json` says; nothing if there is none, or it is damaged.
fn is_whole(disk: &SimDisk) -> Option<bool> {
    let file = disk
        .mount()
        .open(format!("{DATA_DIR}/node.json").as_ref(), OpenMode::Read)
        .ok()?;
    let mut bytes = vec![0; file.len().ok()? as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    Some(!record["is_new"].as_bool()?)
}

fn read_shard(disk: &SimDisk, plan: &Plan, index: u16, recorder: &Recorder, survey: &mut Survey) -> Result<(), String> {
    let is_cluster = plan.topology == Topology::Cluster;
    let (slots, name) = match index == plan.shards {
        true => (SYSTEM_SLOT.0..SYSTEM_SLOT.0 + 1, "system".to_owned()),
        false => (shard_slots(index, plan.shards), format!("shard-{index:03}")),
    };
    let home = Home {
        disk: Arc::new(disk.mount()),
        dir: format!("{DATA_DIR}/{name}-of-{:03}", plan.shards).into(),
        shard: index,
        slots,
        cache: Arc::new(BlockCache::new(1 << 20)),
        new_secret: NEW_SECRET,
        // Which origins are its own, only `node.json` would say; others' ops come in any order.
        own_origins: is_cluster.then(Arc::default),
    };
    let config = ShardConfig {
        replicated: is_cluster,
        ..plan.shard.clone()
    };
    let (shard, report) = Shard::open(home, config, ORIGIN).map_err(|error| error.to_string())?;
    let reader = shard.reader();
    let clocks = reader.durable_clocks();
    let mut scan = reader.scan(clocks.clone(), WallMs(0)).0.with_cleared();
    survey.clocks.join(&clocks);
    survey.damage.extend(report.damage);
    let mut keys: BTreeMap<(UserId, Key), KeyOps> = BTreeMap::new();
    loop {
        match scan.next_batch(BATCH_BYTES) {
            Ok(None) => break,
            Ok(Some(ops)) => {
                for KeyedOp { user, key, op } in ops {
                    keys.entry((user, key)).or_default().insert(op);
                }
            }
            Err(error) => {
                survey.damage.push(error.to_string());
                if scan.skip_damaged().is_none() {
                    break;
                }
            }
        }
    }
    for ((user, key), ops) in keys {
        survey.ops.extend(held_ops(&user, &key, &ops, recorder));
    }
    Ok(())
}

fn held_ops<'a>(
    user: &UserId,
    key: &Key,
    ops: &'a KeyOps,
    recorder: &'a Recorder,
) -> impl Iterator<Item = HeldOp> + 'a {
    let name = xxh3_64(format!("{} {}", user.as_str(), key.as_str()).as_bytes());
    let place = place_of(user, key);
    let visibility = ops.visibility();
    ops.ops().map(move |op| {
        let (kind, digest, text) = match &op.body {
            Body::Part(text) => (HeldKind::Part, xxh3_64(text.as_bytes()), Some(text)),
            Body::Value(text) => (HeldKind::Value, xxh3_64(text.as_bytes()), Some(text)),
            Body::Clear(seen) => (HeldKind::Clear, seen.digest(), None),
            Body::Spent { .. } => (HeldKind::Spent, 0, None),
        };
        let texts = text.and_then(|text| recorder.parse(text.as_ref()));
        HeldOp {
            name,
            place,
            dot: op.dot,
            time: op.time,
            request: op.request_id,
            kind,
            digest,
            text: texts.and_then(|texts| texts.first().copied()),
            stands: visibility.stands(op),
        }
    })
}

fn place_of(user: &UserId, key: &Key) -> Option<Place> {
    Some(Place {
        user: user.as_str().strip_prefix("user-")?.parse().ok()?,
        key: key.as_str().strip_prefix("key-")?.parse().ok()?,
    })
}

/// The clocks of all disks, for the tests of the checks.
#[cfg(test)]
pub fn clocks(slot: u16, origin: u64, last: u64) -> SlotClocks {
    let mut clock = Clock::default();
    clock.insert_range(OriginId(origin), 1, last);
    let mut clocks = SlotClocks::default();
    clocks.join_slot(kv_storage::core::slot::SlotId(slot), &clock);
    clocks
}
