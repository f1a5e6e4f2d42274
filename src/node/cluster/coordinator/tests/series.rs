//! Adds to one key that follow each other.

use crate::node::Add;
use crate::node::cluster::tests::*;

const TOGETHER: usize = 64;

fn adds(range: std::ops::Range<usize>) -> Vec<Add> {
    let add = |index: usize| {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&(index as u64).to_be_bytes());
        // Every third one in two pieces.
        Add {
            text: format!("{index} ").into(),
            finish: index % 3 != 1,
            request_id: Some(RequestId(id)),
        }
    };
    range.map(add).collect()
}

/// What a list of them is.
fn listed(count: usize) -> Vec<String> {
    let (mut values, mut open) = (Vec::new(), String::new());
    for add in adds(0..count) {
        open.push_str(add.text.as_ref());
        if add.finish {
            values.push(std::mem::take(&mut open));
        }
    }
    values
}

/// Logs in which there mostly is room.
const ROOMY: (u64, u64) = (1 << 20, 512 << 10);

async fn rig_with_room() -> Rig {
    Rig {
        log_bytes: ROOMY,
        ..Rig::unstarted(3)
    }
    .started()
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_counts_once_and_in_order_through_several_nodes_whose_shards_die() {
    const COUNT: usize = 20 * TOGETHER;
    let together = counts_once_and_in_order(rig_with_room().await, COUNT).await;
    assert!(together > COUNT / 2, "{together} of {COUNT}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_that_waits_for_log_space_again_and_again_counts_once_and_in_order() {
    counts_once_and_in_order(Rig::new(3).await, 5 * TOGETHER).await;
}

/// Each through the next node, while shards die; what one has not carried out goes on at the next. Gives how many went together.
async fn counts_once_and_in_order(rig: Rig, count: usize) -> usize {
    let (user, key) = (user(), key("k"));
    let (mut at, mut round, mut together) = (0, 0, 0);
    let end = Instant::now() + PATIENCE;
    while at < count {
        assert!(Instant::now() < end, "{at} of {count}");
        let front = rig.node(round % 3);
        round += 1;
        let window = adds(at..(at + TOGETHER).min(count));
        let dies = async {
            if round % 4 == 0 && round < 30 {
                for _ in 0..round % 9 {
                    tokio::task::yield_now().await;
                }
                front.kill_shard_of(&user, &key);
            }
        };
        let (done, ()) = tokio::join!(front.add_series(&user, &key, window.clone(), Terms::usual()), dies);
        let carried_out = done.iter().take_while(|done| done.is_ok()).count();
        assert!(done[carried_out..].iter().all(Result::is_err), "{done:?}");
        at += carried_out;
        together += carried_out;
        if let Some(Add {
            text,
            finish,
            request_id,
        }) = window.into_iter().nth(carried_out)
        {
            let alone = front.add(&user, &key, text, finish, request_id, Terms::usual());
            at += usize::from(alone.await.is_ok());
        }
    }
    rig.wait_equal().await;
    for node in rig.running() {
        assert!(list(node, "k", Consistency::All).await.unwrap() == listed(count));
    }
    rig.end().await;
    together
}

/// They go together only behind what is known to be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_of_which_one_was_taken_before_is_left_to_the_caller() {
    let rig = rig_with_room().await;
    let (user, key) = (user(), key("k"));
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let Add {
        text,
        finish,
        request_id,
    } = adds(0..3).remove(2);
    // Not here.
    let elsewhere = rig.node(1).local();
    let wanted = crate::node::local::Wanted {
        user: &user,
        key: &key,
        kind: crate::shard::WriteKind::Add { text, finish },
        request_id,
    };
    elsewhere.write(wanted, Default::default()).await.unwrap();
    let terms = at(Consistency::All);
    assert!(rig.node(0).add_series(&user, &key, adds(0..3), terms).await.is_empty());
    assert_eq!(count_at(rig.node(0), "k").await, 0);
    // A shard that takes long for some of them gives the rest back.
    for round in 0..10 {
        let from = 3 + 6 * round;
        let done = rig.node(0).add_series(&user, &key, adds(from..from + 6), terms).await;
        assert!(done.iter().all(|added| *added == Ok(Added::Appended)), "{done:?}");
        if done.len() == 6 {
            return rig.end().await;
        }
    }
    panic!("they never go together");
}

fn long(bytes: usize) -> Vec<Add> {
    let add = |index: usize| Add {
        text: format!("{index} {}", "x".repeat(bytes)).as_str().into(),
        finish: true,
        request_id: None,
    };
    (0..TOGETHER).map(add).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_series_only_those_are_carried_out_that_one_message_holds() {
    let (user, k) = (user(), key("k"));
    let rig = rig_with_room().await;
    const HELD: usize = 13;
    for _ in 0..10 {
        let done = rig.node(0).add_series(&user, &k, long(10_000), Terms::usual()).await;
        assert!(done.iter().all(|added| *added == Ok(Added::Appended)), "{done:?}");
        assert!(done.len() <= HELD, "{} in 128 KiB", done.len());
        if done.len() == HELD {
            return rig.end().await;
        }
    }
    panic!("never as many as it holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hanging_disk_had_not_begun_with_of_a_series_can_be_tried_elsewhere() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(3)
    };
    let rig = rig.started().await;
    let (user, k) = (user(), key("k"));
    let hangs = disk.hold_syncs("shard-");
    // The others have it.
    add(rig.node(0), "k", "first").await.unwrap();
    let done = rig.node(0).add_series(&user, &k, adds(0..8), Terms::usual()).await;
    assert_eq!(done, vec![], "nothing of it was done");
    for Add {
        text,
        finish,
        request_id,
    } in adds(0..8)
    {
        let elsewhere = rig.node(0).add(&user, &k, text, finish, request_id, Terms::usual());
        elsewhere.await.unwrap();
    }
    drop(hangs);
    rig.wait_equal().await;
    let expected: Vec<String> = std::iter::once("first".to_owned()).chain(listed(8)).collect();
    for node in rig.running() {
        assert_eq!(list(node, "k", Consistency::All).await.unwrap(), expected);
    }
    rig.end().await;
}
