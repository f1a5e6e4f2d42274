use std::sync::Arc;
use std::time::Duration;

use super::claim::CLAIM_MAX;
use super::lag::{COMPARED_MAX, Lag};
use super::*;
use crate::core::stamp::OriginId;
use crate::node::cluster::members::Layout;
use crate::types::WallMs;

const SLOT: SlotId = SlotId(3);

fn clock(last: u64) -> Clock {
    let mut clock = Clock::default();
    clock.insert_range(OriginId(1), 1, last);
    clock
}

/// Of [`SLOT`] alone.
fn clocks(last: u64) -> SlotClocks {
    let mut clocks = SlotClocks::default();
    clocks.join_slot(SLOT, &clock(last));
    clocks
}

#[test]
fn stable_is_what_every_peer_is_known_to_cover() {
    let book = ClockBook::new(false);
    let (a, b, slot) = (NodeId(1), NodeId(2), SlotId(3));
    book.note(a, slot, &clock(5));
    let others = |_| [a, b].into_iter();
    let stable = |book: &ClockBook| book.stable(others).get(slot).cloned();
    assert_eq!(stable(&book), None, "one of them has not told yet");
    book.note(b, slot, &clock(3));
    assert_eq!(stable(&book), Some(clock(3)));
    book.note(b, slot, &clock(9));
    assert_eq!(stable(&book), Some(clock(5)));
}

#[test]
fn what_was_synced_before_a_slot_was_damaged_counts_no_more() {
    let book = ClockBook::new(false);
    let (peer, slot) = (NodeId(1), SLOT);
    let before = book.damages();
    book.note_synced(peer, [slot], before);
    assert!(book.has_all_of(slot, [peer]));
    book.note_damaged(&clocks(1));
    assert!(!book.has_all_of(slot, [peer]));
    book.note_synced(peer, [slot], before);
    assert!(!book.has_all_of(slot, [peer]), "this round began before the damage");
    book.note_synced(peer, [slot], book.damages());
    book.note_damaged(&clocks(1));
    assert!(book.has_all_of(slot, [peer]), "it is still the same damage");
    book.note_damaged(&clocks(2));
    assert!(!book.has_all_of(slot, [peer]), "more of the slot was lost");
}

#[test]
fn what_was_had_before_the_disk_was_found_to_be_old_counts_no_more() {
    let (book, peer) = (ClockBook::new(false), NodeId(1));
    let settled = Settled::of(7);
    book.note_synced(peer, [SLOT], book.damages());
    book.note_reconciled(peer, SLOT, clock(3), clock(0), book.damages());
    book.settle(peer, settled, book.damages());
    let counts = || {
        let was_reconciled = book.was_reconciled(peer, SLOT, &clock(3), &clock(0));
        [
            book.has_all_of(SLOT, [peer]),
            was_reconciled,
            book.settled(peer).is_some(),
        ]
    };
    assert_eq!(counts(), [true; 3]);
    book.set_new();
    assert_eq!(counts(), [false; 3]);
    assert!(book.is_new());
}

#[test]
fn two_peers_are_not_asked_for_the_same_at_the_same_time() {
    let book = ClockBook::new(false);
    let nothing = SlotClocks::default;
    let first = book.claim(NodeId(1), &clocks(5), nothing);
    assert_eq!(first.wants, clocks(5));
    assert_eq!(
        book.claim(NodeId(2), &clocks(8), nothing).wants,
        clocks(8).minus(&clocks(5))
    );
    drop(first);
    assert_eq!(book.claim(NodeId(2), &clocks(8), nothing).wants, clocks(8));
    assert!(
        book.claim(NodeId(2), &clocks(8), || clocks(8)).wants.is_empty(),
        "it came from the other"
    );
}

#[test]
fn only_what_was_lacking_twice_is_asked_for() {
    let book = ClockBook::new(false);
    let at = Some(Moment::now(WallMs(1)));
    assert!(book.lacked_before(NodeId(1), clocks(3), at).is_empty());
    assert_eq!(book.lacked_before(NodeId(1), clocks(5), at), clocks(3));
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_is_as_old_as_of_the_peer_that_was_heard_of_least() {
    let book = ClockBook::new(false);
    let (a, b, second, begun) = (NodeId(1), NodeId(2), Duration::from_secs(1), Instant::now());
    let now = || WallMs(100_000 + begun.elapsed().as_millis() as u64);
    let compared = |peer, lacking| book.lacked_before(peer, lacking, Some(Moment::now(now())));
    let heard = |held: u64| book.heard([a, b], &clocks(held), now());
    assert_eq!(
        book.heard(std::iter::empty(), &clocks(1), now()),
        Some(now()),
        "nobody else"
    );
    compared(a, SlotClocks::default());
    assert_eq!(heard(0), None, "they did not compare yet");
    compared(b, clocks(5));
    assert_eq!(heard(0), None, "it never was whole");
    tokio::time::advance(second).await;
    assert_eq!(heard(5), Some(WallMs(100_000)), "it has come");
    tokio::time::advance(second).await;
    compared(a, SlotClocks::default());
    assert_eq!(heard(5), Some(WallMs(100_000)));
    compared(b, SlotClocks::default());
    assert_eq!(heard(5), Some(now()));
    // The machine was suspended: the wall clock alone has moved on.
    let resumed = WallMs(now().0 + 7_200_000);
    assert_eq!(book.heard([a, b], &clocks(5), resumed), Some(now()));
}

#[tokio::test(start_paused = true)]
async fn a_comparison_of_some_slots_alone_is_none_at_which_all_was_heard() {
    let (book, peer, begun) = (ClockBook::new(false), NodeId(1), Instant::now());
    let now = || WallMs(100_000 + begun.elapsed().as_millis() as u64);
    let compared = |lacking| book.lacked_before(peer, lacking, Some(Moment::now(now())));
    let compared_some = |lacking| book.lacked_before(peer, lacking, None);
    let heard = |held: u64| book.heard([peer], &clocks(held), now());
    let wait = || tokio::time::advance(Duration::from_secs(1));
    compared_some(SlotClocks::default());
    assert_eq!((heard(0), book.lag(peer, &clocks(0))), (None, None));
    wait().await;
    // The others show what was there all the time.
    assert!(compared(clocks(3)).is_empty());
    assert_eq!(heard(0), None);
    let first = now();
    assert_eq!(heard(3), Some(first), "it has come");
    wait().await;
    compared_some(SlotClocks::default());
    assert_eq!(heard(3), Some(first));
    assert!(compared_some(clocks(5).minus(&clocks(3))).is_empty());
    assert_eq!(heard(3), Some(first));
    assert_eq!(book.lag(peer, &clocks(3)).map(|lag| lag.ops), Some(2));
    wait().await;
    // Lacking twice, it is asked for.
    let lacking = clocks(7).minus(&clocks(3));
    assert_eq!(compared(lacking), clocks(5).minus(&clocks(3)));
    assert_eq!(heard(3), Some(first));
    assert_eq!(heard(7), Some(now()));
}

#[tokio::test(start_paused = true)]
async fn a_lag_lasts_until_what_was_lacking_has_come_from_whomever() {
    let book = ClockBook::new(false);
    let (peer, second, begun) = (NodeId(1), Duration::from_secs(1), Instant::now());
    let now = || WallMs(100_000 + begun.elapsed().as_millis() as u64);
    let compared = |peer, lacking| book.lacked_before(peer, lacking, Some(Moment::now(now())));
    let lag = |ops, time| Some(Lag { ops, time });
    assert_eq!(book.lag(peer, &clocks(0)), None, "they did not compare yet");
    tokio::time::advance(second).await;
    compared(peer, clocks(5));
    assert_eq!(book.lag(peer, &clocks(0)), lag(5, second), "since the start");
    tokio::time::advance(second).await;
    assert_eq!(book.lag(peer, &clocks(3)), lag(2, 2 * second));
    assert_eq!(book.lag(peer, &clocks(5)), lag(0, Duration::ZERO));
    tokio::time::advance(second).await;
    compared(peer, clocks(7).minus(&clocks(5)));
    assert_eq!(
        book.lag(peer, &clocks(5)),
        lag(2, 2 * second),
        "since it was last compared without a lag"
    );
    tokio::time::advance(second).await;
    compared(peer, SlotClocks::default());
    tokio::time::advance(second).await;
    compared(peer, clocks(9).minus(&clocks(7)));
    assert_eq!(book.lag(peer, &clocks(7)), lag(2, second));
    tokio::time::advance(second).await;
    compared(peer, clocks(11).minus(&clocks(9)));
    assert_eq!(
        book.lag(peer, &clocks(9)),
        lag(2, second),
        "others are lacking than before"
    );
    compared(peer, SlotClocks::default());
    tokio::time::advance(COMPARED_MAX - second).await;
    assert_eq!(book.lag(peer, &clocks(9)), lag(0, Duration::ZERO));
    tokio::time::advance(second).await;
    assert_eq!(book.lag(peer, &clocks(9)), None, "it may have anything by now");
    let whole_at = book.heard(std::iter::once(peer), &clocks(9), now());
    let compared_at = WallMs(now().0 - COMPARED_MAX.as_millis() as u64);
    assert_eq!(whole_at, Some(compared_at), "it had all that there was then");
    compared(peer, clocks(12).minus(&clocks(11)));
    tokio::time::advance(COMPARED_MAX).await;
    assert_eq!(
        book.lag(peer, &clocks(9)).map(|lag| lag.ops),
        Some(1),
        "that is still lacking"
    );
}

/// Of what a peer and this node had together of [`SLOT`].
struct DueRig {
    book: ClockBook,
    layout: Arc<Layout>,
}

const PEER: NodeId = NodeId(1);

impl DueRig {
    fn new() -> Self {
        let (book, layout) = (ClockBook::new(false), Arc::default());
        Self { book, layout }
    }

    fn compare(&self, last: u64, as_of: u64) {
        let had = |_| clock(last);
        self.book.note_due(PEER, &self.layout, [SLOT].into_iter(), had, as_of);
    }

    fn is_synced_by(&self, last: u64) -> bool {
        let here = [(SLOT, clock(last))].into();
        let is_news = self.book.note_here(PEER, &self.layout, &here, self.book.damages());
        assert_eq!(is_news, self.book.has_all_of(SLOT, [PEER]));
        is_news
    }
}

#[test]
fn what_was_there_at_one_comparison_is_enough_though_more_comes_all_the_time() {
    let rig = DueRig::new();
    rig.compare(5, 0);
    assert!(!rig.is_synced_by(4));
    // What is on its way takes longer than until the next comparison.
    rig.compare(8, 0);
    rig.compare(11, 0);
    assert_eq!(rig.book.due(PEER), [SLOT]);
    assert!(!rig.is_synced_by(4) && rig.is_synced_by(5));
    assert!(rig.book.due(PEER).is_empty());
    rig.compare(20, 0);
    assert!(rig.book.due(PEER).is_empty(), "it stays in sync");
}

#[test]
fn what_a_peer_has_lost_since_is_not_due_any_more() {
    let rig = DueRig::new();
    rig.compare(9, 0);
    rig.compare(6, 0);
    assert!(!rig.is_synced_by(5) && rig.is_synced_by(6));
}

#[test]
fn nothing_of_a_slot_is_due_that_could_not_be_reconciled_or_by_another_table() {
    let mut rig = DueRig::new();
    rig.compare(5, 0);
    let none = std::iter::empty();
    rig.book.note_due(PEER, &rig.layout, none, |_| clock(0), 0);
    assert!(!rig.is_synced_by(9));
    rig.compare(5, 0);
    rig.layout = Arc::default();
    assert!(!rig.is_synced_by(9));
    rig.compare(5, 0);
    let former = std::mem::take(&mut rig.layout);
    rig.compare(7, 0);
    assert!(!rig.is_synced_by(6) && rig.is_synced_by(7));
    assert!(!Arc::ptr_eq(&former, &rig.layout));
    // That nobody holds anything may be all there is to know.
    let rig = DueRig::new();
    rig.compare(0, 0);
    assert!(rig.is_synced_by(0));
}

#[test]
fn what_was_due_before_a_slot_was_damaged_or_the_disk_set_back_counts_no_more() {
    let damages: [fn(&ClockBook); 2] = [|book| book.note_damaged(&clocks(1)), ClockBook::set_new];
    for damage in damages {
        let rig = DueRig::new();
        rig.compare(5, 0);
        damage(&rig.book);
        assert!(!rig.is_synced_by(9));
        rig.compare(5, 0);
        assert!(!rig.is_synced_by(9), "this round began before the damage");
        rig.book.note_synced(PEER, [SLOT], 0);
        rig.book.note_reconciled(PEER, SLOT, clock(5), clock(0), 0);
        assert!(!rig.book.has_all_of(SLOT, [PEER]));
        assert!(!rig.book.was_reconciled(PEER, SLOT, &clock(5), &clock(0)));
        rig.compare(5, 1);
        let here = [(SLOT, clock(9))].into();
        let looked_before = rig.book.note_here(PEER, &rig.layout, &here, 0);
        assert!(!looked_before, "it may be what is damaged by now");
        assert!(rig.is_synced_by(5));
    }
}

#[tokio::test(start_paused = true)]
async fn others_are_asked_for_what_a_peer_does_not_bring() {
    let book = ClockBook::new(false);
    let (first, second) = (NodeId(1), NodeId(2));
    let _asked = book.claim(first, &clocks(5), SlotClocks::default);
    let is_left = || book.claim(second, &clocks(5), SlotClocks::default).wants == clocks(5);
    for _ in 0..3 {
        tokio::time::advance(CLAIM_MAX - Duration::from_millis(1)).await;
        assert!(!is_left());
        // A page came.
        book.note_coming(first);
    }
    tokio::time::advance(CLAIM_MAX).await;
    assert!(is_left());
}
