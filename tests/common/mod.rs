//! The real binary, as tests use it: a data folder with an admin, nodes started on it, and calls to them.

#![allow(dead_code, reason = "each test file uses its own part of this")]

pub mod calls;
pub mod http;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use calls::Caller;

/// Until a node is ready, or has ended: only ever waited for in full when the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const ADMIN: &str = "admin";
pub const ADMIN_PASSWORD: &str = "correct horse battery staple";

/// What the CLI sends for a password: its SHA-256 in hex.
pub fn password_hash(password: &str) -> String {
    Sha256::digest(password.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub fn kv() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    // What the person who runs the tests has set must not change them.
    for name in ["KV_URL", "KV_USER", "KV_PASSWORD", "KV_PROFILE", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

/// A data folder with its admin's password file; it lives longer than the nodes started on it.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, format!("{ADMIN_PASSWORD}\n")).unwrap();
        std::fs::set_permissions(password, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn password_file(&self) -> PathBuf {
        self.path().join("password")
    }

    fn serve(&self, more: &[&str]) -> Command {
        let mut command = self.serve_without_user();
        command
            .args(["--user", ADMIN, "--password-file"])
            .arg(self.password_file())
            .args(more);
        command
    }

    fn serve_without_user(&self) -> Command {
        let mut command = kv();
        command.arg("serve").arg("--data").arg(self.data());
        command.args(["--listen", "127.0.0.1:0"]);
        // Neither a profile nor a settings file of the machine may play a part.
        command
            .current_dir(self.path())
            .env("XDG_CONFIG_HOME", self.path().join("config"));
        command.env("HOME", self.path());
        command
    }

    pub fn start(&self) -> Node {
        self.start_with(&[])
    }

    /// A node with further arguments to `serve`.
    pub fn start_with(&self, more: &[&str]) -> Node {
        Node::start(self.serve(more))
    }

    /// A node that was told of no admin.
    pub fn start_without_user(&self) -> Node {
        Node::start(self.serve_without_user())
    }

    /// Starts a node that is expected to refuse.
    pub fn start_refused(&self, more: &[&str]) -> Output {
        let output = run(self.serve(more));
        assert!(
            !output.status.success(),
            "the node should not have run: {}",
            said(&output)
        );
        output
    }
}

/// Standard output and error of a finished command.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs a command to its end; kills it when it does not come to one.
pub fn run(command: Command) -> Output {
    run_with_input(command, b"")
}

pub fn run_with_input(mut command: Command, input: &[u8]) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let mut stdin = child.stdin.take().unwrap();
    let (done, ended) = channel();
    let output = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    // A command that does not read its input is no failure of the test.
    let _ = std::io::Write::write_all(&mut stdin, input);
    drop(stdin);
    let in_time = ended.recv_timeout(PATIENCE).is_ok();
    if !in_time {
        let _ = kill_process(pid, Signal::KILL);
    }
    let output = output.join().unwrap().unwrap();
    assert!(in_time, "the command did not end: {}", said(&output));
    output
}

/// A running `kv serve`; killed when dropped.
pub struct Node {
    child: Child,
    addr: SocketAddr,
    log: Arc<Mutex<String>>,
    /// They end with the node's output.
    readers: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts a `kv serve`, and waits until it listens.
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, stdout) = collect(child.stdout.take().unwrap(), &log);
        let (_, stderr) = collect(child.stderr.take().unwrap(), &log);
        let addr = std::iter::from_fn(|| ready.recv_timeout(PATIENCE).ok()).find_map(|line| ready_addr(&line));
        let Some(addr) = addr else {
            let _ = child.kill();
            let status = child.wait();
            panic!("the node did not get ready ({status:?}):\n{}", log.lock());
        };
        Self {
            child,
            addr,
            log,
            readers: vec![stdout, stderr],
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has printed so far, both streams.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    pub fn admin(&self) -> Caller {
        Caller::new(self.addr, ADMIN, &password_hash(ADMIN_PASSWORD))
    }

    /// Makes a user and gives its calls.
    pub fn user(&self, name: &str) -> Caller {
        let hash = password_hash(name);
        self.admin().add_user(name, &hash);
        Caller::new(self.addr, name, &hash)
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns at once.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits for the node to end by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.wait_for_end()
    }

    /// Waits for the node to end by itself; everything that it printed.
    pub fn log_at_end(mut self) -> String {
        self.wait_for_end();
        for reader in std::mem::take(&mut self.readers) {
            reader.join().unwrap();
        }
        self.log()
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        let pid = self.pid();
        let (done, ended) = channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let late = ended.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        let status = self.child.wait().unwrap();
        drop(done);
        assert!(!watchdog.join().unwrap(), "the node did not end:\n{}", self.log());
        status
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most that was resident so far, in KiB.
    pub fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the node said:\n{}", self.log());
        }
    }
}

/// Every line goes to the log and to the receiver, until the stream ends.
fn collect(stream: impl Read + Send + 'static, log: &Arc<Mutex<String>>) -> (Receiver<String>, JoinHandle<()>) {
    let (lines, received) = channel();
    let log = Arc::clone(log);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lock().push_str(&format!("{line}\n"));
            // Nobody may want the lines by now; the log still does.
            let _ = lines.send(line);
        }
    });
    (received, reader)
}

fn ready_addr(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(": listening on http://")?;
    rest.split(',').next()?.parse().ok()
}

/// Numbers for tests that need some chance; the same seed gives the same ones.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
