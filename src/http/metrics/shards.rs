//! The node's own figures in `/metrics`, in the words of the design; read when they are asked for.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::node::{Node, ShardFigures};

use super::{MetricSource, cluster};

struct Shards(Node);

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shards")
    }
}

impl MetricSource for Node {
    fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Shards(self.clone())));
        cluster::register(self, registry);
    }
}

type Figure = (&'static str, &'static str, fn(&ShardFigures) -> u64);

const GAUGES: [Figure; 12] = [
    ("shard_serving", "1 while the shard serves", |f| u64::from(f.serving)),
    ("shard_waiting_requests", "Requests that wait for the shard", |f| {
        f.waiting_requests
    }),
    ("shard_segments", "Sealed segments", |f| f.stats.segments),
    ("shard_segment_bytes", "Bytes of sealed segments on disk", |f| {
        f.stats.segment_bytes
    }),
    (
        "shard_segment_memory_bytes",
        "Memory for filters and block indexes",
        |f| f.stats.segment_memory_bytes,
    ),
    ("shard_sealed_ops", "Ops in sealed segments", |f| f.stats.sealed_ops),
    (
        "shard_sealed_keys",
        "Keys in sealed segments; a key in several counts in each",
        |f| f.stats.sealed_keys,
    ),
    ("shard_memtable_ops", "Ops in memtables", |f| f.stats.memtable_ops),
    ("shard_frozen_memtables", "Memtables that wait to be sealed", |f| {
        f.stats.frozen_memtables
    }),
    ("shard_lost_ops", "Acknowledged ops lost to damage on this disk", |f| {
        f.stats.lost_ops
    }),
    ("shard_damaged_slots", "Slots whose reads are refused for damage", |f| {
        f.stats.damaged_slots
    }),
    ("shard_disk_full", "1 while adds are refused for want of space", |f| {
        u64::from(f.stats.disk_full)
    }),
];

const COUNTERS: [Figure; 5] = [
    ("shard_commits", "Groups made durable, one fdatasync each", |f| {
        f.stats.commits
    }),
    ("shard_merges", "Segments made by sealing and merging", |f| {
        f.stats.merges
    }),
    ("shard_merge_errors", "Merges that failed", |f| f.stats.merge_errors),
    ("shard_restarts", "Times the shard was opened anew", |f| f.restarts),
    ("shard_quarantined_files", "Damaged files set aside", |f| {
        f.stats.quarantined_files
    }),
];

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.0.figures();
        for (name, help, figure) in GAUGES {
            let gauge = ConstGauge::new(0i64);
            let mut family = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            for shard in &figures {
                let value = i64::try_from(figure(shard)).unwrap_or(i64::MAX);
                let labels = [("shard", shard.name.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, figure) in COUNTERS {
            let counter = ConstCounter::new(0u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for shard in &figures {
                let labels = [("shard", shard.name.as_str())];
                ConstCounter::new(figure(shard)).encode(family.encode_family(&labels)?)?;
            }
        }
        let commit = "How long a commit of the shard takes now, on the mean";
        let mut family = encoder.encode_descriptor(
            "shard_commit",
            commit,
            Some(&Unit::Seconds),
            ConstGauge::new(0.0).metric_type(),
        )?;
        for shard in &figures {
            let labels = [("shard", shard.name.as_str())];
            ConstGauge::new(shard.commit_time.as_secs_f64()).encode(family.encode_family(&labels)?)?;
        }
        self.encode_cache(encoder)
    }
}

impl Shards {
    fn encode_cache(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cache = self.0.cache_figures();
        for (name, help, count) in [
            (
                "block_cache_hits",
                "Blocks of segments that a read found in memory",
                cache.hits,
            ),
            (
                "block_cache_misses",
                "Blocks that a read took from the disk",
                cache.misses,
            ),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let held = ConstGauge::new(i64::try_from(cache.bytes).unwrap_or(i64::MAX));
        let help = "Held in the cache of blocks";
        held.encode(encoder.encode_descriptor("block_cache", help, Some(&Unit::Bytes), held.metric_type())?)
    }
}
