//! A table of the nodes that is written over each second, on standard error when that is a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::time::interval;

use crate::api::{Member, MemberState, path};
use crate::cli::cluster::{behind, table};
use crate::cli::progress;
use crate::client::Client;

use super::probe::{self, SILENCE_MAX};

const EVERY: Duration = Duration::from_secs(1);

/// What is printed above the table, without breaking it.
pub struct Above(ProgressBar);

impl Above {
    /// Hidden unless a person watches.
    pub fn new() -> Self {
        let shown = std::io::stderr().is_terminal();
        Self(if shown {
            progress::text_line()
        } else {
            ProgressBar::hidden()
        })
    }

    pub fn line(&self, text: &str) {
        progress::say(text);
    }

    /// The table stays as it is: what is printed next comes below it, and so does what the terminal itself writes for Ctrl-C.
    pub fn leave(&self) {
        self.0.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Keeps the table up to date, until it is dropped.
    pub async fn show(&self, urls: &[String], client: Option<Client>) {
        if self.0.is_hidden() {
            return std::future::pending().await;
        }
        let mut before: Vec<Option<(Instant, Figures)>> = vec![None; urls.len()];
        let mut ticks = interval(EVERY);
        loop {
            ticks.tick().await;
            let lags = lags(client.as_ref()).await;
            let mut rows = Vec::with_capacity(urls.len());
            for (index, (url, before)) in urls.iter().zip(&mut before).enumerate() {
                let address = url.trim_start_matches("http://");
                let now = figures(address).await;
                let rate = match (&before, &now) {
                    (Some((then, old)), Some(new)) => new.rate_since(old, then.elapsed()),
                    _ => "-".to_owned(),
                };
                let lag = lags.iter().find(|(http, _)| http == address);
                let unknown = if client.is_some() { "?" } else { "-" };
                rows.push([
                    (index + 1).to_string(),
                    address.to_owned(),
                    if now.is_some() { "yes" } else { "no" }.to_owned(),
                    now.as_ref()
                        .map_or_else(|| "-".to_owned(), |figures| figures.ops.to_string()),
                    rate,
                    lag.map_or_else(|| unknown.to_owned(), |(_, behind)| behind.clone()),
                ]);
                *before = now.map(|figures| (Instant::now(), figures));
            }
            let heads = ["NODE", "ADDRESS", "ALIVE", "STORED OPS", "REQUESTS/S", "BEHIND"];
            self.0.set_message(table(&heads, &rows));
        }
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Of each member, its address and how far it is behind; nothing when there is no cluster.
async fn lags(client: Option<&Client>) -> Vec<(String, String)> {
    let Some(client) = client else { return Vec::new() };
    let status = client.with_deadline(SILENCE_MAX).cluster_status().await;
    of_each_address(status.map(|status| status.members).unwrap_or_default())
}

/// A node that was removed may have had the address of one that took its place.
fn of_each_address(members: Vec<Member>) -> Vec<(String, String)> {
    members
        .into_iter()
        .filter(|member| member.state != MemberState::Removed)
        .map(|member| (member.http.clone(), behind(&member)))
        .collect()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    /// In logs and segments.
    ops: u64,
    /// Since the node's start; not those for these figures.
    requests: u64,
}

impl Figures {
    fn rate_since(&self, old: &Self, passed: Duration) -> String {
        let done = self.requests.saturating_sub(old.requests);
        format!("{:.0}", done as f64 / passed.as_secs_f64().max(0.001))
    }

    fn read(metrics: &str) -> Self {
        let mut figures = Self::default();
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<u64>() else { continue };
            let probe = || name.contains("call=\"metrics\"") || name.contains("call=\"cluster/status\"");
            if name.starts_with("kv_shard_sealed_ops{") || name.starts_with("kv_shard_memtable_ops{") {
                figures.ops += value;
            } else if name.starts_with("kv_http_requests_total{") && !probe() {
                figures.requests += value;
            }
        }
        figures
    }
}

/// None when the node does not answer as a node does.
async fn figures(address: &str) -> Option<Figures> {
    let answer = probe::get(address, path::METRICS).await.ok()?;
    answer.ok().map(|metrics| Figures::read(&metrics))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_removed_does_not_hide_the_one_at_its_address() {
        let member = |state: &str, lag_ops: u64| {
            let member = serde_json::json!({
                "node": "01", "peer": "127.0.0.1:8100", "http": "127.0.0.1:8000", "zone": "a", "weight": 100, "state": state,
                "alive": true, "slots": 1024, "lag_ops": lag_ops,
            });
            serde_json::from_value(member).unwrap()
        };
        let lags = of_each_address(vec![member("removed", 7), member("up", 0)]);
        assert_eq!(lags, [("127.0.0.1:8000".to_owned(), "-".to_owned())]);
    }

    #[test]
    fn the_figures_are_read_from_the_metrics_of_a_node() {
        let metrics = "# TYPE kv_shard_sealed_ops gauge\n\
            kv_shard_sealed_ops{shard=\"0\"} 5\nkv_shard_sealed_ops{shard=\"1\"} 7\nkv_shard_memtable_ops{shard=\"0\"} 1\n\
            kv_http_requests_total{call=\"add_value\",status=\"200\"} 20\n\
            kv_http_requests_total{call=\"metrics\",status=\"200\"} 9\n\
            kv_http_requests_in_flight 3\n# EOF\n";
        let figures = Figures::read(metrics);
        assert_eq!(figures, Figures { ops: 13, requests: 20 });
        let before = Figures { ops: 0, requests: 5 };
        assert_eq!(figures.rate_since(&before, Duration::from_millis(500)), "30");
        assert_eq!(before.rate_since(&figures, Duration::from_secs(1)), "0");
    }
}
