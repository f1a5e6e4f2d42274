//! Values: from arguments, files and standard input.

use super::*;

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
