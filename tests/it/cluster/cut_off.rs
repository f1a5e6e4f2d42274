//! A node that is left without the others.

use std::time::{Duration, Instant};

use serde_json::json;

use super::rig::{Cluster, ensure, read, wait_for};

/// For ten refusals: far less than ten deadlines of ten seconds.
const PROMPT: Duration = Duration::from_secs(30);

#[test]
fn without_its_quorum_a_node_says_so_at_once_and_still_reads_at_one() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    user.add("key", "value");
    cluster.wait_equal(&user, &["key".to_owned()]);
    cluster.kill(1);
    cluster.kill(2);
    let add = || user.post("/add_value", json!({"key": "key", "value": "refused"}));
    // What was under way when they died may still have to run out.
    wait_for("the node knows that it is alone", || {
        let refused = add();
        let said = refused.text();
        ensure(
            refused.status == 503 && said.contains("2 replicas are needed and 1 answered"),
            || said,
        )
    });
    let started = Instant::now();
    for _ in 0..5 {
        let refused = add();
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains("nothing was changed"), "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        let refused = read(&user, "key", "quorum").unwrap_err();
        assert!(refused.contains("2 replicas are needed and 1 answered"), "{refused}");
    }
    assert!(started.elapsed() < PROMPT, "{:?} for ten refusals", started.elapsed());
    assert_eq!(read(&user, "key", "one").unwrap(), ["value"]);
    assert!(cluster.metric(0, "kv_quorum_failures_total", "") >= 10);

    // It knows its users and its place also when it was just started.
    cluster.kill(0);
    cluster.start(0);
    wait_for("a read at one", || {
        let found = read(&user, "key", "one")?;
        ensure(found == ["value"], || format!("{found:?}"))
    });
    assert_eq!(add().status, 503);

    cluster.start(1);
    wait_for("two of three are enough", || {
        let added = user.post("/add_value", json!({"key": "key", "value": "after"}));
        ensure(added.status == 200, || added.text())
    });
    cluster.start(2);
    cluster.wait_whole();
    let held = cluster.wait_equal(&user, &["key".to_owned()]);
    assert_eq!(held, [["value", "after"]]);
}
