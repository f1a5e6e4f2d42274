//! What is not believed: other keys and clusters, garbage, replays, generations that were set back.

use super::*;

#[tokio::test(start_paused = true)]
async fn another_key_another_cluster_and_garbage_are_refused_and_harmless() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    let nodes = cluster(&net, 2).await;
    let other_key = MembershipConfig {
        keys: ring(2),
        ..config(3, 1, &[1, 2])
    };
    let other_name = MembershipConfig {
        cluster_name: "other".to_owned(),
        ..config(4, 1, &[1, 2])
    };
    let strangers = [start(&net, other_key).await, start(&net, other_name).await];
    for length in 0..300 {
        net.send(&vec![length as u8; length], addr(9), addr(1));
    }
    // Sealed with the key, but no message.
    let mut sealer = Sealer::new(&ring(1), NodeId(9), 1, Arc::new(crate::os::OsEntropy));
    let mut datagram = Vec::new();
    for payload in [&b""[..], b"\0", b"\0\x01\x02\x03", b"\x02short", b"\x03"] {
        sealer.seal(payload, &mut datagram);
        net.send(&datagram, addr(9), addr(1));
    }
    stays(&nodes, Duration::from_secs(30), |view| alive(view) == [1, 2]).await;
    assert_eq!((sees(&strangers[0]), sees(&strangers[1])), (vec![3], vec![4]));
    let heard = strangers[1]
        .counters()
        .received
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(heard, 0, "one of another cluster is not answered each time");
    let counters = nodes[0].counters();
    let refused: BTreeMap<_, _> = counters.refused.by_reason().collect();
    assert_eq!(refused["malformed"], 5);
    assert!(refused["unknown_key"] > 10 && refused["too_short"] > 10 && refused["version"] > 10);
}

#[tokio::test(start_paused = true)]
async fn replayed_datagrams_change_nothing_and_are_counted() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    let mut nodes = cluster(&net, 3).await;
    net.0.lock().recorded = Some(Vec::new());
    sleep(Duration::from_secs(5)).await;
    let recorded = net.0.lock().recorded.take().unwrap();
    nodes.pop().unwrap().stop().await;
    for node in &nodes {
        wait(node, Duration::from_secs(3), |view| alive(view) == [1, 2]).await;
    }
    // Played again, to everyone and again and again, they do not make the dead one live.
    for _ in 0..20 {
        for (bytes, _) in &recorded {
            net.send(bytes, addr(3), addr(1));
            net.send(bytes, addr(3), addr(2));
        }
        stays(&nodes, Duration::from_secs(1), |view| alive(view) == [1, 2]).await;
    }
    for node in &nodes {
        let counters = node.counters();
        let refused: BTreeMap<_, _> = counters.refused.by_reason().collect();
        assert!(refused["replayed"] as usize > recorded.len() * 10, "{refused:?}");
        assert_eq!(*node.outdated().borrow(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_generation_was_set_back_learns_so() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    let mut nodes = cluster(&net, 3).await;
    nodes.pop().unwrap().stop().await;
    nodes.push(start(&net, config(3, 9, &[1])).await);
    wait(&nodes[0], Duration::from_secs(10), |view| {
        view.nodes[&NodeId(3)].generation == 9
    })
    .await;
    // An older generation, and the same one anew.
    for generation in [4, 9] {
        sleep(Duration::from_secs(20)).await;
        nodes.pop().unwrap().stop().await;
        // Long enough that gossip has forgotten it: only the replay windows remember.
        sleep(Duration::from_secs(300)).await;
        let restored = start(&net, config(3, generation, &[1])).await;
        let mut outdated = restored.outdated();
        timeout(Duration::from_secs(10), outdated.wait_for(|known| *known == Some(9)))
            .await
            .unwrap()
            .unwrap();
        nodes.push(restored);
    }
    nodes.pop().unwrap().stop().await;
    nodes.push(start(&net, config(3, 10, &[1])).await);
    for node in &nodes {
        wait(node, Duration::from_secs(10), |view| alive(view) == [1, 2, 3]).await;
    }
    assert_eq!(*nodes[2].outdated().borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_and_names_too_long_are_told() {
    let net = MemoryNet::new(0, Duration::ZERO);
    let node = start(&net, config(1, 1, &[])).await;
    let error = Membership::start(&env(&net), config(1, 2, &[])).await.err().unwrap();
    assert!(matches!(error, MembershipError::Listen { .. }), "{error}");
    node.stop().await;
    let node = start(&net, config(1, 2, &[])).await;
    drop(node);
    let mut long = config(2, 1, &[]);
    long.about.zone = "z".repeat(CLUSTER_NAME_BYTES_MAX + 1);
    let error = Membership::start(&env(&net), long).await.err().unwrap();
    assert_eq!(error.to_string(), "the name of the zone has 65 bytes, 64 are allowed");
}
