//! Readers that are open at another node.

use crate::node::cluster::calls::Tries;
use crate::node::cluster::tests::*;
use crate::wire::{Request, Response};

impl Rig {
    fn open_readers(&self) -> usize {
        let readers = |node: &Node| node.cluster().unwrap().inner.serving.readers.lock().len();
        self.running().map(readers).sum()
    }

    async fn wait_open(&self, count: usize, what: &str) {
        let until = Instant::now() + PATIENCE / 4;
        while self.open_readers() != count {
            assert!(Instant::now() < until, "{} are open: {what}", self.open_readers());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_nobody_waits_for_is_closed() {
    let rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.wait_equal().await;
    let inner = &rig.node(0).cluster().unwrap().inner;
    let peers = inner.peers.all();
    let read = |reader| Request::Read {
        reader,
        user: user().as_str().to_owned(),
        key: "k".to_owned(),
        offset: 0,
        limit: u64::MAX,
        terms: calls::wire_terms(at(Consistency::One)),
    };

    // Two replicas are asked, and the quicker one's answer is taken.
    let mut tries = Tries::default();
    for peer in &peers {
        tries.begin(peer.clone(), &read(1_000_001));
    }
    let (quicker, answer) = tries.next().await.unwrap();
    assert!(matches!(answer, Ok(Response::Page(page)) if !page.is_empty()));
    drop(tries);
    wait_answered(&peers).await;
    rig.wait_open(1, "the quicker one's").await;
    let end = Request::ReadEnd { reader: 1_000_001 };
    quicker.call(end).unwrap().await.unwrap();
    rig.wait_open(0, "its end").await;

    // Who asked goes away before there is an answer.
    let replicas: Vec<_> = peers.iter().map(Peer::node).collect();
    for reader in 1_000_002.. {
        let mut asked = Box::pin(inner.through(&replicas, |_| read(reader), at(Consistency::One), false));
        // Its timer is set, and then it sends.
        assert!(futures_util::poll!(&mut asked).is_pending());
        sleep(Duration::from_millis(20)).await;
        if futures_util::poll!(&mut asked).is_pending() {
            break;
        }
        // On a busy machine the timer had fired before it was looked at, and the answer is there.
        for peer in &peers {
            peer.call(Request::ReadEnd { reader }).unwrap().await.unwrap();
        }
    }
    wait_answered(&peers).await;
    rig.wait_open(0, "nobody waits").await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_clients_are_refused_counts_as_without_a_quorum() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.stop(1).await;
    rig.stop(2).await;
    let counted = || rig.node(0).cluster().unwrap().figures().quorum_failures;
    let refused_as = async |user: &UserId| {
        let end = Instant::now() + PATIENCE;
        let mut refused = 0;
        while refused < 3 {
            assert!(Instant::now() < end, "it is not refused");
            let got = rig.node(0).get(user, &key("k"), 0, 1, at(Consistency::Quorum)).await;
            refused += u64::from(matches!(got.err(), Some(OpError::Quorum { .. })));
        }
        refused
    };
    refused_as(&UserId::system()).await;
    assert_eq!(counted(), 0);
    let refused = refused_as(&user()).await;
    assert_eq!(counted(), refused);
    rig.end().await;
}
