//! The real binary end to end: `kv run-cluster`, and the commands against it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::PATIENCE;

/// A folder in which `kv run-cluster` runs; killed, and its node with it, when dropped.
struct Cluster {
    folder: TempDir,
    process: Child,
}

impl Cluster {
    fn start(folder: TempDir) -> Self {
        let mut process = kv(&folder, &["run-cluster", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kv starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let first = lines.next().expect("a line").expect("text");
        assert!(
            first.starts_with("kv-storage ready: listening on http://127.0.0.1:"),
            "{first}"
        );
        // The rest is read so that it never blocks.
        std::thread::spawn(move || lines.count());
        Self { folder, process }
    }

    fn run(&self, args: &[&str]) -> Output {
        kv(&self.folder, args).output().expect("kv runs")
    }

    /// What it prints, when it does what it should.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn pipe(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = kv(&self.folder, args);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().expect("kv starts");
        let mut stdin = process.stdin.take().expect("its input");
        stdin.write_all(input).expect("it reads");
        drop(stdin);
        process.wait_with_output().expect("it ends")
    }

    fn terminate(mut self) -> TempDir {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .expect("kill runs")
                .success()
        );
        assert_eq!(self.process.wait().expect("it ends").code(), Some(0));
        // Nothing is left for Drop but a process that has ended.
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kv(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    command.args(args).current_dir(folder.path()).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KV_")) {
        command.env_remove(name);
    }
    command.env("HOME", folder.path()).env_remove("XDG_CONFIG_HOME");
    command
}

fn start() -> Cluster {
    Cluster::start(tempfile::tempdir().expect("a folder"))
}

#[test]
fn the_commands_of_the_original_work_as_it_documents_them() {
    let cluster = start();
    assert_eq!(cluster.ok(&["add_value", "test_key", "test_value"]), "OK\n");
    assert_eq!(cluster.ok(&["get_value", "test_key"]), "test_value\n");
    assert_eq!(
        cluster.ok(&["add_value_part", "test_key", "part_value"]),
        "IN_PROGRESS\n"
    );
    assert_eq!(cluster.ok(&["get_value", "test_key"]), "test_value\n");
    assert_eq!(cluster.ok(&["add_value", "test_key", "!"]), "OK\n");
    assert_eq!(
        cluster.ok(&["get_value", "test_key", "--json"]),
        "{\"key\":\"test_key\",\"value\":[\"test_value\",\"part_value!\"]}\n"
    );
    assert_eq!(cluster.ok(&["get_value", "test_key", "--count"]), "2\n");
    assert_eq!(cluster.ok(&["get_value", "test_key", "--offset", "1"]), "part_value!\n");
    assert_eq!(cluster.ok(&["clear_key", "test_key"]), "OK\n");
    assert_eq!(cluster.ok(&["get_value", "test_key"]), "");
    assert_eq!(cluster.ok(&["clear_key", "unknown"]), "OK\n");
}

#[test]
fn what_is_written_at_once_leaves_no_node_out_of_a_new_cluster() {
    let cluster = start();
    cluster.ok(&["add_value", "greeting", "hello"]);
    let members = cluster.ok(&["cluster", "members"]);
    assert_eq!(members.matches("  up  ").count(), 3, "{members}");
    let json: serde_json::Value = serde_json::from_str(&cluster.ok(&["cluster", "members", "--json"])).expect("JSON");
    assert_eq!(
        json["members"].as_array().map(Vec::len),
        Some(3),
        "an object, as all answers: {json}"
    );
    let profile = std::fs::read_to_string(cluster.folder.path().join("kv-cluster/profile.toml")).expect("a profile");
    for address in profile.split('"').filter(|text| text.starts_with("http://")) {
        let args = ["get_value", "greeting", "--consistency", "one", "--url", address];
        // Acknowledged by two, it may come to the third one a moment later.
        let until = Instant::now() + PATIENCE;
        while cluster.ok(&args) != "hello\n" {
            assert!(Instant::now() < until, "{address} was left out");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn what_was_added_is_there_after_a_stop_and_a_kill() {
    let cluster = start();
    cluster.ok(&["add_value", "greeting", "hello"]);
    let mut cluster = Cluster::start(cluster.terminate());
    assert_eq!(cluster.ok(&["get_value", "greeting"]), "hello\n");
    cluster.ok(&["add_value", "greeting", "again"]);
    cluster.process.kill().expect("it can be killed");
    cluster.process.wait().expect("it ends");
    // The nodes notice by themselves that nobody holds their pipes any more, and stop, which the next start waits for.
    let folder = std::mem::replace(&mut cluster.folder, tempfile::tempdir().expect("a folder"));
    let cluster = Cluster::start(folder);
    assert_eq!(cluster.ok(&["get_value", "greeting"]), "hello\nagain\n");
}

#[test]
fn long_values_come_back_byte_for_byte_from_files_and_pipes() {
    let cluster = start();
    let text = "Zürich \u{1f600} \"quoted\"\n".repeat(200_000);
    let path = cluster.folder.path().join("long");
    std::fs::write(&path, &text).expect("a file");
    cluster.ok(&["add_value", "file", "--file", "long"]);
    assert_eq!(cluster.ok(&["get_value", "file"]), format!("{text}\n"));
    let output = cluster.pipe(&["add_value", "pipe", "-"], text.as_bytes());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(cluster.ok(&["get_value", "pipe"]), format!("{text}\n"));
    assert_eq!(cluster.ok(&["keys"]), "file\npipe\n");
}

#[test]
fn what_is_exported_can_be_imported_and_a_repeated_import_adds_nothing() {
    let cluster = start();
    for value in ["1", "2 \u{e9}", "3\n3"] {
        cluster.ok(&["add_value", "a", value]);
        cluster.ok(&["add_value", "b", value]);
    }
    cluster.ok(&["export", "all.jsonl"]);
    let exported = std::fs::read_to_string(cluster.folder.path().join("all.jsonl")).expect("a file");
    for key in ["a", "b"] {
        cluster.ok(&["clear_key", key]);
    }
    cluster.ok(&["import", "all.jsonl"]);
    cluster.ok(&["import", "all.jsonl"]);
    assert_eq!(cluster.ok(&["export"]), exported);
}

#[test]
fn users_have_keys_of_their_own_and_admins_manage_users() {
    let cluster = start();
    cluster.ok(&["add_value", "key", "of demo"]);
    let path = cluster.folder.path().join("eve");
    std::fs::write(&path, "first\n").expect("a file");
    let eve = ["--user", "eve", "--password-file", "eve"];
    let as_eve = |args: &[&str]| cluster.run(&[args, &eve].concat());

    cluster.ok(&["users", "add", "eve", "--new-password-file", "eve"]);
    assert_eq!(cluster.ok(&["users", "list"]), "demo\tadmin\neve\n");
    assert_eq!(as_eve(&["keys"]).stdout, b"");
    assert_eq!(as_eve(&["add_value", "key", "of eve"]).status.code(), Some(0));
    assert_eq!(cluster.ok(&["get_value", "key"]), "of demo\n");
    assert_eq!(as_eve(&["users", "list"]).status.code(), Some(4));

    let changed = cluster.pipe(&[&["users", "passwd"], &eve[..]].concat(), b"second\n");
    assert_eq!(
        changed.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&changed.stderr)
    );
    assert_eq!(as_eve(&["keys"]).status.code(), Some(4));
    std::fs::write(&path, "second").expect("a file");
    assert_eq!(as_eve(&["get_value", "key"]).stdout, b"of eve\n");
    cluster.ok(&["users", "remove", "eve"]);
    assert_eq!(as_eve(&["keys"]).status.code(), Some(4));
}

#[test]
fn what_the_node_refuses_is_code_five() {
    let cluster = start();
    let output = cluster.run(&["add_value", &"k".repeat(1025), "v"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("key"));
}

#[test]
fn a_reader_that_stops_early_ends_it_quietly() {
    let cluster = start();
    std::fs::write(cluster.folder.path().join("long"), "line\n".repeat(1_000_000)).expect("a file");
    cluster.ok(&["add_value", "key", "--file", "long"]);
    let mut command = kv(&cluster.folder, &["get_value", "key"]);
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kv starts");
    drop(process.stdout.take());
    let output = process.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
