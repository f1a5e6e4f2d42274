//! Memory and queues stay within their named limits, and are empty when nobody asks for anything.

use kv_storage::node::peers::CALLS_BYTES_MAX;

use super::Judged;
use crate::cluster::audit::UNSYNCED;
use crate::cluster::history::Figures;

/// What a node's metrics say is never above what is named for it, nor are the logs on its disk.
pub fn nothing_grows_beyond_its_limit(judged: &Judged) -> Result<(), String> {
    let (node, front) = (&judged.history.bounds.node, &judged.history.bounds.front);
    let body_bytes = front.body_bytes_in_flight_max + front.short_body_bytes_in_flight_max;
    let limits = [
        ("kv_shard_waiting_requests", node.shard_requests),
        ("kv_peer_waiting_requests", node.peer_calls),
        ("kv_peer_waiting_bytes", CALLS_BYTES_MAX),
        ("kv_http_requests_in_flight", front.requests_in_flight_max),
        ("kv_http_body_in_flight_bytes", body_bytes),
        ("kv_http_open_connections", front.connections_max),
    ];
    for figures in &judged.history.figures {
        for (name, limit) in limits {
            let Some(value) = value_of(judged, figures, name)? else {
                continue;
            };
            if value > limit as u64 {
                return Err(format!(
                    "{name} of node {} is {value} at {} µs, not {limit}",
                    figures.node, figures.at_us
                ));
            }
        }
    }
    let limit = judged.history.log_bytes_max;
    match judged.history.surveys.iter().find(|survey| survey.log_bytes > limit) {
        Some(survey) => Err(format!(
            "the logs of node {} take {} bytes at {} µs, not {limit}",
            survey.node, survey.log_bytes, survey.at_us
        )),
        None => Ok(()),
    }
}

/// What a page says; one that no longer says it would be checked for nothing. Nothing of peers where there are none, or where a node, which
/// may just have started, has heard of none yet.
fn value_of(judged: &Judged, figures: &Figures, name: &str) -> Result<Option<u64>, String> {
    let value = figures.values.get(name).copied();
    let may_be_absent =
        (name.starts_with("kv_peer_") || name == UNSYNCED) && !(judged.history.have_peers && figures.idle);
    if value.is_none() && !may_be_absent {
        return Err(format!("no {name} of node {} at {} µs", figures.node, figures.at_us));
    }
    Ok(value)
}

/// Once idle, every node gives its page, and no request waits anywhere: a permit that was not given back would show. (Between nodes a few may be on their way.)
/// And every slot votes: damage that was found is healed by then.
pub fn nothing_waits_when_nobody_asks(judged: &Judged) -> Result<(), String> {
    let most = [
        ("kv_shard_waiting_requests", 0),
        // One may be being sealed, for the sake of clears.
        ("kv_shard_frozen_memtables", 1),
        ("kv_http_requests_in_flight", 0),
        ("kv_http_body_in_flight_bytes", 0),
        // A comparison and a question for each of six others.
        ("kv_peer_waiting_requests", 12),
        (UNSYNCED, 0),
    ];
    for figures in judged.history.figures.iter().filter(|figures| figures.idle) {
        for (name, most) in most {
            let Some(value) = value_of(judged, figures, name)? else {
                continue;
            };
            if value > most {
                return Err(format!(
                    "idle at {} µs, {name} of node {} is {value}",
                    figures.at_us, figures.node
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;
    use kv_storage::node::Limits;

    /// All that a page says of a node on which nothing waits.
    fn page() -> Figures {
        let names = [
            "kv_shard_waiting_requests",
            "kv_shard_frozen_memtables",
            "kv_http_requests_in_flight",
            "kv_http_body_in_flight_bytes",
            "kv_http_open_connections",
        ];
        Figures {
            values: names.map(|name| (name.to_owned(), 0)).into(),
            ..Figures::default()
        }
    }

    #[test]
    fn a_metric_that_is_gone_is_found() {
        let with = |figures: Figures, have_peers| {
            let mut sample = sample();
            sample.history.figures.push(figures);
            sample.history.have_peers = have_peers;
            sample
        };
        let idle = || Figures { idle: true, ..page() };
        for check in [nothing_grows_beyond_its_limit, nothing_waits_when_nobody_asks] {
            with(idle(), false).passes(check);
            with(idle(), true).fails(check);
            with(page(), true).passes(check);
            let mut lacking = idle();
            lacking.values.remove("kv_http_requests_in_flight");
            with(lacking, false).fails(check);
        }
        let silent = Figures {
            idle: true,
            ..Figures::default()
        };
        with(silent, false).fails(nothing_waits_when_nobody_asks);
    }

    #[test]
    fn a_queue_that_is_too_long_is_found_and_one_that_never_empties() {
        let waiting = |value: usize, idle| {
            let mut sample = sample();
            let mut figures = Figures { idle, ..page() };
            let name = "kv_shard_waiting_requests".to_owned();
            figures.values.insert(name, value as u64);
            sample.history.figures.push(figures);
            sample
        };
        let most = Limits::default().shard_requests;
        waiting(most, false).passes(nothing_grows_beyond_its_limit);
        waiting(most + 1, false).fails(nothing_grows_beyond_its_limit);
        waiting(1, false).passes(nothing_waits_when_nobody_asks);
        waiting(0, true).passes(nothing_waits_when_nobody_asks);
        waiting(1, true).fails(nothing_waits_when_nobody_asks);
    }

    #[test]
    fn a_slot_that_never_votes_again_is_found() {
        let unsynced = |value| {
            let mut sample = sample();
            let mut figures = Figures { idle: true, ..page() };
            figures.values.insert(UNSYNCED.to_owned(), value);
            sample.history.figures.push(figures);
            sample
        };
        unsynced(0).passes(nothing_waits_when_nobody_asks);
        unsynced(1).fails(nothing_waits_when_nobody_asks);
    }

    #[test]
    fn logs_that_take_too_much_are_found() {
        let mut sample = sample().survey(0, 1, &[]);
        sample.history.surveys[0].log_bytes = 9;
        sample.fails(nothing_grows_beyond_its_limit);
        sample.history.log_bytes_max = 9;
        sample.passes(nothing_grows_beyond_its_limit);
    }
}
