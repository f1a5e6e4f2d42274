//! README.md and the pages that it leads to: every command works as written, and they name nothing that is not there.
//!
//! README's `bash` blocks run from top to bottom in one folder, as a reader would type them, with this much rewritten: a node listens on a
//! free port instead of 8000; `/var/log/syslog` is a file of this test; `cargo run --release --` is the `kv` of this build. Password
//! files that a line reads are made before. `cargo test` does not run itself.

mod shell;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::calls::Caller;
use crate::common::{http, kv, password_hash, run, run_with_input, said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shell::Line;

const README: &str = include_str!("../../../README.md");
const BENCHES: &str = include_str!("../../../benches/README.md");
/// Every page that people read, with its path.
const PAGES: [(&str, &str); 4] = [
    ("README.md", README),
    ("benches/README.md", BENCHES),
    ("docs/limits.md", include_str!("../../../docs/limits.md")),
    ("docs/operating.md", include_str!("../../../docs/operating.md")),
];
const MANIFEST: &str = include_str!("../../../Cargo.toml");
const JUSTFILE: &str = include_str!("../../../justfile");
const ADDRESS: &str = "127.0.0.1:8000";

/// `kv` in the reader's folder, knowing nothing of this machine's settings.
fn kv_in(folder: &Path, words: &[String]) -> Command {
    let mut command = kv();
    command.args(words).current_dir(folder);
    command.env("HOME", folder).env_remove("XDG_CONFIG_HOME");
    command
}

/// A command that goes on until it is stopped: `serve` or `run-cluster`.
struct Running {
    process: Child,
    addr: SocketAddr,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.next().unwrap().unwrap();
        // The rest is read so that it never blocks.
        std::thread::spawn(move || lines.count());
        let addr = ready
            .split_once("http://")
            .and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("no address in {ready:?}"));
        Self { process, addr }
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Somebody who types what README.md says.
struct Reader {
    folder: tempfile::TempDir,
    cluster: Option<Running>,
    /// The variable that a line set last, and its text.
    variable: Option<(String, String)>,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("syslog"), "a line\nanother line\n").unwrap();
        for name in ["alice.password", "admin.password"] {
            fs::write(folder.path().join(name), "secret\n").unwrap();
        }
        Self {
            folder,
            cluster: None,
            variable: None,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.cluster.as_ref().expect("README runs a cluster first").addr
    }

    /// The user that `run-cluster` made.
    fn demo(&self) -> Caller {
        let password = fs::read_to_string(self.folder.path().join("kv-cluster/demo-password")).unwrap();
        Caller::new(self.addr(), "demo", &password_hash(password.trim_end()))
    }

    fn types(&mut self, line: &Line) {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["cargo", "run", "--release", "--", rest @ ..] | ["kv", rest @ ..] => {
                let rest = rest.iter().map(|&word| word.to_owned()).collect();
                self.types_kv(line, rest);
            }
            ["curl", rest @ ..] => self.types_curl(rest),
            [assigned, ..] if assigned.contains("=$(") => self.assigns(line),
            ["cargo", "test"] => {}
            other => panic!("this test does not know what to do with {other:?}"),
        }
    }

    fn types_kv(&mut self, line: &Line, mut words: Vec<String>) {
        match words.first().map(String::as_str) {
            Some("run-cluster") => {
                words.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]);
                self.cluster = Some(Running::start(kv_in(self.folder.path(), &words)));
            }
            Some("serve") => {
                let listen = words.iter_mut().find(|word| *word == ADDRESS);
                *listen.expect("README's `kv serve` has an address") = "127.0.0.1:0".to_owned();
                Running::start(kv_in(self.folder.path(), &words)).stop();
            }
            _ => {
                let output = self.runs_kv(line, &words);
                if line.comment.starts_with("{\"") && !line.comment.contains('…') {
                    let [printed, promised] = [&output, &line.comment].map(|text| parse(text));
                    assert_eq!(printed, promised, "{:?}", line.words);
                }
            }
        }
    }

    /// What it prints, when it does what it should.
    fn runs_kv(&self, line: &Line, words: &[String]) -> String {
        let path = |name: &str| {
            let name = if name == "/var/log/syslog" { "syslog" } else { name };
            self.folder.path().join(name)
        };
        let input = line.input.as_deref().map(|name| fs::read(path(name)).unwrap());
        let output = run_with_input(kv_in(self.folder.path(), words), &input.unwrap_or_default());
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        if let Some(name) = &line.output {
            fs::write(path(name), &output.stdout).unwrap();
        }
        String::from_utf8(output.stdout).unwrap()
    }

    fn assigns(&mut self, line: &Line) {
        let (name, _) = line.text.split_once('=').unwrap();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{}; printf %s \"${name}\"", line.text));
        let output = run({
            shell.current_dir(self.folder.path());
            shell
        });
        assert!(output.status.success(), "{}", said(&output));
        self.variable = Some((format!("${name}"), said(&output)));
    }

    /// With the machine's `curl`, or without one by hand; either must be told that it is done.
    fn types_curl(&self, words: &[&str]) {
        let [options @ .., url, "-d", body] = words else {
            panic!("this test does not know what to do with curl {words:?}");
        };
        let body = match &self.variable {
            Some((name, text)) => body.replace(name, text),
            None => (*body).to_owned(),
        };
        let body = body.as_str();
        let sent = parse(body);
        let user = |name: &str| sent["user"][name].as_str().unwrap().to_owned();
        let path = url.strip_prefix("localhost:8000").expect("README's node");
        let has_curl = Command::new("curl").arg("--version").output().is_ok();
        let answer = if has_curl {
            let mut curl = Command::new("curl");
            curl.args(options).arg(format!("http://{}{path}", self.addr()));
            let output = run({
                curl.args(["-d", body]);
                curl
            });
            parse(&said(&output))
        } else {
            http::send(self.addr(), "POST", path, body.as_bytes()).unwrap().json()
        };
        assert_eq!(answer, json!({"status": "OK"}), "{path}");
        if path != "/add_value" {
            return;
        }
        let added = Caller::new(self.addr(), &user("user_id"), &user("password_hash"));
        assert_eq!(
            added.get(sent["key"].as_str().unwrap()),
            [sent["value"].as_str().unwrap()]
        );
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_command_of_the_readme_works_as_written() {
    let mut reader = Reader::new();
    let lines = shell::bash_lines(README);
    assert!(lines.len() > 10, "README has no commands any more: {lines:?}");
    for line in &lines {
        reader.types(line);
    }
    // What the comments beside the commands promise: an import adds the file's values, and once only.
    let imported = |reader: &Reader| {
        let demo = reader.demo();
        assert_eq!(demo.get("greeting"), ["hello", "hello"]);
        assert_eq!(demo.get("log"), ["a line\nanother line\n"; 2]);
        assert!(demo.get("my_key").is_empty());
    };
    imported(&reader);
    let import = lines
        .iter()
        .find(|line| line.words.starts_with(&["kv".into(), "import".into()]));
    reader.types(import.expect("README imports"));
    imported(&reader);
    let metrics = http::get(reader.addr(), "/metrics").text();
    let named: Vec<&str> = all_codes().filter(|code| code.starts_with("kv_")).collect();
    assert!(named.len() > 5, "the pages name no metrics any more: {named:?}");
    let is_series = |name: &str| {
        let rests = metrics.lines().filter_map(|line| line.strip_prefix(name));
        rests.into_iter().any(|rest| rest.starts_with(['{', ' ']))
    };
    for name in named {
        assert!(is_series(name), "`{name}`: no such metric");
    }
    reader.cluster.take().unwrap().stop();
}

/// What stands between backticks on any page.
fn all_codes() -> impl Iterator<Item = &'static str> {
    PAGES.into_iter().flat_map(|(_, text)| shell::inline_code(text))
}

/// The help of a command, if there is one.
fn help_of(words: &[String]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = run(kv_in(folder.path(), &[&["help".to_owned()], words].concat()));
    output.status.success().then(|| said(&output))
}

/// The help of every command there is.
fn whole_help() -> String {
    let mut help = help_of(&[]).unwrap();
    for name in command_names(&help) {
        let command = help_of(std::slice::from_ref(&name)).unwrap();
        for inner in command_names(&command) {
            help += &help_of(&[name.clone(), inner]).unwrap();
        }
        help += &command;
    }
    help
}

fn command_names(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("\nCommands:\n").unwrap_or_default();
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|&name| name != "help").map(str::to_owned).collect()
}

/// Flags of a help text, with their dashes.
fn flags_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-' || letter == '_'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

#[test]
fn every_command_and_flag_that_the_readme_names_in_passing_is_there() {
    let help = whole_help();
    let (flags, mut commands) = (flags_in(&help), 0);
    for code in all_codes() {
        let words = shell::line(code).words;
        match words.first().map(String::as_str) {
            Some("kv") if words.len() > 1 => {
                let command: Vec<String> = words[1..]
                    .iter()
                    .take_while(|word| !word.starts_with('-'))
                    .cloned()
                    .collect();
                let own = help_of(&command).unwrap_or_else(|| panic!("`{code}`: no such command"));
                for flag in flags_in(code) {
                    assert!(flags_in(&own).contains(flag), "`{code}`: no flag {flag}");
                }
                commands += 1;
            }
            Some(first) if first.starts_with("--") => {
                for flag in flags_in(code) {
                    assert!(flags.contains(flag), "`{code}`: no command has the flag {flag}");
                }
            }
            Some(first) if first.starts_with("KV_") => {
                for name in words
                    .iter()
                    .filter_map(|word| word.split_once('='))
                    .map(|(name, _)| name)
                {
                    assert!(
                        sources_of_benches().contains(name),
                        "`{code}`: no benchmark takes {name}"
                    );
                }
                let is_set = first.contains('=');
                assert!(
                    is_set || help.contains(first),
                    "`{code}`: no command takes the variable"
                );
            }
            Some("just") if words.len() > 1 => {
                assert!(recipes().contains(words[1].as_str()), "`{code}`: no such recipe")
            }
            _ => {}
        }
    }
    assert!(commands > 0);
}

fn sources_of_benches() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let mains = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("main.rs"));
    mains.filter_map(|main| fs::read_to_string(main).ok()).collect()
}

/// The justfile's recipes.
fn recipes() -> BTreeSet<&'static str> {
    let starts = JUSTFILE
        .lines()
        .filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()));
    let heads = starts.filter_map(|line| line.split_once(':'));
    heads.filter_map(|(head, _)| head.split_whitespace().next()).collect()
}

#[test]
fn the_recipes_that_the_readme_lists_are_those_of_the_justfile() {
    let (_, list) = README.split_once("`just` lists the recipes:").unwrap();
    let list = list.split("\n\n").next().unwrap();
    let listed: BTreeSet<&str> = shell::inline_code(list)
        .into_iter()
        .filter_map(|code| code.split(' ').next())
        .collect();
    let mut recipes = recipes();
    recipes.remove("default");
    assert_eq!(listed, recipes);
}

/// The numbers of a text, such as `32,320`, `0.27` or `64`.
fn numbers_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_digit() || letter == ',' || letter == '.'));
    let bare = words.map(|word| word.trim_matches([',', '.']));
    bare.filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_figure_by_which_the_readme_compares_stands_with_the_benchmarks() {
    let (_, comparison) = README.split_once("## How it compares").unwrap();
    let (comparison, _) = comparison.split_once("\n## ").unwrap();
    let figures = numbers_in(comparison);
    assert!(figures.len() > 50, "the README compares no more: {figures:?}");
    let stale: Vec<&str> = figures.difference(&numbers_in(BENCHES)).copied().collect();
    assert!(stale.is_empty(), "not in benches/README.md: {stale:?}");
}

#[test]
fn every_benchmark_that_is_named_is_there() {
    let mut benchmarks = 0;
    for code in all_codes().filter_map(|code| code.strip_prefix("just ")) {
        let words: Vec<&str> = code.split_whitespace().collect();
        assert!(recipes().contains(words[0]), "`just {code}`: no such recipe");
        if let ["bench", name] = words[..] {
            assert!(
                MANIFEST.contains(&format!("name = {name:?}\n")),
                "`just {code}`: no such benchmark"
            );
            benchmarks += 1;
        }
    }
    assert!(benchmarks > 0);
}

/// As GitHub makes the anchor of a heading.
fn anchors_of(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|letter| letter.is_alphanumeric() || "- ".contains(*letter));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for (path, text) in PAGES {
        let folder = root.join(path).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let page =
                fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{path}: {target}: {error}"));
            assert!(
                anchor.is_empty() || anchors_of(&page).contains(anchor),
                "{path}: {target}"
            );
            links += 1;
        }
    }
    assert!(links > 5);
}
