//! How a node ends, and how it starts on what it finds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::calls::Caller;
use crate::common::http::{Connection, get, request};
use crate::common::{ADMIN, Home, Node, PATIENCE, password_hash, said};
use serde_json::json;

#[test]
fn after_sigterm_what_is_in_flight_finishes_and_everything_is_there() {
    let home = Home::new();
    let node = home.start();
    let ann = node.user("ann");
    ann.add("k", "before");
    // One request is half sent when the signal comes.
    let bytes = request(
        "POST",
        "/add_value",
        &ann.body(json!({"key": "k", "value": "in flight"})),
    );
    let mut connection = Connection::open(node.addr()).unwrap();
    let (first, rest) = bytes.split_at(bytes.len() - 20);
    connection.send(first).unwrap();
    wait_until_body_comes(&node);
    node.terminate();
    connection.send(rest).unwrap();
    let response = connection.read_response().unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(node.wait().success());

    let node = home.start();
    assert_eq!(ann.at(node.addr()).get("k"), ["before", "in flight"]);
}

/// Until the node has taken some of a request's body.
fn wait_until_body_comes(node: &Node) {
    let begun = Instant::now();
    let comes = || {
        let metrics = get(node.addr(), "/metrics").text();
        let mut lines = metrics.lines();
        let bytes = lines.find_map(|line| line.strip_prefix("kv_http_body_in_flight_bytes "));
        bytes.is_some_and(|bytes| bytes != "0")
    };
    while !comes() {
        assert!(begun.elapsed() < PATIENCE, "nothing of the body is taken");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let home = Home::new();
    let node = home.start();
    let mut idle = Connection::open(node.addr()).unwrap();
    assert_eq!(idle.request("GET", "/healthz", b"").unwrap().status, 200);
    let silent = Connection::open(node.addr()).unwrap();
    node.terminate();
    assert!(node.wait().success());
    drop((idle, silent));
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("k", "v");
    let output = home.start_refused(&[]);
    let text = said(&output);
    let folder = home.data().display().to_string();
    assert!(text.contains(&folder) && text.contains("another process"), "{text}");
    assert_eq!(node.admin().get("k"), ["v"]);
}

#[test]
fn a_first_start_without_a_user_says_how_to_make_one() {
    let home = Home::new();
    let node = home.start_without_user();
    assert_eq!(node.admin().post("/get_value", json!({"key": "k"})).status, 401);
    node.terminate();
    let log = node.log_at_end();
    assert!(log.contains("--user") && log.contains("--password-file"), "{log}");
}

#[test]
fn the_first_admin_is_made_once_and_keeps_the_password() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("k", "v");
    node.kill();
    std::fs::write(home.password_file(), "something else").unwrap();
    let node = home.start();
    assert_eq!(node.admin().get("k"), ["v"]);
}

/// The flags stay where they are, and the admin that they name is removed.
#[test]
fn a_node_starts_while_the_user_of_its_flags_is_being_removed() {
    let home = Home::new();
    let node = home.start();
    let (first, hash) = (node.admin(), password_hash("ann"));
    first.call(
        "/users/add",
        json!({"name": "ann", "password_hash": hash, "admin": true}),
    );
    let second = Caller::new(node.addr(), "ann", &hash);
    // The removal takes longer than it takes to see that it has begun.
    for thousand in 0..5 {
        let add = |number: u32| json!({"op": "add_value", "key": format!("{thousand}-{number}"), "value": "x"});
        let adds: Vec<_> = (0..1000).map(add).collect();
        first.call("/batch", json!({ "operations": adds }));
    }
    let removing = std::thread::spawn({
        let second = second.clone();
        // It is cut off.
        move || drop(second.try_post("/users/remove", json!({"name": ADMIN})))
    });
    let has_begun = || {
        let listed = second.call("/users/list", json!({}));
        listed["users"].as_array().unwrap().len() == 1
    };
    wait_until("the removal begins", has_begun);
    node.kill();
    removing.join().unwrap();

    let node = home.start();
    let first = node.admin();
    // Made anew, by the flags, once it is gone.
    let is_back = || first.post("/list_keys", json!({})).status == 200;
    wait_until("the admin is back", is_back);
    assert_eq!(first.keys("", 1000), Vec::<String>::new());
    second.at(node.addr()).call("/users/list", json!({}));
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What an operator does who follows what the program says.
#[test]
fn where_the_records_of_users_are_damaged_the_node_starts_and_their_data_comes_back_to_them() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("k", "v");
    let ann = node.user("ann");
    ann.add("k", "ann's");
    node.kill();
    let logs = files(&home, ".kvl");
    let system = logs
        .iter()
        .find(|path| path.to_string_lossy().contains("system-of-"))
        .unwrap();
    // In the first record, which others follow that prove it was synced.
    overwrite(system, 600, &[0xff; 40]);

    let node = home.start();
    assert_eq!(get(node.addr(), "/healthz").status, 200);
    assert_ne!(node.admin().post("/get_value", json!({"key": "k"})).status, 200);
    node.terminate();
    assert!(node.wait().success());

    let mut accept = crate::common::kv();
    accept.args(["segment", "accept-loss", "--data"]).arg(home.data());
    let accepted = said(&crate::common::run(accept));
    assert!(
        accepted.contains("given up") && accepted.contains("--keep-data"),
        "{accepted}"
    );
    let node = home.start();
    assert_eq!(node.admin().get("k"), ["v"]);
    assert_eq!(ann.at(node.addr()).get("k"), ["ann's"]);
}

/// Files of the data folder whose name ends so, largest first.
fn files(home: &Home, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![home.data()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn overwrite(path: &Path, offset: usize, bytes: &[u8]) {
    let mut content = std::fs::read(path).unwrap();
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, content).unwrap();
}

/// Where `needle` lies in which log.
fn find_in_logs(home: &Home, needle: &str) -> (PathBuf, usize) {
    let found = files(home, ".kvl").into_iter().find_map(|path| {
        let content = std::fs::read(&path).unwrap();
        let at = content
            .windows(needle.len())
            .position(|window| window == needle.as_bytes())?;
        Some((path, at))
    });
    found.unwrap_or_else(|| panic!("{needle} is in no log"))
}

#[test]
fn a_newer_file_version_is_refused_and_left_alone() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("k", "a text to find");
    node.kill();
    let (log, _) = find_in_logs(&home, "a text to find");
    let before = std::fs::read(&log).unwrap();
    // The version follows the four bytes that name the kind of file; the checksum stands behind the header's 32 bytes, in every
    // version. (Without it, this would be a damaged header.)
    let mut header = before[..32].to_vec();
    header[4..6].copy_from_slice(&u16::MAX.to_le_bytes());
    overwrite(&log, 0, &header);
    overwrite(&log, 32, &crc32c::crc32c(&header).to_le_bytes());
    let text = said(&home.start_refused(&[]));
    assert!(text.contains("newer") && text.contains("version"), "{text}");
    overwrite(&log, 0, &before[..36]);
    assert_eq!(std::fs::read(&log).unwrap(), before);
    let node = home.start();
    assert_eq!(node.admin().get("k"), ["a text to find"]);
}

/// What `/metrics` counts as damaged or quarantined, of whatever kind.
fn counts_damage(node: &Node) -> bool {
    let metrics = get(node.addr(), "/metrics").text();
    let named = |line: &&str| !line.starts_with('#') && (line.contains("damage") || line.contains("quarantine"));
    metrics.lines().filter(named).any(|line| !line.ends_with(" 0"))
}

#[test]
fn a_damaged_middle_of_a_log_is_reported_and_everything_else_is_readable() {
    let home = Home::new();
    let node = home.start();
    let ann = node.user("ann");
    ann.add("other", "kept");
    ann.add("k", "this one stays");
    ann.add("k", "this one is hit");
    ann.add("k", "this one is behind it");
    node.kill();
    let (log, at) = find_in_logs(&home, "this one is hit");
    overwrite(&log, at + 5, b"#");

    let node = home.start();
    let ann: Caller = ann.at(node.addr());
    assert_eq!(ann.get("other"), ["kept"]);
    ann.add("new", "taken");
    assert_eq!(ann.get("new"), ["taken"]);
    assert!(node.log().to_lowercase().contains("damage"), "{}", node.log());
    assert!(counts_damage(&node));
    // One node has no replica to ask: what can be read of the key is given, or an error; never a silent gap passed off as whole.
    let response = ann.post("/get_value", json!({"key": "k"}));
    match response.status {
        200 => assert_eq!(
            response.json()["value"],
            json!(["this one stays", "this one is behind it"])
        ),
        status => assert_eq!(status, 500, "{}", response.text()),
    }
}

#[test]
fn a_torn_tail_is_no_damage() {
    let home = Home::new();
    let node = home.start();
    let ann = node.user("ann");
    ann.add("k", "first");
    ann.add("k", "the last in its log");
    node.kill();
    let (log, at) = find_in_logs(&home, "the last in its log");
    let length = std::fs::read(&log).unwrap().len();
    overwrite(&log, at + 3, &vec![0; (length - at - 3).min(4096)]);

    let node = home.start();
    let ann = ann.at(node.addr());
    assert_eq!(ann.get("k"), ["first"]);
    ann.add("k", "second");
    assert_eq!(ann.get("k"), ["first", "second"]);
    assert!(!counts_damage(&node));
}
