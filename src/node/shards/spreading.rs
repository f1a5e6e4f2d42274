//! Live replication of a new op: this node's shard gives it its dot and stamp, and from then on it is sent to peers.
//! Ops stamped together go to a peer in one message and are acknowledged together.
//!
//! Invariant: the waiter is notified exactly once, as soon as enough replicas have the op durably or too few still
//! can. Each replica holds a *share*; a share that is dropped unused counts as a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::core::op::{Body, KeyedOp};
use crate::node::OpError;
use crate::node::local::Added;
use crate::node::peers::{Hurry, Peer};
use crate::node::series::Series;
use crate::planted::{Bug, planted};
use crate::wire::{Request, Response, WireOp};

/// Ops go out together up to so many bytes: a longer message would hold up those behind it.
const GROUP_BYTES_MAX: usize = 256 << 10;

/// What became of an op.
#[derive(Debug, PartialEq, Eq)]
pub enum Spread {
    /// As many as are needed have it durably.
    Enough,
    /// Its request id had been taken before, and nothing was done; what was then is durable here.
    Repeated,
    /// It never got a dot and stamp, as far as is known.
    Refused(OpError),
    /// So many have it durably, and no more will say so. `local`: what was in this node's way.
    TooFew { durable: usize, local: Option<OpError> },
}

/// This node's share in an op.
pub struct LocalShare(Option<Arc<Progress>>);

/// The peers that are to have an op, with their shares in it.
pub struct Others {
    progress: Arc<Progress>,
    peers: Vec<Target>,
}

/// A stamped op, and the peers that are to have it.
pub struct Stamped {
    op: KeyedOp,
    peers: Vec<Target>,
    /// Those of one series go in one message.
    series: Option<Series>,
}

/// A peer that is to have an op.
struct Target {
    peer: Peer,
    hurry: Hurry,
    share: Share,
}

/// One peer's share in an op.
struct Share(Option<Arc<Progress>>);

/// How far an op has come.
struct Progress {
    /// `WAITS`, and from there one of the two others.
    turn: AtomicU8,
    /// It waits for a look at the disk.
    is_looked_up: AtomicBool,
    /// Until whoever waits was told.
    counting: Mutex<Option<Counting>>,
}

/// The shard has not begun with it.
const WAITS: u8 = 0;
const TAKEN: u8 = 1;
/// For good.
const WITHDRAWN: u8 = 2;

/// An op's place in the queue of this node's shard.
pub struct Turn(Arc<Progress>);

struct Counting {
    need: usize,
    durable: usize,
    /// Shares that have not ended.
    open: usize,
    is_stamped: bool,
    local: Option<OpError>,
    waiter: oneshot::Sender<Spread>,
}

/// An op that `need` of these peers and this node are to have. Those peers that come first are counted on; the others get it a little later, with
/// more of its kind, and are soon enough there if one of the first ones is slow.
pub fn begin(peers: &[Peer], need: usize) -> (Others, LocalShare, oneshot::Receiver<Spread>) {
    let (waiter, told) = oneshot::channel();
    let counting = Counting {
        need,
        durable: 0,
        open: 1 + peers.len(),
        is_stamped: false,
        local: None,
        waiter,
    };
    let progress = Arc::new(Progress {
        turn: AtomicU8::new(WAITS),
        is_looked_up: AtomicBool::new(false),
        counting: Mutex::new(Some(counting)),
    });
    let share = |(at, peer): (usize, &Peer)| Target {
        peer: peer.clone(),
        hurry: if at + 1 < need { Hurry::Now } else { Hurry::Soon },
        share: Share(Some(progress.clone())),
    };
    let peers = peers.iter().enumerate().map(share).collect();
    let local = LocalShare(Some(progress.clone()));
    (Others { progress, peers }, local, told)
}

/// Sends the ops to those that are to have them.
pub fn send(stamped: Vec<Stamped>) {
    grouped(stamped).into_iter().for_each(Group::send);
}

fn grouped(stamped: Vec<Stamped>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // Those that more may join.
    let mut open: Vec<usize> = Vec::new();
    for Stamped { op, peers, series } in stamped {
        let wire = WireOp::of(&op);
        // A full disk refuses adds and takes clears: these have to come alone.
        let alone = !matches!(op.op.body, Body::Value(_) | Body::Part(_));
        for target in peers {
            let has_begun = |at: &&usize| groups[**at].has_begun(&target, series.as_ref());
            let has_room = |at: &&usize| groups[**at].has_room_for(&target, &wire);
            let joined = match alone {
                true => None,
                false => open
                    .iter()
                    .find(has_begun)
                    .or_else(|| open.iter().find(has_room))
                    .copied(),
            };
            let at = joined.unwrap_or_else(|| {
                groups.push(Group::new(&target));
                if !alone {
                    open.push(groups.len() - 1);
                }
                groups.len() - 1
            });
            groups[at].add(wire.clone(), target.share, series.as_ref());
        }
    }
    groups
}

/// Ops that go to one peer in one message.
struct Group {
    peer: Peer,
    hurry: Hurry,
    ops: Vec<WireOp>,
    shares: Vec<Share>,
    series: Vec<Series>,
    bytes: usize,
}

impl Group {
    fn new(target: &Target) -> Self {
        Self {
            peer: target.peer.clone(),
            hurry: target.hurry,
            ops: Vec::new(),
            shares: Vec::new(),
            series: Vec::new(),
            bytes: 0,
        }
    }

    fn is_for(&self, target: &Target) -> bool {
        self.peer.node() == target.peer.node() && self.hurry == target.hurry
    }

    fn has_room_for(&self, target: &Target, op: &WireOp) -> bool {
        self.is_for(target) && self.bytes + op.cost() <= GROUP_BYTES_MAX
    }

    /// Whether it holds others of the series. A series is short enough to come on top of a full one.
    fn has_begun(&self, target: &Target, series: Option<&Series>) -> bool {
        series.is_some_and(|series| self.series.contains(series)) && self.is_for(target)
    }

    fn add(&mut self, op: WireOp, share: Share, series: Option<&Series>) {
        if let Some(series) = series.filter(|series| !self.series.contains(series)) {
            self.series.push(series.clone());
        }
        self.bytes += op.cost();
        self.ops.push(op);
        self.shares.push(share);
    }

    fn send(self) {
        let shares = self.shares;
        self.peer
            .call_then(&Request::Append(self.ops), self.hurry, move |response| {
                let is_durable = matches!(response, Some(Response::Done));
                shares.into_iter().for_each(|share| share.end(is_durable));
            });
    }
}

impl Turn {
    /// Whether the shard has not begun with the op. Then it never will, and nobody gets it.
    pub fn withdraw(&self) -> bool {
        self.0.leave(WITHDRAWN)
    }

    /// Whether the shard has to read the past of its key before it can begin.
    pub fn is_looked_up(&self) -> bool {
        self.0.is_looked_up.load(Relaxed)
    }
}

impl Others {
    /// The op's place in the queue, to be withdrawn from.
    pub fn turn(&self) -> Turn {
        Turn(self.progress.clone())
    }

    /// To be asked before the op is given its dot and stamp: whether it is still wanted. From then on it is.
    pub fn take_turn(&self) -> bool {
        self.progress.is_looked_up.store(false, Relaxed);
        self.progress.leave(TAKEN)
    }

    pub fn look_up(&self) {
        self.progress.is_looked_up.store(true, Relaxed);
    }

    /// The op got no dot and stamp: its turn comes again.
    pub fn give_turn_back(&self) {
        // Only the one who has taken the turn changes it.
        self.progress.turn.store(WAITS, Relaxed);
    }

    pub fn stamped(self, op: KeyedOp, series: Option<Series>) -> Stamped {
        if let Some(counting) = &mut *self.progress.counting.lock() {
            counting.is_stamped = true;
        }
        let peers = self.peers;
        Stamped { op, peers, series }
    }
}

impl LocalShare {
    /// Whoever waits for it was told, or has gone away.
    pub fn is_closed(&self) -> bool {
        let Some(progress) = self.0.as_deref() else {
            return true;
        };
        progress
            .counting
            .lock()
            .as_ref()
            .is_none_or(|counting| counting.waiter.is_closed())
    }

    /// What this node's shard says.
    pub fn end(mut self, done: Result<Added, OpError>) {
        let Some(progress) = self.0.take() else {
            return;
        };
        progress.step(|counting| match done {
            Ok(Added::Appended) => {
                counting.durable += 1 + usize::from(planted(Bug::QuorumCountedTwice));
                counting.open -= 1;
                None
            }
            Ok(Added::Repeated) => Some(Spread::Repeated),
            Err(error) => counting.fail(error),
        });
    }
}

impl Counting {
    /// This node's shard will not have it.
    fn fail(&mut self, error: OpError) -> Option<Spread> {
        if !self.is_stamped {
            return Some(Spread::Refused(error));
        }
        self.local = Some(error);
        self.open -= 1;
        None
    }
}

impl Drop for LocalShare {
    fn drop(&mut self) {
        if let Some(progress) = self.0.take() {
            // The actor died with it half done, or had not begun: an op without a dot is nowhere.
            progress.step(|counting| {
                let maybe_applied = counting.is_stamped;
                counting.fail(OpError::ShardUnavailable { maybe_applied })
            });
        }
    }
}

impl Share {
    fn end(mut self, is_durable: bool) {
        self.say(is_durable);
    }

    fn say(&mut self, is_durable: bool) {
        let Some(progress) = self.0.take() else {
            return;
        };
        progress.step(|counting| {
            counting.durable += usize::from(is_durable);
            counting.open -= 1;
            None
        });
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.say(false);
    }
}

impl Progress {
    /// Whether it waited until now.
    fn leave(&self, to: u8) -> bool {
        // The one who finds it first decides, and nothing else is told by it.
        self.turn.compare_exchange(WAITS, to, Relaxed, Relaxed).is_ok()
    }

    /// Takes one step, and tells whoever waits if that was the last one that matters, or `step` says so itself.
    fn step(&self, step: impl FnOnce(&mut Counting) -> Option<Spread>) {
        let mut held = self.counting.lock();
        let Some(counting) = &mut *held else {
            return;
        };
        let said = step(counting).or_else(|| {
            if counting.durable >= counting.need {
                return Some(Spread::Enough);
            }
            (counting.open == 0).then(|| Spread::TooFew {
                durable: counting.durable,
                local: counting.local.take(),
            })
        });
        if let Some(said) = said
            && let Some(counting) = held.take()
        {
            drop(held);
            // It may have given up.
            let _ = counting.waiter.send(said);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::Clock;
    use crate::core::op::{Dot, Op};
    use crate::core::slot::SlotId;
    use crate::core::stamp::{HybridTime, OriginId};
    use crate::types::{Key, NodeId, UserId};

    type Told = oneshot::Receiver<Spread>;

    /// An op for this node and two peers, none of which is connected.
    fn begun(need: usize) -> (Others, LocalShare, Told) {
        begin(&[1, 2].map(|node| Peer::unconnected(NodeId(node))), need)
    }

    fn stamped(others: Others) -> [Share; 2] {
        let [first, second] = <[Target; 2]>::try_from(others.stamped(op(), None).peers).ok().unwrap();
        [first.share, second.share]
    }

    fn op() -> KeyedOp {
        KeyedOp {
            user: UserId::new("user").unwrap(),
            key: Key::new("key").unwrap(),
            op: Op {
                dot: Dot {
                    origin: OriginId(7),
                    slot: SlotId(9),
                    seq: 11,
                },
                time: HybridTime(13),
                request_id: None,
                body: Body::Value("value".into()),
            },
        }
    }

    fn unavailable() -> OpError {
        OpError::ShardUnavailable { maybe_applied: false }
    }

    fn is_open(told: &mut Told) -> bool {
        told.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn enough_is_told_with_the_last_of_those_needed_whoever_they_are() {
        let (others, local, mut told) = begun(2);
        let [first, second] = stamped(others);
        second.end(true);
        assert!(is_open(&mut told));
        drop(first);
        assert!(is_open(&mut told));
        local.end(Ok(Added::Appended));
        assert_eq!(told.try_recv(), Ok(Spread::Enough));
        let (others, local, mut told) = begun(2);
        let [first, second] = stamped(others);
        first.end(true);
        second.end(true);
        assert_eq!(told.try_recv(), Ok(Spread::Enough));
        local.end(Err(unavailable()));
    }

    #[test]
    fn too_few_is_told_when_nobody_is_left_and_says_how_many() {
        let (others, local, mut told) = begun(2);
        let [first, second] = stamped(others);
        local.end(Err(unavailable()));
        first.end(true);
        assert!(is_open(&mut told));
        drop(second);
        let (durable, local) = (1, Some(unavailable()));
        assert_eq!(told.try_recv(), Ok(Spread::TooFew { durable, local }));
    }

    #[test]
    fn an_actor_that_dies_leaves_nobody_waiting() {
        let (others, local, mut told) = begun(2);
        let stamped = others.stamped(op(), None);
        drop(local);
        assert!(is_open(&mut told));
        drop(stamped);
        let local = Some(OpError::ShardUnavailable { maybe_applied: true });
        assert_eq!(told.try_recv(), Ok(Spread::TooFew { durable: 0, local }));
        let (others, local, mut told) = begun(2);
        drop(others);
        assert!(is_open(&mut told));
        drop(local);
        assert_eq!(told.try_recv(), Ok(Spread::Refused(unavailable())), "it is nowhere");
    }

    #[test]
    fn what_the_shard_has_not_begun_with_is_withdrawn_and_nothing_else() {
        let (others, _local, _told) = begun(2);
        let turn = others.turn();
        assert!(others.take_turn() && !turn.withdraw());
        others.give_turn_back();
        assert!(others.take_turn() && !turn.withdraw(), "its turn may come again");
        let (others, _local, _told) = begun(2);
        assert!(others.turn().withdraw());
        assert!(!others.take_turn() && !others.take_turn());
    }

    #[test]
    fn what_has_no_name_is_refused_or_was_there_before() {
        let (_others, local, mut told) = begun(2);
        local.end(Err(unavailable()));
        assert_eq!(told.try_recv(), Ok(Spread::Refused(unavailable())));
        let (_others, local, mut told) = begun(2);
        local.end(Ok(Added::Repeated));
        assert_eq!(told.try_recv(), Ok(Spread::Repeated));
    }

    #[test]
    fn those_that_are_counted_on_get_it_at_once() {
        use Hurry::{Now, Soon};
        for (need, expected) in [(1, [Soon, Soon]), (2, [Now, Soon]), (3, [Now, Now])] {
            let (others, ..) = begun(need);
            let hurry: Vec<_> = others.peers.iter().map(|target| target.hurry).collect();
            assert_eq!(hurry, expected);
        }
    }

    #[test]
    fn ops_that_peers_cannot_be_sent_are_told_as_such() {
        let (others, local, mut told) = begun(2);
        send(vec![others.stamped(op(), None)]);
        assert!(is_open(&mut told));
        local.end(Ok(Added::Appended));
        let local = None;
        assert_eq!(told.try_recv(), Ok(Spread::TooFew { durable: 1, local }));
    }

    #[test]
    fn ops_for_one_peer_share_a_message_until_it_is_full_and_clears_have_their_own() {
        let target = || Target {
            peer: Peer::unconnected(NodeId(1)),
            hurry: Hurry::Now,
            share: Share(None),
        };
        let mut group = Group::new(&target());
        let wire = WireOp::of(&op());
        while group.has_room_for(&target(), &wire) {
            group.add(wire.clone(), Share(None), None);
        }
        assert!(group.bytes <= GROUP_BYTES_MAX && group.bytes + wire.cost() > GROUP_BYTES_MAX);
        assert!(group.ops.len() > 1000 && group.shares.len() == group.ops.len());
        let later = Target {
            hurry: Hurry::Soon,
            ..target()
        };
        assert!(!Group::new(&target()).has_room_for(&later, &wire));
        let mut clear = op();
        clear.op.body = Body::Clear(Clock::default());
        let stamped = [op(), clear.clone(), clear, op()].map(|op| begun(2).0.stamped(op, None));
        let of_first_peer = grouped(stamped.into()).into_iter().step_by(2);
        let sizes: Vec<usize> = of_first_peer.map(|group| group.ops.len()).collect();
        assert_eq!(sizes, [2, 1, 1]);
    }

    #[test]
    fn those_of_a_series_come_in_one_message_and_in_their_order() {
        let of_bytes = |bytes: usize| {
            let mut op = op();
            op.op.body = Body::Value("x".repeat(bytes).as_str().into());
            op
        };
        let stamped = |bytes, series: Option<&Series>| begun(2).0.stamped(of_bytes(bytes), series.cloned());
        let least = WireOp::of(&of_bytes(0)).cost();
        // Some room is left for what is short.
        let first = GROUP_BYTES_MAX - 5 * least;
        let (one, other) = (Series::default(), Series::default());
        let all = vec![
            stamped(first, None),
            stamped(1, Some(&one)),
            stamped(5000, Some(&one)),
            stamped(5001, None),
            stamped(2, Some(&one)),
            stamped(5002, Some(&other)),
            stamped(3, Some(&other)),
        ];
        let groups = grouped(all);
        let bytes = |group: &Group| group.ops.iter().map(|op| op.cost() - least).collect::<Vec<_>>();
        for node in [1, 2] {
            let of_node = groups.iter().filter(|group| group.peer.node() == NodeId(node));
            let expected = [vec![first, 1, 5000, 2], vec![5001, 5002, 3]];
            assert_eq!(of_node.map(bytes).collect::<Vec<_>>(), expected);
        }
    }
}
