//! What the nodes say of themselves and of each other: the figures of `kv cluster status` and `/metrics`.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::{Kind, Load, PAUSE, WRITERS};
use super::rig::{Cluster, ensure, wait_for};
use crate::common::http::get;
use crate::common::said;

/// Of one machine's processes, which have one clock.
const SKEW_MS_MAX: i64 = 500;
/// From the end of its copy until a node says that it is in sync, on a machine that has nothing else to do.
const SAYING_MAX: Duration = Duration::from_secs(2);
/// So many requests the writers make in that time at most. Counted in these: a machine that is busy, or whose disk is, takes longer for them too.
const SAYING_REQUESTS_MAX: u64 = WRITERS * (SAYING_MAX.as_millis() / PAUSE.as_millis()) as u64;

fn of<'a>(members: &'a [Value], peer: &str) -> &'a Value {
    members.iter().find(|member| member["peer"] == peer).unwrap()
}

#[test]
fn a_node_that_returns_says_soon_that_it_is_in_sync_and_what_is_not_known_is_not_said() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let load = Load::start(&cluster, &user, Kind::default());
    load.wait_done(100);
    let peer = cluster.peer(2).to_string();
    cluster.kill(2);
    load.wait_done(300);
    // Of one that is away nothing is known but what the table says.
    let members = cluster.status(0).unwrap();
    let away = of(&members, &peer);
    assert_eq!(
        (&away["alive"], &away["slots"]),
        (&Value::from(false), &Value::from(1024))
    );
    for unknown in [
        "lag_ops",
        "lag_bytes",
        "lag_seconds",
        "clock_skew_ms",
        "quarantined_segments",
    ] {
        assert!(away.get(unknown).is_none(), "{away}");
    }
    let text = said(&cluster.cli(0, &["cluster", "status"]));
    let line = text
        .lines()
        .find(|line| line.contains("  no  "))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains('?'), "{text}");

    cluster.start(2);
    wait_for("it has what it missed", || {
        let log = cluster.node(2).log();
        ensure(log.contains("caught up with a peer"), || log)
    });
    let (copied, done) = (Instant::now(), load.done());
    wait_for("it says that it is in sync", || {
        let members = cluster.status(2)?;
        let own = of(&members, &peer);
        let is_in_sync = own["lag_ops"] == 0 && own["unsynced_slots"] == 0 && own["lag_seconds"] == 0.0;
        ensure(is_in_sync, || format!("{own}"))
    });
    let (took, requests) = (copied.elapsed(), load.done() - done);
    println!("in sync by its own word {took:?} after its copy, and {requests} requests");
    assert!(requests < SAYING_REQUESTS_MAX, "{requests} requests, {took:?}");
    load.wait_done(100);
    load.finish().check(&cluster, &user);
    // The writers may all have turned to the node that counts what comes from others.
    let taken = || cluster.metric(0, "kv_stream_ops_total", "");
    let before = taken();
    user.at(cluster.http(1)).add("came to another one", "v");
    wait_for("it streams to the first", || {
        ensure(taken() > before, || format!("{before} ops"))
    });

    wait_for("all figures are known", || {
        let members = cluster.up(0)?;
        for member in &members {
            let skew = member["clock_skew_ms"].as_i64().ok_or_else(|| format!("{member}"))?;
            ensure(
                skew.abs() < SKEW_MS_MAX && member["stream_ops_per_s"].is_number(),
                || format!("{member}"),
            )?;
        }
        let text = get(cluster.http(0), "/metrics").text();
        for name in [
            "kv_peer_lag_ops",
            "kv_peer_lag_bytes",
            "kv_peer_lag_seconds",
            "kv_peer_clock_skew_seconds",
            "kv_peer_pulled_ops_total",
            "kv_peer_pushed_bytes_total",
        ] {
            let count = text
                .lines()
                .filter(|line| line.starts_with(&format!("{name}{{")))
                .count();
            ensure(count == 2, || format!("{name}: {count} peers"))?;
        }
        Ok(())
    });
    assert!(cluster.metric(2, "kv_peer_pulled_ops_total", "") > 0);
    assert_eq!(cluster.metric(0, "kv_peer_lag_ops", ""), 0);
}
