//! What the front counts, and where the node adds what it counts.
//!
//! Counts by call and status lie in arrays, not in maps: recording one takes no lock and no hash, and `/metrics` lists them
//! in the same order each time.

mod cluster;
mod latency;
mod shards;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use crate::http::config::METRICS_AGE_MAX;
use crate::http::route::Call;
use crate::quota::{Quota, Share};

use latency::Latencies;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Statuses that are counted by themselves; any other counts as the last.
pub const STATUSES: [u16; 15] = [200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 500, 503, 507, 0];
/// Something that counts: it registers its metrics once, under the prefix `kv`, and goes on counting in its own copies.
pub trait MetricSource {
    fn register(&self, registry: &mut Registry);
}

impl<F: Fn(&mut Registry)> MetricSource for F {
    fn register(&self, registry: &mut Registry) {
        self(registry);
    }
}

/// Why a request or connection was refused at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Connections,
    Requests,
    BodyBytes,
    AnswerBytes,
    SlowBody,
    Logins,
    Streams,
}

const REFUSALS: [&str; 7] = [
    "connections",
    "requests",
    "body_bytes",
    "answer_bytes",
    "slow_body",
    "logins",
    "streams",
];
const CUTS: [&str; 3] = ["slow_head", "slow_reader", "idle"];

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The text that was made last.
    shared: Mutex<Option<(Instant, Bytes)>>,
    calls: Arc<Calls>,
    refusals: Arc<Labelled>,
    cuts: Arc<Labelled>,
    failed_logins: Counter,
    requests_in_flight: Gauge,
    body_bytes_in_flight: Gauge,
    pub open_connections: Gauge,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub aborted_answers: Counter,
}

impl Metrics {
    pub fn new(sources: &[&dyn MetricSource]) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("kv"),
            shared: Mutex::default(),
            calls: Arc::default(),
            refusals: Arc::new(Labelled::new(
                "http_refused",
                "Requests and connections refused at the door",
                "reason",
                &REFUSALS,
            )),
            cuts: Arc::new(Labelled::new(
                "http_cut_connections",
                "Connections cut",
                "reason",
                &CUTS,
            )),
            failed_logins: Counter::default(),
            requests_in_flight: Gauge::default(),
            body_bytes_in_flight: Gauge::default(),
            open_connections: Gauge::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            aborted_answers: Counter::default(),
        };
        metrics.register();
        for source in sources {
            source.register(&mut metrics.registry);
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", version);
        registry.register_collector(Box::new(self.calls.clone()));
        registry.register_collector(Box::new(self.refusals.clone()));
        registry.register_collector(Box::new(self.cuts.clone()));
        registry.register(
            "http_failed_logins",
            "Credentials found wrong",
            self.failed_logins.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests being carried out, probes aside",
            self.requests_in_flight.clone(),
        );
        registry.register_with_unit(
            "http_body_in_flight",
            "Bodies being read or worked on",
            Unit::Bytes,
            self.body_bytes_in_flight.clone(),
        );
        registry.register(
            "http_open_connections",
            "Open connections",
            self.open_connections.clone(),
        );
        registry.register_with_unit("http_received", "Received", Unit::Bytes, self.received_bytes.clone());
        registry.register_with_unit("http_sent", "Sent", Unit::Bytes, self.sent_bytes.clone());
        registry.register(
            "http_aborted_answers",
            "Answers cut in the middle by an error",
            self.aborted_answers.clone(),
        );
    }

    pub fn finished(&self, call: Call, status: StatusCode, took: Duration) {
        self.calls.finished(call, status, took);
    }

    pub fn refused(&self, reason: Refusal) {
        if let Some(counter) = self.refusals.counters.get(reason as usize) {
            counter.inc();
        }
    }

    pub fn cut(&self, reason: &str) {
        let counted = CUTS.iter().zip(&self.cuts.counters).find(|(name, _)| **name == reason);
        if let Some((_, counter)) = counted {
            counter.inc();
        }
    }

    pub fn failed_login(&self) {
        self.failed_logins.inc();
    }

    /// The metrics as they are now, with a permit for their bytes. When there is none, all who ask within [`METRICS_AGE_MAX`] share one text:
    /// an overloaded node must still be observable, and those who leave it untaken must not make it hold ever more.
    pub fn text_within(
        &self,
        room: &Quota,
        requests_in_flight: usize,
        body_bytes_in_flight: usize,
    ) -> (Bytes, Option<Share>) {
        let now = Instant::now();
        let last = self.shared.lock().clone();
        if let Some((made, text)) = last
            && now < made + METRICS_AGE_MAX
            && room.free() < text.len()
        {
            return (text, None);
        }
        let text = Bytes::from(self.text(requests_in_flight, body_bytes_in_flight));
        *self.shared.lock() = Some((now, text.clone()));
        let share = room.take(text.len());
        (text, share)
    }

    pub fn text(&self, requests_in_flight: usize, body_bytes_in_flight: usize) -> String {
        self.requests_in_flight.set(requests_in_flight as i64);
        self.body_bytes_in_flight.set(body_bytes_in_flight as i64);
        let mut text = String::new();
        // Writing into a String does not fail, but a source of someone else's might.
        if text::encode(&mut text, &self.registry).is_err() {
            tracing::warn!("a metric could not be written");
        }
        text
    }
}

/// Counts and latencies by call.
#[derive(Debug)]
struct Calls {
    counts: [[Counter; STATUSES.len()]; Call::ALL.len()],
    latencies: [Latencies; Call::ALL.len()],
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            latencies: std::array::from_fn(|_| Latencies::default()),
        }
    }
}

impl Calls {
    fn finished(&self, call: Call, status: StatusCode, took: Duration) {
        let known = STATUSES.iter().position(|known| *known == status.as_u16());
        let column = known.unwrap_or(STATUSES.len() - 1);
        if let Some(counter) = self.counts.get(call as usize).and_then(|row| row.get(column)) {
            counter.inc();
        }
        if let Some(latency) = self.latencies.get(call as usize) {
            latency.observe(took);
        }
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor("http_requests", "Requests answered", None, MetricType::Counter)?;
        for (call, row) in Call::ALL.iter().zip(&self.counts) {
            for (status, counter) in STATUSES.iter().zip(row).filter(|(_, counter)| counter.get() > 0) {
                let status = if *status == 0 {
                    "other".to_owned()
                } else {
                    status.to_string()
                };
                counter.encode(family.encode_family(&[("call", call.name()), ("status", &status)])?)?;
            }
        }
        let unit = Unit::Seconds;
        let mut family = encoder.encode_descriptor(
            "http_request_duration",
            "From the end of a request's head to the begin of its answer",
            Some(&unit),
            MetricType::Histogram,
        )?;
        for ((call, latency), row) in Call::ALL.iter().zip(&self.latencies).zip(&self.counts) {
            if row.iter().any(|counter| counter.get() > 0) {
                latency.encode(family.encode_family(&[("call", call.name())])?)?;
            }
        }
        Ok(())
    }
}

/// One counter for each of a few names.
#[derive(Debug)]
struct Labelled {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: &'static [&'static str],
    counters: Vec<Counter>,
}

impl Labelled {
    fn new(name: &'static str, help: &'static str, label: &'static str, values: &'static [&'static str]) -> Self {
        let counters = values.iter().map(|_| Counter::default()).collect();
        Self {
            name,
            help,
            label,
            values,
            counters,
        }
    }
}

impl Collector for Labelled {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        for (value, counter) in self.values.iter().zip(&self.counters) {
            counter.encode(family.encode_family(&[(self.label, *value)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_counts_under_its_call_and_status() {
        let metrics = Metrics::new(&[]);
        metrics.finished(Call::AddValue, StatusCode::OK, Duration::from_millis(3));
        metrics.finished(Call::AddValue, StatusCode::IM_A_TEAPOT, Duration::from_millis(3));
        metrics.refused(Refusal::BodyBytes);
        metrics.cut("idle");
        let text = metrics.text(2, 3);
        for line in [
            r#"kv_http_requests_total{call="add_value",status="200"} 1"#,
            r#"kv_http_requests_total{call="add_value",status="other"} 1"#,
            r#"kv_http_request_duration_seconds_count{call="add_value"} 2"#,
            r#"kv_http_refused_total{reason="body_bytes"} 1"#,
            r#"kv_http_cut_connections_total{reason="idle"} 1"#,
            "kv_http_requests_in_flight 2",
            "kv_http_body_in_flight_bytes 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    /// Without a bucket `+Inf` that counts all, Prometheus takes nothing of the text, or makes no quantiles of it.
    #[test]
    fn a_histogram_ends_with_a_bucket_that_counts_everything() {
        let metrics = Metrics::new(&[]);
        for took in [Duration::from_micros(1), Duration::from_millis(3), Duration::MAX] {
            metrics.finished(Call::AddValue, StatusCode::OK, took);
        }
        let text = metrics.text(0, 0);
        let of_buckets: Vec<(&str, u64)> = text
            .lines()
            .filter_map(|line| line.strip_prefix(r#"kv_http_request_duration_seconds_bucket{le=""#))
            .map(|line| {
                let (bound, rest) = line.split_once('"').unwrap();
                (bound, rest.rsplit_once(' ').unwrap().1.parse().unwrap())
            })
            .collect();
        assert!(of_buckets.is_sorted_by_key(|(_, count)| *count), "{text}");
        assert_eq!(of_buckets.last(), Some(&("+Inf", 3)), "{text}");
        assert!(
            of_buckets.iter().all(|(bound, _)| bound.parse::<f64>().is_ok()),
            "{text}"
        );
        assert!(
            text.contains("kv_http_request_duration_seconds_count{call=\"add_value\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn a_source_adds_its_metrics() {
        let ops: Counter = Counter::default();
        let source = |registry: &mut Registry| registry.register("shard_ops", "Ops appended", ops.clone());
        let metrics = Metrics::new(&[&source]);
        ops.inc_by(7);
        assert!(metrics.text(0, 0).contains("kv_shard_ops_total 7\n"));
    }
}
