//! Export and import.

use super::*;

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
    // The last one that was interrupted was the admin's, of all keys.
    assert!(home.path().join("out.part.of").exists());
    let mut others = cli(&home, &node, &["export", "out", "--resume"]);
    others.env("KV_USER", "somebody-else");
    assert_fails(&run(others), USAGE, &["out.part was begun as the user"]);
    let others = cli(&home, &node, &["export", "out", "--resume", "--prefix", "b"]);
    assert_fails(&run(others), USAGE, &["with the prefix \"\""]);
    assert_eq!(std::fs::read_to_string(&part).unwrap(), line);
    ok(cli(&home, &node, &["export", "out", "--resume"]));
    assert!(!home.path().join("out.part.of").exists());
    // One that is left of another export is in nobody's way.
    std::fs::write(home.path().join("next.part.of"), "{").unwrap();
    ok(cli(&home, &node, &["export", "next", "--resume"]));
    assert!(!home.path().join("next.part.of").exists());
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

/// Standard input stays open, so nothing more comes, and it does not end.
#[test]
fn an_import_that_is_interrupted_says_what_is_stored_and_how_to_go_on() {
    const BATCH: usize = 1000;
    const BATCHES: usize = 5;
    let home = Home::new();
    let node = home.start();
    for (key, signal, stop) in [("a", Signal::INT, "SIGINT"), ("b", Signal::TERM, "SIGTERM")] {
        let mut import = cli(&home, &node, &["import", "-"]);
        import
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut import = import.spawn().unwrap();
        let line = format!("{{\"key\":\"{key}\",\"value\":[\"v\"]}}\n");
        let mut input = import.stdin.take().unwrap();
        input.write_all(line.repeat(BATCHES * BATCH + 1).as_bytes()).unwrap();
        // The last batch is sent when the one before is answered.
        while node.admin().get(key).len() < BATCHES * BATCH {
            assert!(import.try_wait().unwrap().is_none(), "it has ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&import), signal).unwrap();
        let until = Instant::now() + PATIENCE;
        while import.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                import.kill().unwrap();
                panic!("{stop} is not heard");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = import.wait_with_output().unwrap();
        drop(input);
        assert_fails(&output, 1, &[stop, "is added anew"]);
        let stored = |batches: usize| format!("this run stored {0} values from {0} lines", batches * BATCH);
        let is_told = |batches| said(&output).contains(&stored(batches));
        assert!(is_told(BATCHES - 1) || is_told(BATCHES), "{}", said(&output));
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
