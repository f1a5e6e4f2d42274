//! `kill -9` at random moments under load: what was acknowledged is there, in order, once, and what was cleared stays cleared.
//!
//! Several writers add values, parts and clears, each to keys of its own and to one that all share. The node is killed and started
//! again, round after round. A writer whose call has an unknown outcome sends it again, under the same request id, until it is
//! acknowledged; so at the end, and at every look in between, its own keys must hold exactly what it remembers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::common::calls::{Caller, strings};
use crate::common::http::{Connection, Response};
use crate::common::{Chance, Home};
use serde_json::{Value, json};

const WRITERS: u64 = 4;
const KEYS_PER_WRITER: u64 = 3;
const SHARED_KEY: &str = "shared";
/// Kills; `KV_KILL_ROUNDS` makes it a longer run.
const ROUNDS_DEFAULT: u64 = 12;
/// Longest life of a node between two kills.
const ROUND_MS_MAX: u64 = 1500;

/// Where the node is now, and whether the writers should come to an end.
struct World {
    addr: SocketAddr,
    ending: bool,
}

#[derive(Default, Clone)]
struct Remembered {
    values: Vec<String>,
    open: String,
}

struct Writer {
    id: u64,
    chance: Chance,
    world: Arc<Mutex<World>>,
    caller: Caller,
    connection: Option<Connection>,
    keys: Vec<Remembered>,
    shared: Vec<String>,
    requests: u64,
    /// Answers that never came.
    unknown: u64,
}

impl Writer {
    fn run(mut self) -> Self {
        while !self.world.lock().ending {
            self.act();
        }
        for index in 0..KEYS_PER_WRITER {
            self.check(index);
        }
        self
    }

    fn act(&mut self) {
        let index = self.chance.below(KEYS_PER_WRITER);
        let unknown_before = self.unknown;
        match self.chance.below(100) {
            0..50 => self.add(index, true),
            50..75 => self.add(index, false),
            75..85 => self.add_shared(),
            85..88 => self.clear(index),
            _ => self.check(index),
        }
        if self.unknown > unknown_before {
            self.check(index);
        }
    }

    fn key(&self, index: u64) -> String {
        format!("writer {} key {index}", self.id)
    }

    fn next_text(&mut self) -> (String, String) {
        self.requests += 1;
        let request_id = format!("{}-{}", self.id, self.requests);
        let filler = match self.chance.below(20) {
            0 => self.chance.below(200_000),
            _ => self.chance.below(100),
        };
        (format!("{request_id} {};", "x".repeat(filler as usize)), request_id)
    }

    fn add(&mut self, index: u64, finish: bool) {
        let (text, request_id) = self.next_text();
        let body = json!({"key": self.key(index), "value": text, "finish_value": finish, "request_id": request_id});
        self.call("/add_value", body);
        let key = &mut self.keys[index as usize];
        key.open.push_str(&text);
        if finish {
            key.values.push(std::mem::take(&mut key.open));
        }
    }

    fn add_shared(&mut self) {
        let (text, request_id) = self.next_text();
        self.call(
            "/add_value",
            json!({"key": SHARED_KEY, "value": text, "request_id": request_id}),
        );
        self.shared.push(text);
    }

    fn clear(&mut self, index: u64) {
        self.call("/clear_key", json!({"key": self.key(index)}));
        self.keys[index as usize] = Remembered::default();
    }

    fn check(&mut self, index: u64) {
        let answer = self.call("/get_value", json!({"key": self.key(index)}));
        let expected = &self.keys[index as usize].values;
        let found = strings(&answer["value"]);
        if found != *expected {
            let short = |values: &[String]| -> Vec<String> {
                values
                    .iter()
                    .map(|value| format!("{:.40}… ({} bytes)", value, value.len()))
                    .collect()
            };
            panic!(
                "{}:\nexpected {:#?}\nfound {:#?}",
                self.key(index),
                short(expected),
                short(&found)
            );
        }
    }

    /// Sends until there is an answer that says that it was done.
    fn call(&mut self, path: &str, body: Value) -> Value {
        let body = self.caller.body(body);
        loop {
            match self.attempt(path, &body) {
                Ok(response) if response.status == 200 => return response.json(),
                Ok(response) if response.status == 503 => {}
                Ok(response) => panic!("{path}: {} {}", response.status, response.text()),
                Err(_) => self.connection = None,
            }
            self.unknown += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn attempt(&mut self, path: &str, body: &[u8]) -> std::io::Result<Response> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(self.world.lock().addr)?),
        };
        connection.request("POST", path, body)
    }
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_brought_back_by_kill_nine() {
    let rounds = std::env::var("KV_KILL_ROUNDS").map_or(ROUNDS_DEFAULT, |text| text.parse().unwrap());
    let mut chance = Chance(std::env::var("KV_KILL_SEED").map_or(1, |text| text.parse().unwrap()));
    let home = Home::new();
    let mut node = home.start();
    let caller = node.user("writer");
    let world = Arc::new(Mutex::new(World {
        addr: node.addr(),
        ending: false,
    }));
    let writers: Vec<_> = (0..WRITERS)
        .map(|id| {
            let writer = Writer {
                id,
                chance: Chance(chance.below(u64::MAX)),
                world: Arc::clone(&world),
                caller: caller.clone(),
                connection: None,
                keys: vec![Remembered::default(); KEYS_PER_WRITER as usize],
                shared: Vec::new(),
                requests: 0,
                unknown: 0,
            };
            std::thread::spawn(move || writer.run())
        })
        .collect();

    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(chance.below(ROUND_MS_MAX)));
        // A writer that has ended found something wrong: more rounds would only blur it.
        if writers.iter().any(std::thread::JoinHandle::is_finished) {
            break;
        }
        node.kill();
        node = home.start();
        world.lock().addr = node.addr();
    }
    world.lock().ending = true;
    let writers: Vec<Writer> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();

    let shared = caller.at(node.addr()).get(SHARED_KEY);
    let acknowledged: usize = writers.iter().map(|writer| writer.shared.len()).sum();
    assert_eq!(shared.len(), acknowledged);
    for writer in &writers {
        let own = format!("{}-", writer.id);
        let found: Vec<&String> = shared.iter().filter(|value| value.starts_with(&own)).collect();
        assert!(
            found.into_iter().eq(&writer.shared),
            "the order of writer {}'s adds",
            writer.id
        );
    }
    let sent: u64 = writers.iter().map(|writer| writer.requests).sum();
    assert!(sent > rounds, "only {sent} requests went through");
}
