//! `kv run-cluster`: a store on this machine, with everything of it in one folder.
//!
//! Invariant: no node outlives this process: it holds the other end of a pipe that the node watches.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::entropy;
use crate::config::LISTEN_DEFAULT;

use super::exit::{Exit, usage};
use super::profile::{LOCAL_CLUSTER_FOLDER, PROFILE_FILE, Profile, Urls};
use super::{secret, serve};

/// The user that is made, an admin.
const DEMO_USER: &str = "demo";
const PASSWORD_FILE: &str = "demo-password";
/// Of randomness, in the demo user's password.
const PASSWORD_BYTES: usize = 16;
const LOCK_FILE: &str = "lock";
const NODE: &str = "node-1";
/// Longest wait for the node to stop by itself; a little more than it allows itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(65);
/// Of a dead node's log, so much is shown.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

#[derive(Debug, clap::Args)]
pub struct RunClusterArgs {
    /// Nodes to run
    #[arg(long, default_value_t = 1)]
    pub nodes: u16,
    /// Folder of everything: data, logs, password and profile
    #[arg(long, default_value = LOCAL_CLUSTER_FOLDER)]
    pub dir: PathBuf,
    /// Address and port of the first node
    #[arg(long, value_name = "ADDR:PORT", default_value = LISTEN_DEFAULT)]
    pub listen: SocketAddr,
}

/// What is started as a node: normally this program itself.
struct Program {
    path: PathBuf,
    first_args: Vec<String>,
}

pub async fn run(args: RunClusterArgs) -> anyhow::Result<ExitCode> {
    let program = Program {
        path: std::env::current_exe().context("cannot find this program's own file")?,
        first_args: Vec::new(),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next_signal = async || {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run_until(&args, &program, &mut next_signal).await?;
    Ok(Exit::Done.into())
}

/// Runs the node until `next_signal` returns; when it returns once more, the node is killed.
async fn run_until<F: AsyncFnMut()>(
    args: &RunClusterArgs,
    program: &Program,
    next_signal: &mut F,
) -> anyhow::Result<()> {
    if args.nodes != 1 {
        return Err(usage(format!(
            "--nodes {}: this version runs one node; leave --nodes out",
            args.nodes
        )));
    }
    let folder = Folder::prepare(&args.dir)?;
    check_port(args.listen)?;
    let mut node = NodeProcess::spawn(&folder, args.listen, program)?;
    let ready = tokio::select! {
        biased;
        () = next_signal() => None,
        ready = node.ready() => Some(ready?),
    };
    if let Some(line) = ready {
        let url = serve::url_in_ready_line(&line).context("the node's first line is not the one expected")?;
        folder.write_profile(url)?;
        print(&format!("{line}\n{}", what_next(&args.dir)));
        tokio::select! {
            biased;
            () = next_signal() => {}
            status = node.exited() => return Err(node.death(status?)),
        }
    }
    print("stopping\n");
    node.stop(next_signal).await
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever started this may not read; it runs all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn what_next(dir: &Path) -> String {
    let shown = dir.display();
    let profile = if dir == Path::new(LOCAL_CLUSTER_FOLDER) {
        String::from("in another terminal, in this folder:\n")
    } else {
        format!("in another terminal:\n  export KV_PROFILE={shown}/{PROFILE_FILE}\n")
    };
    format!(
        "user {DEMO_USER}, password in {shown}/{PASSWORD_FILE}, log in {shown}/{NODE}.log\n\
         {profile}  kv add_value greeting hello\n  kv get_value greeting\n\
         or through cargo:\n  cargo run --release -- add_value greeting hello\n  cargo run --release -- get_value greeting\n\
         Ctrl-C stops it; the data stays\n"
    )
}

/// The listener is closed again at once: this only turns the usual mistake into a clear message before anything is made.
fn check_port(address: SocketAddr) -> anyhow::Result<()> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => anyhow::bail!(
            "{address} is in use, perhaps by a node that runs already; stop that, or choose another port with --listen"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

fn lock(folder: &Path) -> anyhow::Result<fs::File> {
    let place = || format!("cannot lock the folder {}", folder.display());
    let file = fs::File::create(folder.join(LOCK_FILE)).with_context(place)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
            "{} is run by another `kv run-cluster` already; stop that, or choose another folder with --dir",
            folder.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(place),
    }
}

/// The cluster's folder, which only one process at a time runs.
struct Folder {
    path: PathBuf,
    lock: fs::File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is just being started holds a copy of it until it runs its program.
        let _ = self.lock.unlock();
    }
}

impl Folder {
    fn prepare(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let folder = Self {
            path: path.to_path_buf(),
            lock: lock(path)?,
        };
        let password = folder.password_file();
        if !password.exists() {
            if folder.data().exists() {
                anyhow::bail!(
                    "{} is gone, but the data of its user is there: put the file back, or remove {} to begin anew",
                    password.display(),
                    path.display()
                );
            }
            secret::write_private(&password, &format!("{}\n", entropy::hex::<PASSWORD_BYTES>()))?;
        }
        Ok(folder)
    }

    fn data(&self) -> PathBuf {
        self.path.join(NODE)
    }

    fn password_file(&self) -> PathBuf {
        self.path.join(PASSWORD_FILE)
    }

    fn log(&self) -> PathBuf {
        self.path.join(format!("{NODE}.log"))
    }

    /// A new log; the one of the run before is kept beside it.
    fn new_log(&self) -> anyhow::Result<fs::File> {
        let log = self.log();
        match fs::rename(&log, self.path.join(format!("{NODE}.log.old"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))
    }

    fn write_profile(&self, url: &str) -> anyhow::Result<()> {
        let profile = Profile {
            url: Some(Urls::One(url.to_owned())),
            user: Some(DEMO_USER.to_owned()),
            password: None,
            password_file: Some(PASSWORD_FILE.into()),
            consistency: None,
        };
        secret::write_private(&self.path.join(PROFILE_FILE), &toml::to_string(&profile)?)
    }
}

/// A node in a process of its own.
struct NodeProcess {
    child: Child,
    /// The pipe that the node watches; `Child::wait` would close it, so it is kept apart.
    _alive: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl NodeProcess {
    fn spawn(folder: &Folder, listen: SocketAddr, program: &Program) -> anyhow::Result<Self> {
        let mut command = Command::new(&program.path);
        command
            .args(&program.first_args)
            .arg("serve")
            .arg("--data")
            .arg(folder.data())
            .arg("--listen")
            .arg(listen.to_string())
            .args(["--user", DEMO_USER, "--password-file"])
            .arg(folder.password_file())
            .arg("--stop-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(folder.new_log()?)
            // Ctrl-C is for this process, which then stops the node in good order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the node")?;
        let stdout = child.stdout.take().context("the node has no standard output")?;
        let alive = child.stdin.take().context("the node has no standard input")?;
        Ok(Self {
            child,
            _alive: alive,
            lines: BufReader::new(stdout).lines(),
            log: folder.log(),
        })
    }

    /// The line it prints when it serves; an error when it ends before.
    async fn ready(&mut self) -> anyhow::Result<String> {
        match self.lines.next_line().await? {
            Some(line) => Ok(line),
            None => {
                let status = self.exited().await?;
                Err(self.death(status))
            }
        }
    }

    async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    fn death(&self, status: ExitStatus) -> anyhow::Error {
        let log = self.log.display();
        let tail = tail_of(&self.log).unwrap_or_default();
        anyhow::anyhow!("the node stopped by itself ({status}). The end of its log, {log}:\n{tail}")
    }

    async fn stop<F: AsyncFnMut()>(mut self, next_signal: &mut F) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended by itself meanwhile; then the wait below returns.
            let _ = kill_process(pid, Signal::TERM);
        }
        let in_time = tokio::select! {
            biased;
            () = next_signal() => None,
            waited = tokio::time::timeout(STOP_TIMEOUT, self.exited()) => waited.ok(),
        };
        match in_time {
            Some(status) => {
                let status = status?;
                // The signal may have come before the node could listen for it.
                let obeyed = status.success() || status.signal() == Some(Signal::TERM.as_raw());
                if obeyed { Ok(()) } else { Err(self.death(status)) }
            }
            None => {
                self.child.kill().await.context("cannot kill the node")?;
                anyhow::bail!(
                    "the node was killed: it did not stop by itself. Nothing that it had acknowledged is lost"
                )
            }
        }
    }
}

/// The last lines of a file.
fn tail_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    for line in text.lines() {
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    Ok(Vec::from(tail).join("\n"))
}

#[cfg(test)]
#[path = "run_cluster_tests.rs"]
mod tests;
