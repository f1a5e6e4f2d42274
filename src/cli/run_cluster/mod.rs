//! `kv run-cluster`: a store on this machine, with everything of it in one folder.
//!
//! Invariants: no node outlives this process: it holds the other end of a pipe that each node watches. Nobody is told of a new cluster, by
//! its profile or otherwise, before all of its nodes are members: once it holds data, no other node can join it.

mod folder;
mod former;
mod keeper;
mod live;
mod made;
mod ports;
mod probe;
mod process;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{LISTEN_DEFAULT, Setting, address, shards_default, threads_default};
use crate::os::RealDisk;

use super::connection::profile::{LOCAL_CLUSTER_FOLDER, PROFILE_FILE, believed_owners};
use super::exit::Exit;
use super::progress;
use super::serve;
use folder::{DEMO_USER, Folder, PASSWORD_FILE};
use keeper::{Event, Keeper, Stop};
use ports::Peers;
use probe::{Patience, until_ready};
use process::{Program, Start};

/// Nodes of a new folder when nothing else is asked for.
pub const NODES_DEFAULT: u16 = 3;
/// More than this on one machine shows nothing new.
const NODES_MAX: u16 = 7;
/// A person begins to wonder.
const WAIT_SILENT: Duration = Duration::from_secs(3);
/// A node that was a member before has been let in again by then, if nothing is in its way.
const WAIT_ALL: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It makes what is not there: a user `demo`, an admin, with a password of chance, and a profile by which the other commands find user and nodes in the \
folder where this runs (with --dir: by the KV_PROFILE that it prints). It says when all nodes serve, and shows a table of them at a terminal. A node that dies is started again after a second; one \
that dies three times in a row within ten seconds of its start is given up, and the others go on.
Ctrl-C, SIGTERM and the end of this program, whatever ends it, stop the nodes; the data stays, and the same command goes on with it.")]
pub struct RunClusterArgs {
    #[arg(
        help = format!("Nodes to run, 1 to {NODES_MAX} [default: those of the folder; {NODES_DEFAULT} in a new one]"),
        long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    pub nodes: Option<u16>,
    /// Folder of everything: data, logs, password, key of the cluster and profile
    #[arg(long, default_value = LOCAL_CLUSTER_FOLDER)]
    pub dir: PathBuf,
    /// Address and port of the first node; the next ones have the ports after it, and speak to each other at ports 100 higher
    #[arg(long, value_name = "ADDR:PORT", default_value = LISTEN_DEFAULT, value_parser = address)]
    pub listen: SocketAddr,
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

/// Runs the nodes until `next_signal` returns; when it returns once more, they are killed.
async fn run_until<F: AsyncFnMut()>(
    args: &RunClusterArgs,
    program: &Program,
    next_signal: &mut F,
) -> anyhow::Result<()> {
    let (mut folder, count) = folder_and_nodes(args)?;
    let patience = Patience {
        silent: WAIT_SILENT,
        // Nodes of a new cluster that are left behind could not join it any more.
        all: folder.was_whole().then_some(WAIT_ALL),
    };
    let (disk, all_data) = (RealDisk::default(), folder.all_data(count));
    tokio::select! {
        biased;
        () = next_signal() => return Ok(()),
        () = former::have_ended(&disk, &all_data, progress::say) => {}
    }
    let (starts, _peers) = plan(&mut folder, args.listen, count)?;
    folder.keep();
    let mut nodes = Nodes::start(starts, program);
    let above = live::Above::new();
    let mut shown: Option<Shown> = None;
    loop {
        let event = tokio::select! {
            biased;
            () = next_signal(), if nodes.stop != Stop::Kill => {
                shown = None;
                above.leave();
                if nodes.stop == Stop::No {
                    print("stopping (once more kills the nodes, which loses nothing that was acknowledged)\n");
                }
                nodes.stop_harder();
                continue;
            }
            event = nodes.next_event() => event,
            ended = poll_some(&mut shown) => {
                ended?;
                shown = None;
                continue;
            }
        };
        match event {
            Some(Event::Ready { node, line }) => {
                if nodes.is_ready() {
                    above.line(&format!("node {node} serves again"));
                } else if let Some(lines) = nodes.note_ready(node, line)?
                    && nodes.stop == Stop::No
                {
                    let next = what_next(&args.dir, count);
                    let (urls, folder, above) = (nodes.urls(), &folder, &above);
                    shown = Some(Box::pin(async move {
                        let missed = until_ready(&urls, patience, |text| above.line(text)).await;
                        folder.write_profile(urls.clone())?;
                        let serving = lines.iter().enumerate().filter(|(place, _)| !missed.contains(place));
                        let lines: String = serving.map(|(_, line)| format!("{line}\n")).collect();
                        print(&format!("{lines}{next}"));
                        let client = if count > 1 { folder.client(&urls) } else { None };
                        above.show(&urls, client).await;
                        Ok(())
                    }));
                }
            }
            Some(Event::Died { report }) => above.line(&report),
            None => return nodes.outcome(),
        }
    }
}

/// The folder, and how many nodes run in it.
fn folder_and_nodes(args: &RunClusterArgs) -> anyhow::Result<(Folder, u16)> {
    if args.dir == Path::new(LOCAL_CLUSTER_FOLDER) {
        folder::check_owner(&args.dir, &believed_owners())?;
    }
    let folder = Folder::prepare(&args.dir)?;
    let count = folder.nodes(args.nodes)?;
    for number in folder.lost() {
        progress::say(&format!(
            "{} is gone: node {number} starts empty, and takes its place again with the data that the others have",
            folder.data(number).display()
        ));
    }
    Ok((folder, count))
}

/// What the person who watches is shown, once all nodes serve; an error ends the run.
type Shown<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

async fn poll_some(shown: &mut Option<Shown<'_>>) -> anyhow::Result<()> {
    match shown {
        Some(shown) => shown.await,
        None => std::future::pending().await,
    }
}

/// What each node is started with, and where they speak to each other.
fn plan(folder: &mut Folder, listen: SocketAddr, count: u16) -> anyhow::Result<(Vec<Start>, Peers)> {
    let http = ports::http(listen, count)?;
    let peers = if count > 1 {
        ports::peers(listen, count)?
    } else {
        Peers::default()
    };
    let key = (count > 1).then(|| folder.cluster_key()).transpose()?;
    // Each has only a part of the machine.
    let is_left = |setting: Setting| std::env::var_os(setting.variable()).is_none_or(|text| text.is_empty());
    let shards = is_left(Setting::Shards).then(|| shards_default(count.into()));
    let threads = is_left(Setting::Threads).then(|| threads_default(count.into()));
    let start = |index: usize, listen: SocketAddr| Start {
        number: index + 1,
        data: folder.data(index + 1),
        log: folder.log(index + 1),
        listen,
        shards,
        threads,
        // Later ones find the user in the cluster.
        password_file: (index == 0).then(|| folder.password_file()),
        cluster: key.clone().zip(peers.addresses.get(index).copied()),
        // All have the same list: the first founds the cluster, unless the others belong to one.
        join: peers.addresses.clone(),
    };
    let starts = http.into_iter().enumerate();
    let starts = starts.map(|(index, listen)| start(index, listen)).collect();
    Ok((starts, peers))
}

/// The nodes that run, each with its keeper.
struct Nodes {
    keepers: JoinSet<anyhow::Result<()>>,
    events: mpsc::UnboundedReceiver<Event>,
    orders: watch::Sender<Stop>,
    stop: Stop,
    /// The line of each node that was ready once.
    ready: Vec<Option<String>>,
    /// The first thing that went wrong and that ends the run.
    failure: Option<anyhow::Error>,
}

impl Nodes {
    fn start(starts: Vec<Start>, program: &Program) -> Self {
        let (events, received) = mpsc::unbounded_channel();
        let (orders, order) = watch::channel(Stop::No);
        let ready = vec![None; starts.len()];
        let mut keepers = JoinSet::new();
        for start in starts {
            keepers.spawn(Keeper::new(start, program.clone(), events.clone()).keep(order.clone()));
        }
        Self {
            keepers,
            events: received,
            orders,
            stop: Stop::No,
            ready,
            failure: None,
        }
    }

    /// None when no node is left.
    async fn next_event(&mut self) -> Option<Event> {
        loop {
            let ended = tokio::select! {
                biased;
                Some(event) = self.events.recv() => return Some(event),
                ended = self.keepers.join_next() => ended?,
            };
            let outcome = ended.context("a part of this program failed").flatten();
            let Err(error) = outcome else { continue };
            // One node of several may be given up; before all were ready, or when it was the last, that is the end.
            let goes_on = self.stop == Stop::No && self.is_ready() && !self.keepers.is_empty();
            if !goes_on && self.stop == Stop::No {
                self.stop_harder();
            }
            match &self.failure {
                _ if goes_on => {
                    return Some(Event::Died {
                        report: format!("{error:#}"),
                    });
                }
                None => self.failure = Some(error),
                Some(_) => {}
            }
        }
    }

    fn stop_harder(&mut self) {
        self.stop = match self.stop {
            Stop::No => Stop::InOrder,
            Stop::InOrder | Stop::Kill => Stop::Kill,
        };
        // When nobody listens any more, all have stopped.
        let _ = self.orders.send(self.stop);
    }

    fn is_ready(&self) -> bool {
        self.ready.iter().all(Option::is_some)
    }

    /// The lines of all nodes, when this was the last one.
    fn note_ready(&mut self, node: usize, line: String) -> anyhow::Result<Option<Vec<String>>> {
        process::address_in(&line)?;
        if let Some(place) = self.ready.get_mut(node.saturating_sub(1)) {
            // It is shown when all are.
            *place = Some(serve::as_ready(&line));
        }
        let lines = || self.ready.iter().flatten().cloned().collect();
        Ok(self.is_ready().then(lines))
    }

    /// Where clients on this machine reach them.
    fn urls(&self) -> Vec<String> {
        let lines = self.ready.iter().flatten();
        let addresses = lines.filter_map(|line| process::address_in(line).ok());
        addresses
            .map(|address| format!("http://{}", ports::reached_here(address)))
            .collect()
    }

    fn outcome(self) -> anyhow::Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever started this may not read; it runs all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn what_next(dir: &Path, nodes: u16) -> String {
    let shown = dir.display();
    let profile = if dir == Path::new(LOCAL_CLUSTER_FOLDER) {
        String::from("in another terminal, in this folder:\n")
    } else {
        // For a shell that may be in another folder.
        let profile = std::path::absolute(dir)
            .unwrap_or_else(|_| dir.to_owned())
            .join(PROFILE_FILE);
        let profile = shell_word(&profile.display().to_string());
        format!("in another terminal:\n  export KV_PROFILE={profile}\n")
    };
    let logs = if nodes == 1 { "log in" } else { "logs in" };
    let log = if nodes == 1 { "node-1.log" } else { "node-*.log" };
    format!(
        "user {DEMO_USER}, password in {shown}/{PASSWORD_FILE}, {logs} {shown}/{log}\n\
         {profile}  kv add_value greeting hello\n  kv get_value greeting\n\
         or through cargo:\n  cargo run --release -- add_value greeting hello\n  cargo run --release -- get_value greeting\n\
         Ctrl-C stops it; the data stays\n"
    )
}

/// As a shell takes it for one word.
fn shell_word(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%,=".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
