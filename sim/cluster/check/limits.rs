//! Memory and queues stay within their named limits, and are empty when nobody asks for anything.

use kv_storage::node::peers::CALLS_BYTES_MAX;

use super::Judged;

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
            let value = figures.values.get(name).copied().unwrap_or(0);
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

/// Once idle, no request waits anywhere: a permit that was not given back would show. (Between nodes a few may be on their way.)
pub fn nothing_waits_when_nobody_asks(judged: &Judged) -> Result<(), String> {
    let most = [
        ("kv_shard_waiting_requests", 0),
        // One may be being sealed, for the sake of clears.
        ("kv_shard_frozen_memtables", 1),
        ("kv_http_requests_in_flight", 0),
        ("kv_http_body_in_flight_bytes", 0),
        // A comparison and a question for each of six others.
        ("kv_peer_waiting_requests", 12),
    ];
    for figures in judged.history.figures.iter().filter(|figures| figures.idle) {
        for (name, most) in most {
            let value = figures.values.get(name).copied().unwrap_or(0);
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
    use crate::cluster::history::Figures;
    use kv_storage::node::Limits;

    #[test]
    fn a_queue_that_is_too_long_is_found_and_one_that_never_empties() {
        let waiting = |value: usize, idle| {
            let mut sample = sample();
            sample.history.figures.push(Figures {
                idle,
                values: [("kv_shard_waiting_requests".to_owned(), value as u64)].into(),
                ..Figures::default()
            });
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
    fn logs_that_take_too_much_are_found() {
        let mut sample = sample().survey(0, 1, &[]);
        sample.history.surveys[0].log_bytes = 9;
        sample.fails(nothing_grows_beyond_its_limit);
        sample.history.log_bytes_max = 9;
        sample.passes(nothing_grows_beyond_its_limit);
    }
}
