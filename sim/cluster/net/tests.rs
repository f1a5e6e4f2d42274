//! The network by itself, with programs on hosts of their own.

use std::io::ErrorKind;
use std::sync::Arc;

use kv_storage::env::{Net, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::cluster::host::Host;

const SERVER: HostId = HostId(0);
const CLIENT: HostId = HostId(1);

fn link() -> Link {
    Link {
        delay_us: 1000,
        jitter_us: 500,
        loss_percent: 0,
        repeat_percent: 0,
        bytes_per_ms: 10_000,
        blocked: false,
    }
}

struct Pair {
    network: Network,
    hosts: [Option<Host>; 2],
    said: Arc<Mutex<Vec<String>>>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        os::arm(seed);
        let streams = Streams {
            window_bytes: 4096,
            segment_bytes: 500,
            give_up_us: 5_000_000,
        };
        let network = Network::new(Rng::new(seed), Trace::new(false), link(), streams);
        network.set_up(SERVER);
        network.set_up(CLIENT);
        Self {
            network,
            hosts: [Some(Host::new()), Some(Host::new())],
            said: Arc::default(),
        }
    }

    fn spawn<F: Future<Output = String> + Send + 'static>(&self, host: HostId, program: impl FnOnce(HostNet) -> F) {
        let (said, program) = (self.said.clone(), program(self.network.on(host)));
        let host = self.hosts[usize::from(host.0)].as_ref().expect("it is up");
        host.spawn(async move {
            let line = program.await;
            said.lock().unwrap().push(line);
        });
    }

    fn run_until(&mut self, us: u64) {
        loop {
            self.network.deliver();
            for host in self.hosts.iter_mut().flatten() {
                host.run();
            }
            let timers = self.hosts.iter().flatten().filter_map(|host| host.timer_us);
            let next = timers.chain(self.network.next_event_us()).min().unwrap_or(us);
            os::set_now_us(next.min(us));
            if next >= us {
                return;
            }
        }
    }

    fn block(&self, from: HostId, to: HostId, blocked: bool) {
        self.network.change_link(from, to, |link| link.blocked = blocked);
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }
}

/// Every test on a fresh thread, as arming needs it.
fn simulate(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().expect("the simulated part holds");
}

async fn accept_one(net: HostNet) -> Box<dyn Stream> {
    let mut listener = net.listen((SERVER.ip(), 80).into()).await.unwrap();
    listener.accept().await.unwrap().0
}

async fn echo(net: HostNet) -> String {
    let mut stream = accept_one(net).await;
    let mut buffer = [0; 300];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return "echo: end".into(),
            Ok(count) => {
                if let Err(error) = stream.write_all(&buffer[..count]).await {
                    return format!("echo: {:?}", error.kind());
                }
            }
            Err(error) => return format!("echo: {:?}", error.kind()),
        }
    }
}

async fn send_and_hear(net: HostNet, bytes: usize) -> String {
    let stream = net.connect((SERVER.ip(), 80).into()).await;
    let Ok(stream) = stream else {
        return format!("connect: {:?}", stream.err().map(|error| error.kind()));
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let send = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let mut heard = Vec::new();
    let (sending, hearing) = tokio::join!(send, reader.read_to_end(&mut heard));
    match sending.and(hearing) {
        Ok(_) if heard == sent => "all is heard".into(),
        Ok(_) => format!("{} of {bytes} bytes", heard.len()),
        Err(error) => format!("{:?}", error.kind()),
    }
}

#[test]
fn bytes_come_whole_and_in_order_through_loss() {
    simulate(|| {
        let mut pair = Pair::new(1);
        for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            pair.network.change_link(from, to, |link| link.loss_percent = 20);
        }
        pair.spawn(SERVER, echo);
        pair.run_until(10);
        pair.spawn(CLIENT, |net| send_and_hear(net, 20_000));
        pair.run_until(60_000_000);
        assert_eq!(pair.said(), ["echo: end", "all is heard"]);
    });
}

#[test]
fn a_stream_outlives_a_short_partition_and_breaks_in_a_long_one() {
    for (blocked_us, expected) in [(2_000_000, "all is heard"), (20_000_000, "TimedOut")] {
        simulate(move || {
            let mut pair = Pair::new(2);
            pair.spawn(SERVER, echo);
            pair.run_until(10);
            pair.spawn(CLIENT, |net| send_and_hear(net, 20_000));
            pair.run_until(10_000);
            pair.block(CLIENT, SERVER, true);
            pair.run_until(10_000 + blocked_us);
            pair.block(CLIENT, SERVER, false);
            pair.run_until(60_000_000);
            assert!(pair.said().iter().any(|line| line == expected), "{:?}", pair.said());
        });
    }
}

#[test]
fn who_does_not_listen_refuses_and_who_is_down_is_silent() {
    simulate(|| {
        let mut pair = Pair::new(3);
        pair.spawn(CLIENT, |net| send_and_hear(net, 10));
        pair.run_until(1_000_000);
        assert_eq!(
            pair.said(),
            [format!("connect: {:?}", Some(ErrorKind::ConnectionRefused))]
        );
        pair.network.power_off(SERVER);
        pair.spawn(CLIENT, |net| send_and_hear(net, 10));
        pair.run_until(30_000_000);
        assert_eq!(pair.said().len(), 1, "the second attempt hangs");
    });
}

#[test]
fn a_crash_is_silent_until_something_is_sent_and_a_kill_is_told() {
    for power in [true, false] {
        simulate(move || {
            let mut pair = Pair::new(4);
            pair.spawn(SERVER, echo);
            pair.run_until(10);
            pair.spawn(CLIENT, |net| async move {
                let mut stream = net.connect((SERVER.ip(), 80).into()).await.unwrap();
                let first = stream.read(&mut [0]).await.map_err(|error| error.kind());
                format!("{first:?}")
            });
            pair.run_until(100_000);
            match power {
                true => pair.network.power_off(SERVER),
                false => pair.network.kill(SERVER),
            }
            pair.hosts[0] = None;
            pair.run_until(10_000_000);
            let expected: &[&str] = if power { &[] } else { &["Ok(0)"] };
            assert_eq!(pair.said(), expected);
        });
    }
}

#[test]
fn datagrams_are_lost_repeated_and_overtake_each_other() {
    simulate(|| {
        let mut pair = Pair::new(5);
        pair.network.change_link(CLIENT, SERVER, |link| {
            link.loss_percent = 30;
            link.repeat_percent = 30;
            link.jitter_us = 5_000;
        });
        pair.spawn(SERVER, |net| async move {
            let socket = net.datagrams((SERVER.ip(), 90).into()).await.unwrap();
            let mut heard = Vec::new();
            let listen = async {
                loop {
                    let mut buffer = [0; 16];
                    let (count, _) = socket.recv_from(&mut buffer).await.unwrap();
                    assert_eq!(count, 1);
                    heard.push(buffer[0]);
                }
            };
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), listen).await;
            let lost = (0..100).filter(|number| !heard.contains(number)).count();
            let repeated = heard.len() + lost > 100;
            format!("{} {} {}", lost > 0, repeated, !heard.is_sorted())
        });
        pair.spawn(CLIENT, |net| async move {
            let socket = net.datagrams((CLIENT.ip(), 0).into()).await.unwrap();
            for number in 0..100 {
                socket.send_to(&[number], (SERVER.ip(), 90).into()).await.unwrap();
            }
            assert!(socket.send_to(&[0; 70_000], (SERVER.ip(), 90).into()).await.is_err());
            "sent".into()
        });
        pair.run_until(2_000_000);
        assert_eq!(pair.said(), ["sent", "true true true"]);
    });
}
