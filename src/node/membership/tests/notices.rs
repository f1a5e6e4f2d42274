//! Notices that a node's generation is outdated, and who may be misled by them.

use super::*;

/// Where a stranger hears what is sent to it.
const STRANGER: u64 = 9;

impl MemoryNet {
    /// What was sent to this address since the last look, while everything is recorded.
    fn sent_to(&self, to: SocketAddr) -> Vec<Vec<u8>> {
        let recorded = self.0.lock().recorded.replace(Vec::new()).unwrap_or_default();
        let sent = recorded.into_iter().filter(|(_, at)| *at == to);
        sent.map(|(bytes, _)| bytes).collect()
    }
}

/// By the header of a datagram, which everybody can read.
fn sender(datagram: &[u8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|at| datagram[9 + at]))
}

#[tokio::test(start_paused = true)]
async fn a_notice_about_another_node_changes_nothing() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    // The first one is known by more starts than the others, so what is said of it is news to them.
    let mut nodes = Vec::new();
    for (node, generation) in [(1, 7), (2, 1), (3, 1)] {
        nodes.push(start(&net, config(node, generation, &[1])).await);
    }
    for node in &nodes {
        wait(node, Duration::from_secs(10), |view| alive(view) == [1, 2, 3]).await;
    }
    net.sent_to(addr(2));
    sleep(Duration::from_secs(5)).await;
    let to_second = net.sent_to(addr(2));
    let of_first = to_second.iter().find(|datagram| sender(datagram) == 1).unwrap();
    let refused = |node: &Membership| node.counters().refused.by_reason().map(|(_, count)| count).sum::<u64>();
    let before = refused(&nodes[2]);

    // The second one answers what it has heard before: to the third itself, and to a stranger, who sends that on.
    net.send(of_first, addr(3), addr(2));
    sleep(Duration::from_secs(1)).await;
    net.send(of_first, addr(STRANGER), addr(2));
    sleep(Duration::from_secs(1)).await;
    let notices = net.sent_to(addr(STRANGER));
    assert_eq!(notices.len(), 1);
    for to in [1, 3] {
        net.send(&notices[0], addr(2), addr(to));
    }
    sleep(Duration::from_secs(1)).await;
    for node in &nodes {
        assert_eq!(*node.outdated().borrow(), None);
    }
    assert_eq!(refused(&nodes[2]), before, "it is understood, and about another one");

    // Whom it is about heeds it.
    nodes.remove(0).stop().await;
    sleep(Duration::from_secs(300)).await;
    let restored = start(&net, config(1, 3, &[2])).await;
    let mut outdated = restored.outdated();
    let told = outdated.wait_for(|known| *known == Some(7));
    timeout(Duration::from_secs(10), told).await.unwrap().unwrap();
}
