//! Adds to one key that go together.

use std::sync::atomic::Ordering;

use super::*;
use crate::node::local::{Spreading, Wanted};
use crate::node::peers::Peer;
use crate::node::shards::spreading::{self, Spread};
use crate::shard::{WriteContext, WriteKind};
use crate::types::NodeId;

const TOGETHER: usize = 64;

fn id(index: usize) -> Option<RequestId> {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&(index as u64).to_be_bytes());
    Some(RequestId(id))
}

/// Values named by their numbers.
fn values(range: std::ops::Range<usize>) -> Vec<Add> {
    let value = |index: usize| Add {
        text: index.to_string().into(),
        finish: true,
        request_id: id(index),
    };
    range.map(value).collect()
}

/// Long enough, in virtual time, for a shard to be opened again, and to tell its figures.
async fn pause() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}

#[tokio::test(start_paused = true)]
async fn adds_of_a_series_share_commits() {
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    pause().await;
    let before = node.figures()[0].stats.commits;
    let done = node
        .add_series(&user(), &key(0), values(0..TOGETHER), Terms::usual())
        .await;
    assert_eq!(done, vec![Ok(Added::Appended); TOGETHER]);
    pause().await;
    let commits = node.figures()[0].stats.commits - before;
    assert!((1..=2).contains(&commits), "{commits} commits");
    let expected: Vec<String> = (0..TOGETHER).map(|index| index.to_string()).collect();
    assert_eq!(list_of(&node, &key(0)).await, expected);
    node.stop().await;
}

/// A filter errs for one id in 256: then the disk is looked at, and those behind it need not.
#[tokio::test(start_paused = true)]
async fn a_series_keeps_its_order_where_one_of_it_has_to_look_at_the_past() {
    const SERIES: usize = 40;
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    let (user, key) = (user(), key(0));
    let mut expected = Vec::new();
    for index in 0..40 {
        let text = format!("{index} {}", "x".repeat(8 << 10));
        let added = node.add(
            &user,
            &key,
            text.as_str().into(),
            true,
            id(1_000_000 + index),
            Terms::usual(),
        );
        added.await.unwrap();
        expected.push(text);
    }
    pause().await;
    assert!(node.figures()[0].stats.segments > 0);
    for from in (0..SERIES * TOGETHER).step_by(TOGETHER) {
        let adds = values(from..from + TOGETHER);
        expected.extend(adds.iter().map(|add| AsRef::<str>::as_ref(&add.text).to_owned()));
        let done = node.add_series(&user, &key, adds, Terms::usual()).await;
        assert_eq!(done, vec![Ok(Added::Appended); TOGETHER]);
    }
    assert!(list_of(&node, &key).await == expected);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_series_comes_behind_what_was_refused() {
    let disk = MemoryDisk::new();
    let mut config = config();
    config.shard.value_bytes_max = 5;
    let node = Node::start(env(&disk), config).await.unwrap();
    let texts = [("1", true), ("part", false), ("too long", true), ("4", true)];
    let add = |(text, finish): (&str, bool)| Add {
        text: text.into(),
        finish,
        request_id: None,
    };
    let adds: Vec<Add> = texts.into_iter().map(add).collect();
    let done = node.add_series(&user(), &key(0), adds, Terms::usual()).await;
    assert_eq!(done, vec![Ok(Added::Appended); 2], "the others can still be tried");
    node.add(&user(), &key(0), "3".into(), true, None, Terms::usual())
        .await
        .unwrap();
    assert_eq!(list_of(&node, &key(0)).await, ["1", "part3"]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_series_whose_sync_fails_counts_once_and_in_order_when_it_is_tried_again() {
    const VALUES: usize = 10 * TOGETHER;
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    let failing = &disk.faults().fail_sync;
    let (mut at, mut round, mut failed) = (0, 0, 0);
    while at < VALUES {
        round += 1;
        failing.store(round % 3 == 0, Ordering::Relaxed);
        let adds = values(at..(at + TOGETHER).min(VALUES));
        let dies = async {
            if round % 4 == 0 {
                for _ in 0..round % 7 {
                    tokio::task::yield_now().await;
                }
                node.kill_shard_of(&user(), &key(0));
            }
        };
        let (user, key, count) = (user(), key(0), adds.len());
        let (done, ()) = tokio::join!(node.add_series(&user, &key, adds, Terms::usual()), dies);
        failing.store(false, Ordering::Relaxed);
        let carried_out = done.iter().take_while(|done| done.is_ok()).count();
        assert!(done[carried_out..].iter().all(Result::is_err), "{done:?}");
        at += carried_out;
        failed += usize::from(carried_out < count);
        if carried_out < count {
            pause().await;
        }
    }
    assert!(failed > 2, "{failed}");
    let expected: Vec<String> = (0..VALUES).map(|index| index.to_string()).collect();
    assert!(list_of(&node, &key(0)).await == expected);
    node.stop().await;
}

/// Another replica might have the second message and not the first.
#[tokio::test(start_paused = true)]
async fn what_gets_its_name_after_the_others_were_sent_breaks_the_series_off() {
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    let (user, key, peers) = (user(), key(0), [Peer::unconnected(NodeId(1))]);
    let (mut puts, mut told) = (Vec::new(), Vec::new());
    for index in 0..TOGETHER {
        let (others, share, outcome) = spreading::begin(&peers, 1);
        told.push(outcome);
        // They do not find room in the log at once.
        let text = format!("{index} {}", "x".repeat(1900)).as_str().into();
        let kind = WriteKind::Add { text, finish: true };
        let wanted = Wanted {
            user: &user,
            key: &key,
            kind,
            request_id: None,
        };
        puts.push(Spreading {
            wanted,
            context: WriteContext::default(),
            others,
            share,
        });
    }
    node.local().begin_series(puts.into_iter());
    let outcomes: Vec<Spread> = join_all(told).await.into_iter().map(Result::unwrap).collect();
    let done = outcomes
        .iter()
        .take_while(|outcome| **outcome == Spread::Enough)
        .count();
    assert!((1..TOGETHER).contains(&done), "{done}");
    let gone = Spread::Refused(OpError::ShardUnavailable { maybe_applied: false });
    assert!(outcomes[done..].iter().all(|outcome| *outcome == gone), "{outcomes:?}");
    assert_eq!(list_of(&node, &key).await.len(), done);
    node.stop().await;
}
