//! What a member counts of its cluster, in `/metrics`; read when it is asked for. A node without others has none of it.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::node::cluster::{ClusterFigures, PeerSeen};
use crate::node::peers::PeerFigures;
use crate::node::{Node, cluster::Cluster};

struct Members(Cluster);

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Members")
    }
}

pub(super) fn register(node: &Node, registry: &mut Registry) {
    if let Some(cluster) = node.cluster() {
        registry.register_collector(Box::new(Members(cluster.clone())));
    }
}

type Figure<T> = (&'static str, &'static str, fn(&T) -> u64);

const GAUGES: [Figure<ClusterFigures>; 6] = [
    ("members", "Members of the cluster", |f| f.members),
    ("members_alive", "Members that gossip sees alive", |f| f.members_alive),
    (
        "unsynced_slots",
        "Slots of this node for which its word does not count: it is new or damaged there, or was just started",
        |f| f.unsynced_slots,
    ),
    ("voting_slots", "Slots of this node for which its word counts", |f| {
        f.voting_slots
    }),
    (
        "quarantined_segments",
        "Files of this node that were set aside because they are damaged",
        |f| f.quarantined_segments,
    ),
    ("peer_connections", "Connections of other nodes that are served", |f| {
        f.links.serving
    }),
];

const COUNTERS: [Figure<ClusterFigures>; 13] = [
    (
        "quorum_failures",
        "Requests of clients on keys for which too few replicas answered",
        |f| f.quorum_failures,
    ),
    ("read_repairs", "Reads that met replicas that differed", |f| {
        f.read_repairs
    }),
    ("forwarded_requests", "Requests carried out by another node", |f| {
        f.forwarded
    }),
    (
        "hedged_requests",
        "Requests that a second node was asked for too",
        |f| f.hedged,
    ),
    ("pulled_ops", "Ops taken from peers to catch up", |f| f.pulled_ops),
    ("pulled_bytes", "Bytes of ops taken from peers to catch up", |f| {
        f.pulled_bytes
    }),
    (
        "stream_ops",
        "Ops that came from other replicas, live, for a read, or to catch up",
        |f| f.taken_ops,
    ),
    ("stream_bytes", "Bytes of these ops", |f| f.taken_bytes),
    (
        "reconciled_slots",
        "Slots from which ops were removed that all others had dropped",
        |f| f.reconciled_slots,
    ),
    ("peer_accepted", "Connections of other nodes that were let in", |f| {
        f.links.accepted
    }),
    (
        "peer_refused",
        "Connections to the peer port that were turned away",
        |f| f.links.refused,
    ),
    (
        "peer_wrong",
        "Peers that turned out to be somebody else, or not to know the key",
        |f| f.links.wrong_peers,
    ),
    ("peer_garbage", "Connections closed for what was no message", |f| {
        f.links.garbage
    }),
];

/// By peer.
const PEER_GAUGES: [Figure<PeerFigures>; 3] = [
    ("peer_up", "1 while this node is connected to the peer", |f| {
        u64::from(f.is_up)
    }),
    (
        "peer_waiting_requests",
        "Requests that the peer did not answer yet",
        |f| f.waiting,
    ),
    ("peer_waiting_bytes", "Bytes of these requests", |f| f.waiting_bytes),
];

const PEER_COUNTERS: [Figure<PeerFigures>; 12] = [
    ("peer_sent_bytes", "Sent to the peer", |f| f.bytes_sent),
    ("peer_received_bytes", "Received from the peer", |f| f.bytes_received),
    ("peer_requests", "Requests made to the peer", |f| f.requests),
    ("peer_responses", "Answers of the peer", |f| f.responses),
    ("peer_connects", "Connections made to the peer", |f| f.connects),
    ("peer_dial_failures", "Attempts to connect in vain", |f| f.dial_failures),
    (
        "peer_busy",
        "Requests not sent because too much waited for the peer",
        |f| f.busy,
    ),
    (
        "peer_pushed_ops",
        "Ops sent to the peer as they were written here, whether or not it took them",
        |f| f.pushed_ops,
    ),
    ("peer_pushed_bytes", "Bytes of the messages with these ops", |f| {
        f.pushed_bytes
    }),
    ("peer_pulled_ops", "Ops taken from the peer to catch up", |f| {
        f.pulled_ops
    }),
    (
        "peer_pulled_bytes",
        "Bytes of ops taken from the peer to catch up",
        |f| f.pulled_bytes,
    ),
    ("peer_silent", "Connections closed because the peer was silent", |f| {
        f.silent
    }),
];

/// What may not be known of a peer; no value is given then.
type MaybeFigure = (&'static str, &'static str, fn(&PeerSeen) -> Option<f64>);

const PEER_MAYBE: [MaybeFigure; 5] = [
    (
        "peer_round_trip_seconds",
        "What the last keep-alive took, there and back",
        |f| Some(Duration::from_micros(f.link.round_trip_us).as_secs_f64()),
    ),
    (
        "peer_lag_ops",
        "Ops of the peer's that this node lacked when they last compared and that did not come since",
        |f| Some(f.lag?.ops as f64),
    ),
    (
        "peer_lag_bytes",
        "An estimate: the lag in ops times the mean size of an op",
        |f| Some(f.lag?.bytes? as f64),
    ),
    (
        "peer_lag_seconds",
        "Since this node last lacked nothing of the peer's, or since its start; 0 when it lacks nothing",
        |f| Some(f.lag?.seconds),
    ),
    (
        "peer_clock_skew_seconds",
        "How far the peer's wall clock is ahead of this node's, as last seen",
        |f| Some(f.clock_skew_ms? as f64 / 1e3),
    ),
];

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// One metric with a value for each set of labels.
fn family<L: EncodeLabelSet, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: M,
    values: impl Iterator<Item = (L, M)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
    for (labels, metric) in values {
        metric.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for Members {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let figures = self.0.figures();
        let names: Vec<String> = figures.peers.iter().map(|peer| peer.node.to_string()).collect();
        let label = |index: usize| [("peer", names.get(index).map_or("", String::as_str))];
        for (name, help, figure) in GAUGES {
            let metric = gauge(figure(&figures));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        for (name, help, figure) in COUNTERS {
            let metric = ConstCounter::new(figure(&figures));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let refused = figures.refused_datagrams.iter();
        let refused = refused.map(|(reason, count)| ([("reason", *reason)], ConstCounter::new(*count)));
        let gossip = ("gossip_refused", "Datagrams to the gossip port that were not taken");
        family(encoder, gossip, ConstCounter::new(0), refused)?;
        let of_peers = |figure: fn(&PeerFigures) -> u64| {
            let peers = figures.peers.iter().enumerate();
            peers.map(move |(index, peer)| (index, figure(&peer.link)))
        };
        for (name, help, figure) in PEER_GAUGES {
            let values = of_peers(figure).map(|(index, value)| (label(index), gauge(value)));
            family(encoder, (name, help), gauge(0), values)?;
        }
        for (name, help, figure) in PEER_COUNTERS {
            let values = of_peers(figure).map(|(index, value)| (label(index), ConstCounter::new(value)));
            family(encoder, (name, help), ConstCounter::new(0), values)?;
        }
        for (name, help, figure) in PEER_MAYBE {
            let peers = figures.peers.iter().enumerate();
            let values = peers.filter_map(|(index, peer)| Some((label(index), ConstGauge::new(figure(peer)?))));
            family(encoder, (name, help), ConstGauge::new(0.0), values)?;
        }
        Ok(())
    }
}
