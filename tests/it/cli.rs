//! The command line: what scripts rely on.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::{ADMIN, ADMIN_PASSWORD, Home, Node, kv, run, run_with_input, said};
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
fn values_come_from_arguments_files_and_standard_input() {
    let home = Home::new();
    let node = home.start();
    ok(cli(&home, &node, &["add_value", "k", "an argument"]));
    ok(cli(&home, &node, &["add_value", "k", "--", "--dashes"]));
    ok(cli(&home, &node, &["add_value", "k", "--", "-"]));
    std::fs::write(home.path().join("value.txt"), "a file\nof two lines\n").unwrap();
    ok(cli(&home, &node, &["add_value", "k", "--file", "value.txt"]));
    let output = run_with_input(
        cli(&home, &node, &["add_value", "k", "-"]),
        "стандартный ввод".as_bytes(),
    );
    assert!(output.status.success(), "{}", said(&output));
    let values = [
        "an argument",
        "--dashes",
        "-",
        "a file\nof two lines\n",
        "стандартный ввод",
    ];
    assert_eq!(node.admin().get("k"), values);

    let printed = ok(cli(&home, &node, &["get_value", "k"]));
    assert_eq!(printed, values.map(|value| format!("{value}\n")).concat());
    let answer: Value = serde_json::from_str(&ok(cli(&home, &node, &["get_value", "k", "--json"]))).unwrap();
    assert_eq!(answer, json!({"key": "k", "value": values}));
    assert_eq!(
        ok(cli(&home, &node, &["get_value", "k", "--offset", "1", "--limit", "1"])),
        "--dashes\n"
    );
    assert_eq!(ok(cli(&home, &node, &["get_value", "k", "--count"])), "5\n");
}

#[test]
fn a_large_value_goes_in_parts_and_comes_back_whole() {
    let home = Home::new();
    let node = home.start();
    // Larger than one body may be, with characters of several bytes across every border of parts.
    let text = "дан\"ные\u{1f600}\n".repeat(1 << 20);
    std::fs::write(home.path().join("large"), &text).unwrap();
    ok(cli(&home, &node, &["add_value", "k", "--file", "large"]));
    assert_eq!(ok(cli(&home, &node, &["get_value", "k"])), text.clone() + "\n");
    let output = run_with_input(cli(&home, &node, &["add_value", "k", "-"]), text.as_bytes());
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(node.admin().count("k"), 2);
}

#[test]
fn what_is_not_utf8_is_refused_before_anything_is_sent() {
    let home = Home::new();
    let node = home.start();
    std::fs::write(home.path().join("binary"), b"good until here \xff\xfe").unwrap();
    let output = run(cli(&home, &node, &["add_value", "k", "--file", "binary"]));
    assert_fails(&output, REFUSED, &["UTF-8", "16", "nothing was sent"]);
    ok(cli(&home, &node, &["add_value", "k", "next"]));
    assert_eq!(node.admin().get("k"), ["next"]);
}

#[test]
fn a_repeated_add_under_one_name_counts_once() {
    let home = Home::new();
    let node = home.start();
    for _ in 0..3 {
        ok(cli(&home, &node, &["add_value", "k", "v", "--request-id", "once"]));
    }
    assert_eq!(node.admin().get("k"), ["v"]);
}

#[test]
fn a_name_that_was_used_for_something_else_is_refused() {
    let home = Home::new();
    let node = home.start();
    let add = |words: &[&str]| run(cli(&home, &node, &[words, &["--request-id", "once"]].concat()));
    assert!(add(&["add_value", "k", "v"]).status.success());
    assert_fails(
        &add(&["add_value", "k", "another"]),
        REFUSED,
        &["request_id", "nothing was changed"],
    );
    assert_fails(&add(&["add_value_part", "k", "v"]), REFUSED, &["request_id"]);
    assert!(add(&["add_value", "another", "another"]).status.success());
    assert_eq!(node.admin().get("k"), ["v"]);
    // Of two texts that begin with the same part, the second one's end is not made a value of its own.
    let (first, second) = ("x".repeat(3 << 19), "x".repeat(3 << 20));
    std::fs::write(home.path().join("first"), &first).unwrap();
    std::fs::write(home.path().join("second"), &second).unwrap();
    assert!(add(&["add_value", "long", "--file", "first"]).status.success());
    assert_fails(
        &add(&["add_value", "long", "--file", "second"]),
        REFUSED,
        &["--request-id once", "1048576 bytes"],
    );
    assert!(node.admin().get("long") == [first]);
}

#[test]
fn an_add_that_is_interrupted_says_what_is_stored_and_can_be_gone_on_with() {
    let home = Home::new();
    let node = home.start();
    let text = "0123456789abcdef".repeat(10 << 16);
    for (signal, key) in [(Signal::INT, "int"), (Signal::TERM, "term")] {
        let before = stored_adds(&node);
        let mut add = cli(&home, &node, &["add_value", key, "-"]);
        add.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut add = add.spawn().unwrap();
        // Its input does not end, but stands still.
        let mut input = add.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        while stored_adds(&node) < before + 9 {
            assert!(add.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&add), signal).unwrap();
        let output = add.wait_with_output().unwrap();
        assert_fails(&output, 1, &["--request-id", "clear_key"]);
        drop(input);
        let said = String::from_utf8(output.stderr).unwrap();
        // The node counts the ninth before its answer is sent, and the signal may come before that one.
        let (_, stored) = said.split_once("the first ").unwrap();
        let (stored, _) = stored.split_once(" bytes were stored").unwrap();
        assert!(["9437184", "8388608"].contains(&stored), "{said}");
        let id = said.split("--request-id ").nth(1).unwrap().split(' ').next().unwrap();
        let again = cli(&home, &node, &["add_value", key, "-", "--request-id", id]);
        let output = run_with_input(again, text.as_bytes());
        assert!(output.status.success(), "{}", crate::common::said(&output));
        assert!(node.admin().get(key) == [text.as_str()]);
    }
}

/// By the node's own account; those of a corrected input count again.
fn stored_adds(node: &Node) -> u64 {
    let text = crate::common::http::send(node.addr(), "GET", "/metrics", b"")
        .unwrap()
        .text();
    let start = r#"kv_http_requests_total{call="add_value",status="200"} "#;
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix(start).map(str::to_owned));
    number.map_or(0, |number| number.parse().unwrap())
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

#[test]
fn an_export_that_was_cut_goes_on_to_the_same_file() {
    let home = Home::new();
    let node = home.start();
    for key in 0..40 {
        node.admin().add(&format!("key {key} \"é\""), &"value\n".repeat(key));
    }
    ok(cli(&home, &node, &["export", "whole"]));
    let whole = std::fs::read(home.path().join("whole")).unwrap();
    assert_eq!(whole.split(|&byte| byte == b'\n').count(), 41);
    let line_end = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let part = home.path().join("part");
    for cut in [
        0,
        1,
        line_end - 1,
        line_end,
        line_end + 9,
        whole.len() / 2,
        whole.len() - 1,
        whole.len(),
    ] {
        std::fs::write(&part, &whole[..cut]).unwrap();
        ok(cli(&home, &node, &["export", "part", "--resume"]));
        assert!(std::fs::read(&part).unwrap() == whole, "cut at {cut}");
    }
}

#[test]
fn an_export_that_is_interrupted_leaves_no_file_that_looks_whole() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("a", "v");
    let line = "{\"key\":\"a\",\"value\":[\"v\"]}\n";
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (file, part) = (home.path().join("out"), home.path().join("out.part"));
    for (signal, stop) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        for resumed in [false, true] {
            let _ = std::fs::remove_file(&part);
            let mut words = vec!["export", "out"];
            if resumed {
                std::fs::write(&part, line).unwrap();
                words.push("--resume");
            }
            let mut export = cli(&home, &node, &words);
            export.env("KV_URL", format!("http://{}", silent.local_addr().unwrap()));
            let export = export.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // It has asked for keys, and waits for them.
            let connection = silent.accept().unwrap();
            assert!(part.exists() && !file.exists());
            kill_process(Pid::from_child(&export), signal).unwrap();
            let output = export.wait_with_output().unwrap();
            drop(connection);
            assert_fails(&output, 1, &[stop]);
            assert_eq!(
                said(&output).contains("out.part: go on with --resume"),
                resumed,
                "{}",
                said(&output)
            );
            assert_eq!((part.exists(), file.exists()), (resumed, false));
        }
    }
    assert_fails(
        &run(cli(&home, &node, &["export", "out"])),
        USAGE,
        &["out.part", "--resume"],
    );
    node.admin().add("b", "v");
    ok(cli(&home, &node, &["export", "out", "--resume"]));
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        line.to_owned() + &line.replace("\"a\"", "\"b\"")
    );
    assert!(!part.exists());
}

/// How far an import has come, by its own account; `None` before it has begun.
fn imported_lines(progress: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(progress).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("lines = "));
    Some(line.unwrap().parse().unwrap())
}

#[test]
fn an_import_of_a_file_that_grew_adds_what_is_new_and_of_one_that_was_changed_says_so() {
    let home = Home::new();
    let node = home.start();
    let line = |number: u32| format!("{{\"key\":\"k\",\"value\":[\"{number}\"]}}\n");
    let (two, three) = ([line(1), line(2)].concat(), [line(1), line(2), line(3)].concat());
    let changed = three.replacen(":[", ": [", 1);
    for (file, values, warned) in [(two, 2, false), (three, 3, false), (changed, 6, true)] {
        std::fs::write(home.path().join("in.jsonl"), file).unwrap();
        let output = run(cli(&home, &node, &["import", "in.jsonl"]));
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(node.admin().get("k").len(), values);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text.contains("warning: in.jsonl: its first 3 lines"), warned, "{text}");
    }
}

#[test]
fn an_import_that_was_killed_and_repeated_adds_everything_once() {
    const LINES: u64 = 12_000;
    let home = Home::new();
    let node = home.start();
    let key = |line: u64| format!("key {}", line % 50);
    let mut file: String = (0..LINES)
        .map(|line| format!("{{\"key\":\"{}\",\"value\":[\"{line}\"]}}\n", key(line)))
        .collect();
    // One that goes in parts, in the middle of the list of its key.
    let large = "x".repeat(6 << 20);
    let middle = file.match_indices('\n').nth(LINES as usize / 2 - 1).unwrap().0 + 1;
    file.insert_str(middle, &format!("{{\"key\":\"key 0\",\"value\":[\"{large}\"]}}\n"));
    std::fs::write(home.path().join("in.jsonl"), file).unwrap();

    let progress = home.path().join("in.jsonl.progress");
    for (round, killed_after) in [1, LINES / 4, LINES / 2, LINES * 3 / 4].into_iter().enumerate() {
        let mut import = cli(&home, &node, &["import", "in.jsonl"]);
        let mut import = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while imported_lines(&progress).is_none_or(|lines| lines < killed_after) && import.try_wait().unwrap().is_none()
        {
            std::thread::yield_now();
        }
        let _ = import.kill();
        import.wait().unwrap();
        if round == 2 {
            // From the first line on: only the request ids tell what is there already.
            let _ = std::fs::remove_file(&progress);
        }
    }
    for _ in 0..2 {
        ok(cli(&home, &node, &["import", "in.jsonl"]));
        assert_eq!(imported_lines(&progress), Some(LINES + 1));
    }
    for first in 0..50 {
        let mut expected: Vec<String> = (first..LINES).step_by(50).map(|line| line.to_string()).collect();
        if first == 0 {
            expected.insert(expected.len() / 2, large.clone());
        }
        assert!(node.admin().get(&key(first)) == expected, "{}", key(first));
    }
}
