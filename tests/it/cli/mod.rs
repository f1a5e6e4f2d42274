//! The command line: what scripts rely on.

mod transfer;
mod values;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{ADMIN, ADMIN_PASSWORD, Home, Node, PATIENCE, kv, run, run_with_input, said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const UNREACHABLE: i32 = 3;
const CREDENTIALS: i32 = 4;
const REFUSED: i32 = 5;
const USAGE: i32 = 2;

/// `kv` in the home's folder, as the admin of the node.
fn cli(home: &Home, node: &Node, words: &[&str]) -> Command {
    let mut command = kv();
    command.args(words).current_dir(home.path());
    command
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join("config"));
    command
        .env("KV_URL", node.url())
        .env("KV_USER", ADMIN)
        .env("KV_PASSWORD", ADMIN_PASSWORD);
    command
}

fn ok(command: Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(
        output.stdout.is_empty(),
        "results only on standard output: {}",
        said(output)
    );
    let text = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn each_failure_has_its_exit_code_and_says_what_to_do() {
    let home = Home::new();
    let node = home.start();
    assert_fails(&run(cli(&home, &node, &["add_value", "k"])), USAGE, &[]);
    assert_fails(&run(cli(&home, &node, &["no_such_command"])), USAGE, &[]);

    let mut wrong = cli(&home, &node, &["get_value", "k"]);
    wrong.env("KV_PASSWORD", "wrong");
    assert_fails(&run(wrong), CREDENTIALS, &["admin", "KV_PASSWORD"]);

    let long_key = "k".repeat(2000);
    assert_fails(&run(cli(&home, &node, &["get_value", &long_key])), REFUSED, &["1024"]);

    let mut nobody = cli(&home, &node, &["get_value", "k"]);
    nobody.env("KV_URL", "http://127.0.0.1:1").env_remove("KV_PASSWORD");
    nobody.arg("--password-file").arg(home.password_file());
    assert_fails(&run(nobody), UNREACHABLE, &["127.0.0.1:1", "KV_URL"]);

    let mut no_user = cli(&home, &node, &["get_value", "k"]);
    no_user.env_remove("KV_USER");
    assert_fails(&run(no_user), USAGE, &["--user", "KV_USER"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_what_the_system_says() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut serve = kv();
    serve.args(["serve", "--listen", &address]).current_dir(home.path());
    let said = crate::common::said(&run(serve));
    let line = said.lines().find(|line| line.starts_with("error:")).unwrap();
    assert_eq!(
        line,
        format!("error: cannot listen on {address}: Address already in use (os error 98)")
    );
    assert!(!home.path().join("data").exists(), "nothing is made for it");
}

#[test]
fn a_full_standard_output_is_not_told_as_a_full_disk_of_the_node() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("k", "v");
    for (words, told) in [
        (
            &["add_value", "k", "w"][..],
            "it was done, but that could not be written to standard output",
        ),
        (&["get_value", "k"], "cannot write to standard output"),
        (&["get_value", "k", "--json"], "cannot write to standard output"),
        (&["get_value", "k", "--count"], "cannot write to standard output"),
        (&["keys"], "cannot write to standard output"),
        (&["export"], "cannot write to standard output"),
        (&["users", "list"], "cannot write to standard output"),
        (&["completions", "bash"], "cannot write to standard output"),
    ] {
        let mut command = cli(&home, &node, words);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        assert_fails(
            &output.wait_with_output().unwrap(),
            1,
            &[told, "No space left on device"],
        );
    }
    assert_eq!(node.admin().get("k"), ["v", "w"]);
}

#[test]
fn a_standard_error_that_nobody_can_write_changes_nothing_else() {
    let home = Home::new();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    // It has no user, which it says there, as it does whatever it logs.
    let mut serve = kv();
    serve
        .args(["serve", "--listen", "127.0.0.1:0"])
        .current_dir(home.path())
        .stdout(Stdio::piped())
        .stderr(full());
    let mut serve = serve.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serve.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("kv-storage ready"), "{line:?}, {:?}", serve.wait());
    kill_process(Pid::from_child(&serve), Signal::TERM).unwrap();
    assert!(serve.wait().unwrap().success());

    let node = home.start();
    let mut nobody = cli(&home, &node, &["get_value", "k"]);
    nobody.env("KV_URL", "http://127.0.0.1:1").stderr(full());
    assert_eq!(nobody.status().unwrap().code(), Some(UNREACHABLE));
    std::fs::write(home.path().join("in.jsonl"), "{\"key\":\"k\",\"value\":[\"v\"]}\n").unwrap();
    let mut import = cli(&home, &node, &["import", "in.jsonl"]);
    assert!(import.stderr(full()).status().unwrap().success());
}

#[test]
fn json_is_for_machines() {
    let home = Home::new();
    let node = home.start();
    let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    assert_eq!(
        parse(ok(cli(&home, &node, &["add_value", "k", "v", "--json"]))),
        json!({"status": "OK"})
    );
    let part = ok(cli(&home, &node, &["add_value_part", "k", "v", "--json"]));
    assert_eq!(parse(part), json!({"status": "IN_PROGRESS"}));
    assert_eq!(parse(ok(cli(&home, &node, &["keys", "--json"])))["keys"], json!(["k"]));
    let users = parse(ok(cli(&home, &node, &["users", "list", "--json"])));
    assert_eq!(users["users"], json!([{"user_id": "admin", "admin": true}]));
    assert_eq!(
        parse(ok(cli(&home, &node, &["clear_key", "k", "--json"]))),
        json!({"status": "OK"})
    );
}

#[test]
fn keys_are_listed_in_order_and_by_prefix() {
    let home = Home::new();
    let node = home.start();
    for key in ["b", "a1", "c", "a2"] {
        node.admin().add(key, "v");
    }
    assert_eq!(ok(cli(&home, &node, &["keys"])), "a1\na2\nb\nc\n");
    assert_eq!(ok(cli(&home, &node, &["keys", "--prefix", "a"])), "a1\na2\n");
    assert_eq!(ok(cli(&home, &node, &["keys", "--after", "a2", "--limit", "1"])), "b\n");
}

#[test]
fn users_are_managed_from_the_command_line() {
    let home = Home::new();
    let node = home.start();
    std::fs::write(home.path().join("ann"), "first\n").unwrap();
    std::fs::write(home.path().join("ann2"), "second\n").unwrap();
    ok(cli(
        &home,
        &node,
        &["users", "add", "ann", "--new-password-file", "ann"],
    ));
    assert_eq!(ok(cli(&home, &node, &["users", "list"])), "admin\tadmin\nann\n");
    let as_ann = |file: &str, words: &[&str]| {
        let mut command = cli(&home, &node, words);
        command
            .env_remove("KV_PASSWORD")
            .args(["--user", "ann", "--password-file", file]);
        command
    };
    ok(as_ann("ann", &["add_value", "k", "v"]));
    assert_fails(&run(as_ann("ann", &["users", "list"])), CREDENTIALS, &["admin"]);
    ok(as_ann("ann", &["users", "passwd", "--new-password-file", "ann2"]));
    assert_fails(&run(as_ann("ann", &["get_value", "k"])), CREDENTIALS, &[]);
    assert_eq!(ok(as_ann("ann2", &["get_value", "k"])), "v\n");
    ok(cli(&home, &node, &["users", "remove", "ann"]));
    assert_fails(&run(as_ann("ann2", &["get_value", "k"])), CREDENTIALS, &[]);
    assert!(
        !run(cli(&home, &node, &["users", "remove", "admin"])).status.success(),
        "the last admin stays"
    );
}

#[test]
fn a_new_user_s_name_makes_up_no_line_of_the_list() {
    let home = Home::new();
    let node = home.start();
    for name in ["a\nb", "eve\tadmin"] {
        let add = cli(&home, &node, &["users", "add", name]);
        assert_fails(
            &run_with_input(add, b"secret"),
            REFUSED,
            &["name", "control characters"],
        );
    }
    assert_eq!(ok(cli(&home, &node, &["users", "list"])), "admin\tadmin\n");
    assert_fails(
        &run(cli(&home, &node, &["users", "remove", "a\nb"])),
        REFUSED,
        &["there is no user \"a\\nb\""],
    );
    let start = home.start_refused(&["--user", "new\nadmin"]);
    assert_eq!(start.status.code(), Some(USAGE), "{}", said(&start));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_profile() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("k", "v");
    let config = home.path().join("config/kv-storage");
    std::fs::create_dir_all(&config).unwrap();
    let profile = |url: &str| format!("url = '{url}'\nuser = '{ADMIN}'\npassword = '{ADMIN_PASSWORD}'\n");
    std::fs::write(config.join("profile.toml"), profile(&node.url())).unwrap();
    std::fs::write(config.join("broken.toml"), profile("http://127.0.0.1:1")).unwrap();
    let bare = |words: &[&str]| {
        let mut command = cli(&home, &node, words);
        command
            .env_remove("KV_URL")
            .env_remove("KV_USER")
            .env_remove("KV_PASSWORD");
        command
    };
    assert_eq!(ok(bare(&["get_value", "k"])), "v\n");
    assert_fails(
        &run(bare(&["get_value", "k", "--profile", "broken"])),
        UNREACHABLE,
        &["broken.toml"],
    );
    let mut over_profile = bare(&["get_value", "k", "--profile", "broken"]);
    over_profile.env("KV_URL", node.url());
    assert_eq!(ok(over_profile), "v\n");
    let mut over_environment = bare(&["get_value", "k", "--url", &node.url()]);
    over_environment
        .env("KV_URL", "http://127.0.0.1:1")
        .env("KV_PROFILE", "broken");
    assert_eq!(ok(over_environment), "v\n");
    assert_fails(
        &run(bare(&["get_value", "k", "--profile", "missing"])),
        USAGE,
        &["missing.toml"],
    );
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut command = kv();
        command.args(["completions", shell]);
        assert!(ok(command).contains("add_value_part"), "{shell}");
    }
}
