//! What a member counts of its cluster, in `/metrics`; read when it is asked for. A node without others has none of it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::node::cluster::ClusterFigures;
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

const GAUGES: [Figure<ClusterFigures>; 2] = [
    (
        "unsynced_slots",
        "Slots of which this node may lack something that it once held, or that it is new to",
        |f| f.unsynced_slots,
    ),
    ("peer_connections", "Connections of other nodes that are served", |f| {
        f.links.serving
    }),
];

const COUNTERS: [Figure<ClusterFigures>; 11] = [
    ("quorum_failures", "Requests for which too few replicas answered", |f| {
        f.quorum_failures
    }),
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
const PEER_GAUGES: [Figure<PeerFigures>; 4] = [
    ("peer_up", "1 while this node is connected to the peer", |f| {
        u64::from(f.is_up)
    }),
    (
        "peer_waiting_requests",
        "Requests that the peer did not answer yet",
        |f| f.waiting,
    ),
    ("peer_waiting_bytes", "Bytes of these requests", |f| f.waiting_bytes),
    (
        "peer_round_trip_microseconds",
        "What the last keep-alive took, there and back",
        |f| f.round_trip_us,
    ),
];

const PEER_COUNTERS: [Figure<PeerFigures>; 8] = [
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
    ("peer_silent", "Connections closed because the peer was silent", |f| {
        f.silent
    }),
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
        let names: Vec<String> = figures.peers.iter().map(|(node, ..)| node.to_string()).collect();
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
            peers.map(move |(index, (.., link, _))| (index, figure(link)))
        };
        for (name, help, figure) in PEER_GAUGES {
            let values = of_peers(figure).map(|(index, value)| (label(index), gauge(value)));
            family(encoder, (name, help), gauge(0), values)?;
        }
        for (name, help, figure) in PEER_COUNTERS {
            let values = of_peers(figure).map(|(index, value)| (label(index), ConstCounter::new(value)));
            family(encoder, (name, help), ConstCounter::new(0), values)?;
        }
        let lags = figures.peers.iter().enumerate();
        let lags = lags.map(|(index, (.., lag_ops))| (label(index), gauge(*lag_ops)));
        let lag = ("peer_lag_ops", "Ops of the peer's that this node lacks");
        family(encoder, lag, gauge(0), lags)
    }
}
