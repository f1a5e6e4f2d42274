//! `kv bench` against `kv serve`: the real binary on both sides.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A node; killed when dropped.
struct Node {
    process: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kv(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    command.current_dir(folder).env_clear().env("HOME", folder);
    command
}

fn start() -> Node {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("password"), "secret").expect("a password file");
    let mut process = kv(folder.path())
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--user",
            "demo",
            "--password-file",
            "password",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kv starts");
    let mut line = String::new();
    let stdout = process.stdout.take().expect("its output");
    BufReader::new(stdout).read_line(&mut line).expect("its first line");
    let (_, address) = line.split_once("http://").expect("an address");
    let (address, _) = address.split_once(',').expect("an end of it");
    let url = format!("http://{address}");
    Node { process, url, folder }
}

fn bench(node: &Node, password: &str, args: &str) -> Output {
    bench_for(node, password, args, 0.5)
}

fn bench_for(node: &Node, password: &str, args: &str, seconds: f64) -> Output {
    kv(node.folder.path())
        .args([
            "bench",
            "--url",
            &node.url,
            "--user",
            "demo",
            "--warmup",
            "0",
            "--duration",
            &seconds.to_string(),
        ])
        .args(args.split(' '))
        .env("KV_PASSWORD", password)
        .output()
        .expect("kv runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first good output that has enough in it, each of a run that takes twice as long as the one before: how much is done in a second, the
/// machine decides.
fn bench_until(node: &Node, args: &str, is_enough: impl Fn(&Output) -> bool) -> Output {
    let mut seconds = 0.5;
    loop {
        let output = bench_for(node, "secret", args, seconds);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        if is_enough(&output) {
            return output;
        }
        seconds *= 2.0;
        assert!(
            seconds < 60.0,
            "never enough: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[test]
fn a_node_is_measured_and_the_result_can_be_read_by_programs() {
    let node = start();
    let names = ["add_value", "get_value", "clear_key"];
    let read = |output: &Output| -> Value { serde_json::from_slice(&output.stdout).expect("JSON") };
    let output = bench_until(
        &node,
        "--mix add=2,get=2,clear=1 --keys 50 --connections 4 --json",
        |output| {
            let done = |name| read(output)["operations"][name]["done"].as_u64() > Some(0);
            names.into_iter().all(done)
        },
    );
    assert_eq!(stderr(&output), "", "no live line without a terminal");
    let report = read(&output);
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    let seconds = report["timeline"].as_array().expect("a list");
    let in_seconds: u64 = seconds.iter().filter_map(|second| second["done"].as_u64()).sum();
    assert_eq!(Some(in_seconds), report["done"].as_u64(), "{report}");
    for name in names {
        let operation = &report["operations"][name];
        assert!(operation["p99_us"].as_f64() >= operation["p50_us"].as_f64(), "{report}");
    }
}

#[test]
fn gets_find_the_lists_that_were_made_for_them() {
    let node = start();
    let text_of = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let output = bench_until(
        &node,
        "--op get --keys 20 --list-length 3 --value-bytes 1000 --connections 1",
        |output| text_of(output).contains("get_value"),
    );
    let text = text_of(&output);
    assert!(!text.contains("not done"), "{text}");
    let listed = kv(node.folder.path())
        .args([
            "get_value",
            "bench-000000000019",
            "--count",
            "--url",
            &node.url,
            "--user",
            "demo",
        ])
        .env("KV_PASSWORD", "secret")
        .output()
        .expect("kv runs");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "3\n", "{}", stderr(&listed));
}

#[test]
fn a_wrong_password_is_found_before_the_load_starts() {
    let node = start();
    let output = bench(&node, "wrong", "--op add");
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}
