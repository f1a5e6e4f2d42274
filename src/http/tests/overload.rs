//! More requests than are worked on at once.

use std::sync::atomic::Ordering::SeqCst;

use futures_util::future::join_all;
use serde_json::json;

use super::rig::{Rig, with_user};
use crate::http::FrontConfig;
use crate::http::admission::CALM_INTERVAL;

const AT_WORK_MAX: usize = 4;

/// A node that is at a standstill until its gate opens.
fn stalled() -> Rig {
    stall(Rig::with)
}

fn stall(with: impl FnOnce(FrontConfig) -> Rig) -> Rig {
    let rig = with(FrontConfig {
        requests_at_work_max: AT_WORK_MAX,
        ..FrontConfig::default()
    });
    rig.store.gate.forget_permits(usize::MAX);
    rig
}

async fn until_at_work(rig: &Rig, count: usize) {
    while rig.store.waiting.load(SeqCst) < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn when_a_queue_stands_more_is_refused_at_once_and_what_was_taken_is_served() {
    let rig = stalled();
    let add = with_user(json!({"key": "k", "value": "v"}));
    let taken = async { join_all((0..AT_WORK_MAX).map(|_| rig.post("/add_value", &add))).await };
    let refused = async {
        until_at_work(&rig, AT_WORK_MAX).await;
        tokio::time::sleep(CALM_INTERVAL).await;
        let large = with_user(json!({"key": "k", "value": "v".repeat(100_000)}));
        for body in [&add, &large] {
            let answer = tokio::time::timeout(CALM_INTERVAL * 50, rig.post("/add_value", body)).await;
            let reply = answer.expect("a refusal does not wait for those at work");
            assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
        }
        assert_eq!(rig.get("/healthz").await.status, 200);
        let read = rig.post("/get_value", &with_user(json!({"key": "k"}))).await;
        assert_eq!(read.status, 200, "what can be read is read");
        rig.store.gate.add_permits(1_000);
    };
    let (taken, ()) = tokio::join!(taken, refused);
    assert!(taken.iter().all(|reply| reply.status == 200));
    assert_eq!(rig.metric(r#"kv_http_refused_total{reason="requests"}"#).await, 2);
    assert_eq!(rig.store.values("123", "k").len(), AT_WORK_MAX);
    assert_eq!(
        rig.post("/add_value", &add).await.status,
        200,
        "the places are free again"
    );
}

/// Over connections in memory the clock stands still until all of it has come, so that it is one burst.
#[tokio::test(start_paused = true)]
async fn a_burst_is_taken_whole() {
    let rig = stall(Rig::in_memory);
    let add = with_user(json!({"key": "k", "value": "v"}));
    let burst = async { join_all((0..5 * AT_WORK_MAX).map(|_| rig.post("/add_value", &add))).await };
    let open = async {
        until_at_work(&rig, 5 * AT_WORK_MAX).await;
        rig.store.gate.add_permits(1_000);
    };
    let (replies, ()) = tokio::join!(burst, open);
    assert!(replies.iter().all(|reply| reply.status == 200));
}

#[tokio::test]
async fn changes_of_users_and_writes_do_not_take_each_others_places() {
    let add = with_user(json!({"key": "k", "value": "v"}));
    let passwd = with_user(json!({"name": "123", "password_hash": "abc123"}));
    for (standing, other) in [
        (("/users/passwd", &passwd), ("/add_value", &add)),
        (("/add_value", &add), ("/users/passwd", &passwd)),
    ] {
        let rig = stalled();
        let (held, open) = match standing.0 {
            "/add_value" => (&rig.store.gate, &rig.store.passwords),
            _ => (&rig.store.passwords, &rig.store.gate),
        };
        held.forget_permits(usize::MAX);
        open.add_permits(1_000 * usize::from(open.available_permits() == 0));
        let taken = async { join_all((0..AT_WORK_MAX).map(|_| rig.post(standing.0, standing.1))).await };
        let beside = async {
            until_at_work(&rig, AT_WORK_MAX).await;
            tokio::time::sleep(CALM_INTERVAL).await;
            assert_eq!(rig.post(standing.0, standing.1).await.status, 503);
            assert_eq!(
                rig.post(other.0, other.1).await.status,
                200,
                "{} beside {}",
                other.0,
                standing.0
            );
            held.add_permits(1_000);
        };
        let (taken, ()) = tokio::join!(taken, beside);
        assert!(taken.iter().all(|reply| reply.status == 200));
    }
}
