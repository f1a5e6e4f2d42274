use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::bench::protocol::Garbled;
use crate::bench::{HttpAnswers, Operation, Protocol, Step};

/// Sends one byte; its answers are those of HTTP.
struct OneByte(HttpAnswers);

impl Protocol for OneByte {
    fn request(&mut self, _: Operation, _: u64, _: u64, out: &mut Vec<u8>) {
        out.push(b'?');
    }

    fn advance(&mut self, input: &[u8]) -> Result<Step, Garbled> {
        self.0.advance(input)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A server that answers the n-th request of each connection with what `answer` says; None: never.
fn server(answer: impl Fn(u64) -> Option<&'static [u8]> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut byte = [0];
                let mut number = 0;
                while stream.read_exact(&mut byte).is_ok() {
                    match answer(number) {
                        None => continue,
                        Some(answer) if stream.write_all(answer).is_err() => return,
                        Some(answer) if answer == BUSY => return,
                        Some(_) => number += 1,
                    }
                }
            });
        }
    });
    address
}

fn load(address: SocketAddr) -> Load {
    Load {
        addresses: vec![address],
        connections: 4,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(300),
        rate_per_s: None,
        mix: Mix::half_and_half(),
        keys: 10,
        distribution: Distribution::Uniform,
        seed: 1,
        drain: Duration::from_secs(10),
    }
}

fn run_load(load: &Load) -> Report {
    run(load, |_| OneByte(HttpAnswers::default()), |_| {}).unwrap()
}

/// The first run in which enough is done, each twice as long as the one before: how much that is in a second, the machine decides.
fn run_until(mut load: Load, is_enough: impl Fn(&Report) -> bool) -> Report {
    loop {
        let report = run_load(&load);
        if is_enough(&report) {
            return report;
        }
        load.duration *= 2;
        assert!(load.duration < Duration::from_secs(60), "never enough: {report}");
    }
}

#[test]
fn operations_are_counted_by_kind() {
    let of_each = |report: &Report| report.operations.values().filter(|kind| kind.done > 0).count() == 2;
    let report = run_until(load(server(|_| Some(OK))), of_each);
    assert!(report.errors.is_empty(), "{report}");
    let kinds: Vec<_> = report.operations.keys().copied().collect();
    assert_eq!(kinds, ["add_value", "get_value"]);
    assert_eq!(
        report.operations.values().map(|kind| kind.done).sum::<u64>(),
        report.done
    );
    assert_eq!(report.bytes_sent, report.done);
}

#[test]
fn with_a_rate_exactly_what_is_due_is_sent() {
    let load = Load {
        rate_per_s: Some(1000.0),
        ..load(server(|_| Some(OK)))
    };
    let report = run_load(&load);
    // What is due last may find the end gone by, on a machine that is busy.
    assert_eq!(report.done + report.never_sent, 300, "{report}");
}

#[test]
fn a_refusal_is_counted_by_its_status_and_a_closed_connection_is_made_anew() {
    // Each connection is good for three, and there are four: the others came on those that were made anew.
    let load = load(server(|number| Some(if number < 3 { OK } else { BUSY })));
    let report = run_until(load, |report| report.done > 3 * 4);
    assert_eq!(report.errors.keys().collect::<Vec<_>>(), ["503"], "{report}");
}

#[test]
fn a_stalled_server_is_charged_for_what_was_due_meanwhile() {
    // The first answer to come late holds up its only connection; everything due meanwhile is late, and counted as such.
    let stalled = AtomicBool::new(false);
    let address = server(move |number| {
        if number == 10 && !stalled.swap(true, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(150));
        }
        Some(OK)
    });
    let load = Load {
        connections: 1,
        rate_per_s: Some(1000.0),
        mix: Mix::only(Operation::Get),
        ..load(address)
    };
    let report = run_load(&load);
    let get = &report.operations["get_value"];
    // Of 300 operations about 150 were due in the stall, and had to wait 75 ms on average.
    assert!(get.p90_us > 50_000.0, "{report}");
}

#[test]
fn a_run_ends_although_answers_do_not_come() {
    let load = Load {
        drain: Duration::from_millis(50),
        ..load(server(|_| None))
    };
    let report = run_load(&load);
    assert_eq!((report.done, report.errors["no_answer"]), (0, 4), "{report}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = run(&load(address), |_| OneByte(HttpAnswers::default()), |_| {}).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let none = Load {
        addresses: Vec::new(),
        ..load(address)
    };
    assert!(matches!(
        run(&none, |_| OneByte(HttpAnswers::default()), |_| {}),
        Err(LoadError::NoAddress)
    ));
}

#[test]
fn one_that_is_stopped_tells_what_was_measured_by_then() {
    let address = server(|_| Some(OK));
    let forever = Load {
        duration: Duration::from_secs(3600),
        ..load(address)
    };
    let protocol = |_| OneByte(HttpAnswers::default());
    let stop = AtomicBool::new(false);
    let report = run_or_stop(&forever, protocol, |_| stop.store(true, Ordering::Relaxed), &stop).unwrap();
    assert!(report.done > 0 && (1.0..3600.0).contains(&report.seconds), "{report:?}");
    // One that hangs then is not waited for as long as usual.
    let silent = Load {
        addresses: vec![server(|number| (number == 0).then_some(OK))],
        drain: Duration::from_secs(3600),
        ..forever.clone()
    };
    let stop = AtomicBool::new(false);
    let report = run_or_stop(&silent, protocol, |_| stop.store(true, Ordering::Relaxed), &stop).unwrap();
    assert_eq!((report.done, report.errors.values().sum::<u64>()), (4, 4), "{report:?}");
    // In its warm-up.
    let warming = Load {
        warmup: Duration::from_secs(3600),
        ..forever
    };
    let stopped = run_or_stop(&warming, protocol, |_| (), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(LoadError::NothingMeasured)));
}
