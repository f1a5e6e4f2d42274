//! The real binary where it needs no node: usage, settings, exit codes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `kv` in an empty folder, without any settings from outside.
fn kv(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    kv_in(folder.path(), args, variables)
}

fn kv_in<S: AsRef<OsStr>>(folder: &Path, args: &[&str], variables: &[(&str, S)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    command.args(args).current_dir(folder).env_clear().env("HOME", folder);
    let variables = variables.iter().map(|(name, text)| (name, text.as_ref()));
    command.envs(variables).output().expect("kv runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An address at which nothing listens.
fn dead_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

#[test]
fn help_lists_the_commands_and_exit_codes() {
    let output = kv(&["--help"], &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "add_value_part",
        "get_value",
        "clear_key",
        "run-cluster",
        "Exit codes:",
        "  6  ",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = kv(&["completions", shell], &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("add_value"), "{shell}");
    }
}

#[test]
fn wrong_usage_is_code_two() {
    assert_eq!(kv(&["add_value", "key"], &[]).status.code(), Some(2));
    assert_eq!(kv(&["fly"], &[]).status.code(), Some(2));
    let output = kv(&["get_value", "key"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no user is set"), "{}", stderr(&output));
    let output = kv(&["serve", "--shards", "0"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--shards"), "{}", stderr(&output));
}

#[test]
fn a_flag_whose_text_cannot_be_is_code_two() {
    let variables = [("KV_USER", "demo"), ("KV_PASSWORD", "p")];
    for args in [
        &["add_value", "key", "value", "--request-id", ""][..],
        &["add_value", "key", "value", "--request-id", &"i".repeat(257)],
        &["keys", "--profile", "/"],
    ] {
        let output = kv(args, &variables);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_variable_that_is_no_text_is_code_two_and_not_taken_for_unset() {
    let folder = tempfile::tempdir().expect("a folder");
    let (no_text, url) = (OsStr::from_bytes(b"/tmp/\xff"), dead_url());
    for (args, name) in [
        (&["serve", "--listen", "127.0.0.1:0"][..], "KV_DATA"),
        (&["serve", "--listen", "127.0.0.1:0"], "KV_CONFIG"),
        (&["keys"], "KV_URL"),
        (&["keys"], "KV_USER"),
        (&["keys"], "KV_PASSWORD"),
        (&["keys"], "KV_PROFILE"),
        (&["keys"], "KV_CONSISTENCY"),
    ] {
        let mut variables = vec![
            ("KV_URL", OsStr::new(&url)),
            ("KV_USER", OsStr::new("demo")),
            ("KV_PASSWORD", OsStr::new("p")),
            // A node that goes on all the same ends at once.
            ("KV_SHARDS", OsStr::new("none")),
        ];
        variables.push((name, no_text));
        let output = kv_in(folder.path(), args, &variables);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains(name) && text.contains("UTF-8"), "{name}: {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn a_node_that_is_not_there_is_code_three_and_the_error_says_what_to_do() {
    let url = dead_url();
    let variables = [("KV_URL", url.as_str()), ("KV_USER", "demo"), ("KV_PASSWORD", "p")];
    for args in [
        &["add_value", "key", "value"][..],
        &["add-value-part", "key", "value"],
        &["get_value", "key"],
        &["clear_key", "key"],
        &["keys"],
        &["users", "list"],
        &["export"],
    ] {
        let output = kv(args, &variables);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {text}");
        assert!(
            text.contains(&url) && text.contains("kv run-cluster") && text.contains("KV_URL"),
            "{text}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_load_on_nodes_of_which_one_is_not_there_is_code_three() {
    for urls in [
        dead_url(),
        format!("{},{}", dead_url(), dead_url()),
        "http://no-such-name.invalid:8000".to_owned(),
    ] {
        let variables = [("KV_URL", urls.as_str()), ("KV_USER", "demo"), ("KV_PASSWORD", "p")];
        let output = kv(&["bench", "--duration", "1"], &variables);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains("KV_URL"), "{}", stderr(&output));
    }
}

#[test]
fn a_folder_that_is_no_nodes_is_not_made_one_to_accept_its_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let output = kv(&["segment", "accept-loss", "--data", &path], &[]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(&path), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn the_dump_of_a_damaged_segment_holds_the_rest_and_is_no_success() {
    let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    let dump = |image: &str| {
        let path = images.join(image).join("segment-0000000000000002.kvs");
        kv(&["segment", "dump", &path.display().to_string()], &[])
    };
    let sound = dump("sound-segment");
    assert_eq!((sound.status.code(), stderr(&sound)), (Some(0), String::new()));
    let damaged = dump("segment-damaged-block");
    let text = String::from_utf8_lossy(&damaged.stdout).into_owned();
    assert!(
        text.contains(r#""line":"damaged""#) && text.contains(r#""key":"west""#),
        "{text}"
    );
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stderr(&damaged).contains("1 of its blocks"), "{}", stderr(&damaged));
}

#[test]
fn a_file_that_cannot_be_opened_is_code_two_and_is_named() {
    let url = dead_url();
    let variables = [("KV_URL", url.as_str()), ("KV_USER", "demo"), ("KV_PASSWORD", "p")];
    for args in [
        &["add_value", "key", "--file", "no/such"][..],
        &["add_value", "key", "--file", "/"],
        &["import", "no/such"],
        &["import", "/"],
        &["export", "no/such"],
        &["export", "--resume", "no/such"],
        &["segment", "dump", "no/such"],
        &["segment", "dump", "/"],
        &["cluster", "keygen", "no/such"],
        &["users", "add", "ann", "--new-password-file", "no/such"],
    ] {
        let output = kv(args, &variables);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        let named = stderr(&output).contains("no/such") || (args.contains(&"/") && stderr(&output).contains(" /: "));
        assert!(named, "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_file_that_is_not_text_is_code_five() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("value");
    std::fs::write(&path, b"abc\xff").expect("a file");
    let path = path.display().to_string();
    let url = dead_url();
    let variables = [("KV_URL", url.as_str()), ("KV_USER", "demo"), ("KV_PASSWORD", "p")];
    let output = kv(&["add_value", "key", "--file", &path], &variables);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("byte 3"), "{}", stderr(&output));
}

#[test]
fn an_address_that_cannot_be_used_is_named_with_its_source() {
    let output = kv(
        &["keys", "--url", "https://host"],
        &[("KV_USER", "demo"), ("KV_PASSWORD", "p")],
    );
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("\"https://host\"") && text.contains("--url"), "{text}");
}

#[test]
fn a_file_of_the_settings_that_is_not_there_or_is_wrong_is_code_two() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "no key\n").expect("a file");
    let wrong = wrong.display().to_string();
    let data = folder.path().join("data").display().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", &data];
    let in_cluster = ["--cluster-listen", "127.0.0.1:7"];
    let key = |file| [&serve[..], &in_cluster, &["--cluster-key-file", file]].concat();
    for args in [
        vec!["keys", "--user", "demo", "--password-file", "nofile"],
        [&serve[..], &["--user", "demo", "--password-file", "nofile"]].concat(),
        key("nofile"),
        key(&wrong),
    ] {
        let output = kv(&args, &[]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains("nofile") || text.contains(&wrong), "{text}");
    }
}
