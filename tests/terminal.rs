//! The command line at a terminal: what it asks a person, and what it keeps from the screen.
#![allow(
    clippy::disallowed_methods,
    reason = "a test of the real program on the real machine"
)]

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use common::{ADMIN, ADMIN_PASSWORD, Home, Node, kv, run, said};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

fn cli(home: &Home, node: &Node, words: &[&str]) -> Command {
    let mut command = kv();
    command.args(words).current_dir(home.path()).env("HOME", home.path());
    command
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .env("KV_URL", node.url())
        .env("KV_USER", ADMIN)
        .env("KV_PASSWORD", ADMIN_PASSWORD);
    command
}

/// The side of a terminal where the person sits.
struct Terminal {
    person: File,
    /// All that was shown.
    seen: String,
}

impl Terminal {
    /// And the side that programs have.
    fn new() -> (Self, File) {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let programs = open(OsStr::from_bytes(name.as_bytes()), flags, Mode::empty()).unwrap();
        let seen = String::new();
        let person = person.into();
        (Self { person, seen }, programs.into())
    }

    /// More of what is shown; false when no program has the terminal any more.
    fn look(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let count = self.person.read(&mut bytes).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }

    fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.look(), "{text:?} never came: {}", self.seen);
        }
    }

    fn types(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }

    fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.person).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}

/// Starts it with the terminal for its questions, and its results in a pipe.
fn start(mut command: Command) -> (Terminal, Child) {
    let (terminal, programs) = Terminal::new();
    command
        .stdin(programs.try_clone().unwrap())
        .stderr(programs)
        .stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    (terminal, child)
}

const QUESTION: &str = "New password of \"ann\": ";
const AGAIN: &str = "The same again: ";

#[test]
fn a_person_is_asked_for_a_new_password_and_it_is_not_shown() {
    let home = Home::new();
    let node = home.start();
    let (mut terminal, add) = start(cli(&home, &node, &["users", "add", "ann"]));
    for question in [QUESTION, AGAIN] {
        terminal.wait_for(question);
        assert!(!terminal.shows_what_is_typed());
        terminal.types("open sesame\n");
    }
    let output = add.wait_with_output().unwrap();
    while terminal.look() {}
    assert!(output.status.success(), "{}", terminal.seen);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "OK\n");
    assert!(!terminal.seen.contains("sesame"), "{}", terminal.seen);
    assert!(terminal.shows_what_is_typed());
    let mut as_ann = cli(&home, &node, &["keys"]);
    as_ann.env("KV_USER", "ann").env("KV_PASSWORD", "open sesame");
    let output = run(as_ann);
    assert!(output.status.success(), "{}", said(&output));

    let (mut terminal, change) = start(cli(&home, &node, &["users", "passwd", "ann"]));
    terminal.wait_for(QUESTION);
    terminal.types("one\n");
    terminal.wait_for(AGAIN);
    terminal.types("another\n");
    terminal.wait_for("two different passwords");
    assert_eq!(change.wait_with_output().unwrap().status.code(), Some(2));
    assert!(terminal.shows_what_is_typed());
}

#[test]
fn a_question_that_is_broken_off_leaves_the_terminal_as_it_was() {
    let home = Home::new();
    let node = home.start();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut terminal, add) = start(cli(&home, &node, &["users", "add", "ann"]));
        terminal.wait_for(QUESTION);
        kill_process(Pid::from_child(&add), signal).unwrap();
        assert_eq!(add.wait_with_output().unwrap().status.code(), Some(1));
        assert!(terminal.shows_what_is_typed());
        terminal.wait_for("stopped by SIG");
    }
    let (mut terminal, add) = start(cli(&home, &node, &["users", "add", "ann"]));
    terminal.wait_for(QUESTION);
    terminal.types("\u{4}");
    assert_eq!(add.wait_with_output().unwrap().status.code(), Some(2));
    terminal.wait_for("the password is empty");
    assert!(terminal.shows_what_is_typed());
}

#[test]
fn a_key_does_nothing_to_the_terminal_that_it_is_listed_on() {
    let home = Home::new();
    let node = home.start();
    for key in ["del\u{7f}key", "esc\u{1b}[2Jkey", "nl\nkey", "plain \"key\""] {
        node.admin().add(key, "v");
    }
    let (mut terminal, programs) = Terminal::new();
    let mut keys = {
        // It must not outlive this: it has the terminal, too.
        let mut command = cli(&home, &node, &["keys"]);
        command.stdin(Stdio::null()).stdout(programs).spawn().unwrap()
    };
    while terminal.look() {}
    assert!(keys.wait().unwrap().success());
    let lines = [
        "\"del\\u{7f}key\"",
        "\"esc\\u{1b}[2Jkey\"",
        "\"nl\\nkey\"",
        "plain \"key\"",
    ];
    assert_eq!(terminal.seen, lines.map(|line| format!("{line}\r\n")).concat());
    for (words, expected) in [
        (
            &["keys", "--json"][..],
            "{\"keys\":[\"del\\u007fkey\",\"esc\\u001b[2Jkey\",\"nl\\nkey\",\"plain \\\"key\\\"\"]}\r\n",
        ),
        (
            &["export", "--prefix", "del"],
            "{\"key\":\"del\\u007fkey\",\"value\":[\"v\"]}\r\n",
        ),
    ] {
        let (mut terminal, programs) = Terminal::new();
        let mut child = {
            // A bar would be shown there, too.
            let mut command = cli(&home, &node, words);
            command.stderr(programs.try_clone().unwrap()).env("TERM", "xterm");
            command.stdin(Stdio::null()).stdout(programs).spawn().unwrap()
        };
        while terminal.look() {}
        assert!(child.wait().unwrap().success());
        assert_eq!(terminal.seen, expected);
    }
    // Nobody looks at a pipe, and whoever reads it gets what is there.
    let piped = run(cli(&home, &node, &["keys"]));
    assert_eq!(
        String::from_utf8(piped.stdout).unwrap(),
        "del\u{7f}key\nesc\u{1b}[2Jkey\nnl\nkey\nplain \"key\"\n"
    );
}

#[test]
fn a_value_does_nothing_to_the_terminal_that_it_is_printed_on() {
    let home = Home::new();
    let node = home.start();
    node.admin().add("key", "esc\u{1b}[2J\u{9b}J\ttab\nline");
    let prints = [
        (&["get_value", "key"][..], "esc\\u{1b}[2J\\u{9b}J\ttab\r\nline\r\n"),
        (
            &["get_value", "key", "--json"],
            "{\"key\":\"key\",\"value\":[\"esc\\u001b[2J\\u009bJ\\ttab\\nline\"]}\r\n",
        ),
    ];
    for (words, expected) in prints {
        let (mut terminal, programs) = Terminal::new();
        let mut get = {
            let mut command = cli(&home, &node, words);
            command.stdin(Stdio::null()).stdout(programs).spawn().unwrap()
        };
        while terminal.look() {}
        assert!(get.wait().unwrap().success());
        assert_eq!(terminal.seen, expected);
    }
    let piped = run(cli(&home, &node, &["get_value", "key"]));
    assert_eq!(
        String::from_utf8(piped.stdout).unwrap(),
        "esc\u{1b}[2J\u{9b}J\ttab\nline\n"
    );
}

/// Reads a request, and answers it as the last one on its connection.
fn answer(stream: TcpStream, status: &str, body: &str) {
    let mut request = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
    }
    std::io::copy(&mut request.by_ref().take(length), &mut std::io::sink()).unwrap();
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    request.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
}

#[test]
fn what_is_waited_for_is_not_written_into_the_progress_bar() {
    let home = Home::new();
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = node.local_addr().unwrap();
    std::fs::write(home.path().join("large"), "x".repeat(9 << 20)).unwrap();
    // It takes some parts, and then it is overloaded.
    let node = std::thread::spawn(move || {
        for number in 0.. {
            let stream = node.accept().unwrap().0;
            match number {
                0..3 => answer(stream, "200 OK", "{\"status\":\"IN_PROGRESS\"}"),
                3..6 => answer(
                    stream,
                    "503 Busy\r\nretry-after: 1",
                    "{\"detail\":\"too busy\",\"code\":\"overloaded\"}",
                ),
                _ => return answer(stream, "400 Bad", "{\"detail\":\"enough\"}"),
            }
        }
    });
    let mut add = kv();
    add.args([
        "add_value",
        "k",
        "--file",
        "large",
        "--url",
        &format!("http://{address}"),
    ])
    .args(["--user", "u", "--password-file"])
    .arg(home.password_file())
    .current_dir(home.path())
    .env("TERM", "xterm");
    let (mut terminal, add) = start(add);
    let output = add.wait_with_output().unwrap();
    while terminal.look() {}
    node.join().unwrap();
    assert!(!output.status.success());
    let seen = &terminal.seen;
    let (before, after) = seen
        .split_once("waiting and trying again")
        .unwrap_or_else(|| panic!("{seen:?}"));
    let bar = before.rfind("MiB/").unwrap_or_else(|| panic!("no bar: {seen:?}"));
    assert!(
        before[bar..].contains("\r\u{1b}[2K"),
        "the bar is wiped away first: {seen:?}"
    );
    assert!(
        after[after.find("\r\n").unwrap()..].contains("MiB/"),
        "and drawn again below: {seen:?}"
    );
}

#[test]
fn the_table_of_a_local_cluster_stays_above_what_is_said_when_it_stops() {
    let home = Home::new();
    let (mut terminal, programs) = Terminal::new();
    let mut cluster = {
        let mut command = kv();
        command.args(["run-cluster", "--nodes", "1", "--listen", "127.0.0.1:0"]);
        command
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("TERM", "xterm");
        command
            .stdin(Stdio::null())
            .stderr(programs.try_clone().unwrap())
            .stdout(programs);
        command.spawn().unwrap()
    };
    terminal.wait_for("STORED OPS");
    kill_process(Pid::from_child(&cluster), Signal::INT).unwrap();
    while terminal.look() {}
    assert!(cluster.wait().unwrap().success());
    let (_, after) = terminal
        .seen
        .rsplit_once("stopping")
        .unwrap_or_else(|| panic!("{}", terminal.seen));
    assert!(!after.contains('\u{1b}'), "nothing is wiped away: {after:?}");
}
