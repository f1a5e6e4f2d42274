//! `kv serve`: settings, logging, signals, and between them the node.
//!
//! Invariant: standard output carries one line, when the node listens; everything else goes to standard error.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::client::password_hash;
use crate::config::{LogFormat, ServeConfig, Setting, Settings, Source};

use super::exit::{Exit, usage};
use super::launch;
use super::progress::say;
use super::secret;
use crate::server::{FirstAdmin, Server};

/// Names a file of settings.
pub const CONFIG_VARIABLE: &str = "KV_CONFIG";
/// Longest time for all of a stop: what is in flight at the front (`FrontConfig::shutdown_deadline`), then the shards.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Folder of the node's files, made when it is not there [env: KV_DATA] [default: data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Address and port to listen on; clients' connections are taken as far as the limit of open files leaves room for them (ulimit -n), at most 16384 [env: KV_LISTEN] [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Admin to make when no user of this name exists [env: KV_ADMIN_USER]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// File whose text is that admin's password [env: KV_ADMIN_PASSWORD_FILE]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<String>,
    /// TOML file with settings, named like the flags with _ for -; flags and environment win over it [env: KV_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port for the other nodes of a cluster, UDP and TCP; without it the node is alone [env: KV_CLUSTER_LISTEN]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Cluster")]
    pub cluster_listen: Option<String>,
    /// Where the other nodes reach this one [env: KV_ADVERTISE] [default: that of --cluster-listen]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Cluster")]
    pub advertise: Option<String>,
    /// Nodes of the cluster (repeated or with commas between), the same list for all. The first in it founds the cluster when most of the list is up; without a list, a node founds one when no other shows [env: KV_JOIN]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Cluster")]
    pub join: Vec<String>,
    /// File with the key that all nodes of the cluster share; `kv cluster keygen` makes it [env: KV_CLUSTER_KEY_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub cluster_key_file: Option<String>,
    /// Folder with certificate.pem, key.pem and authority.pem: mutual TLS for the connections between nodes; the key seals the gossip all the same [env: KV_CLUSTER_TLS]
    #[arg(long, value_name = "DIR", help_heading = "Cluster")]
    pub cluster_tls: Option<String>,
    /// What fails together with this node, such as a rack; replicas go to different zones; counts only when the node joins [env: KV_ZONE] [default: default]
    #[arg(long, value_name = "ZONE", help_heading = "Cluster")]
    pub zone: Option<String>,
    /// Share of the data, against the weights of the other nodes: 1 to 1000; counts only when the node joins [env: KV_WEIGHT] [default: 100]
    #[arg(long, value_name = "N", help_heading = "Cluster")]
    pub weight: Option<String>,
    /// Replicas of each key, 1 to 7; counts only when the cluster is founded [env: KV_REPLICATION] [default: 3]
    #[arg(long, value_name = "N", help_heading = "Cluster")]
    pub replication: Option<String>,
    /// Name of the cluster: nodes of another one are strangers [env: KV_CLUSTER_NAME] [default: kv]
    #[arg(long, visible_alias = "name", value_name = "NAME", help_heading = "Cluster")]
    pub cluster_name: Option<String>,
    /// Shards that share the keys, 1 to 256; counts only when the data folder is made [env: KV_SHARDS] [default: one per processor, at most 16]
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub shards: Option<String>,
    /// Threads that carry requests out; fewer than processors where others need the machine too: 2 to 1024 [env: KV_THREADS] [default: one more than processors]
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    pub threads: Option<String>,
    /// Memory for blocks read from disk, at least 1MiB; units are KiB, MiB and GiB [env: KV_BLOCK_CACHE_BYTES] [default: 64MiB]
    #[arg(long, value_name = "BYTES", help_heading = "Tuning")]
    pub block_cache_bytes: Option<String>,
    /// Size at which a shard starts a new segment, 1MiB to 1GiB [env: KV_ACTIVE_SEGMENT_BYTES] [default: 8MiB]
    #[arg(long, value_name = "BYTES", help_heading = "Tuning")]
    pub active_segment_bytes: Option<String>,
    /// Form of the log on standard error: text or json [env: KV_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Logging")]
    pub log_format: Option<String>,
    /// What is logged, such as warn or kv_storage=debug [env: KV_LOG_FILTER] [default: info]
    #[arg(long, value_name = "DIRECTIVES", help_heading = "Logging")]
    pub log_filter: Option<String>,
    /// Stop when the pipe on standard input is closed, so when the process that holds its other end dies
    #[arg(long, hide = true)]
    pub stop_with_parent: bool,
}

impl ServeArgs {
    /// The settings from flags, environment and file, validated.
    pub fn into_config(self, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<ServeConfig> {
        let mut settings = Settings::default();
        let from_environment = || variable(CONFIG_VARIABLE).filter(|path| !path.is_empty());
        let file = self.config.clone().or_else(|| from_environment().map(PathBuf::from));
        for (setting, text) in self.flags() {
            if let Some(text) = text {
                settings.offer(setting, text, Source::Flag);
            }
        }
        settings.offer_environment(variable);
        if let Some(path) = file {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| usage(format!("cannot read the settings in {}: {error}", path.display())))?;
            settings.offer_file(&path, &text)?;
        }
        Ok(settings.into_config()?)
    }

    fn flags(self) -> [(Setting, Option<String>); 19] {
        let join = (!self.join.is_empty()).then(|| self.join.join(","));
        [
            (Setting::Data, self.data),
            (Setting::Listen, self.listen),
            (Setting::User, self.user),
            (Setting::PasswordFile, self.password_file),
            (Setting::Shards, self.shards),
            (Setting::Threads, self.threads),
            (Setting::BlockCacheBytes, self.block_cache_bytes),
            (Setting::ActiveSegmentBytes, self.active_segment_bytes),
            (Setting::LogFormat, self.log_format),
            (Setting::LogFilter, self.log_filter),
            (Setting::ClusterListen, self.cluster_listen),
            (Setting::Advertise, self.advertise),
            (Setting::Join, join),
            (Setting::ClusterKeyFile, self.cluster_key_file),
            (Setting::ClusterTls, self.cluster_tls),
            (Setting::Zone, self.zone),
            (Setting::Weight, self.weight),
            (Setting::Replication, self.replication),
            (Setting::ClusterName, self.cluster_name),
        ]
    }
}

/// Serves until a signal, or until the end of standard input when `stop_with_parent`.
pub async fn run(config: ServeConfig, stop_with_parent: bool) -> anyhow::Result<ExitCode> {
    // Before anything else: a signal that arrives while the node starts must not cut it off.
    let mut stop = StopRequests::new(stop_with_parent)?;
    start_logging(&config);
    let first_admin = first_admin(&config)?;
    let makes_user = first_admin.is_some();
    let mut running = tokio::select! {
        biased;
        why = stop.next() => {
            tracing::info!(why, "stopped before it was ready");
            return Ok(Exit::Done.into());
        }
        started = launch::start(&config, first_admin) => started?,
    };
    // A node that joins others has not heard of their users yet.
    let joins = config.cluster.as_ref().is_some_and(|cluster| !cluster.founds);
    if !running.has_users && !joins && !makes_user {
        say(NO_USERS);
    }
    announce(&running.server, &config.data);
    tokio::select! {
        biased;
        why = stop.next() => tracing::info!(why, "stopping; what is in flight finishes first"),
        why = running.server.failed() => anyhow::bail!("the node stopped by itself: {why}"),
    }
    tokio::select! {
        biased;
        why = stop.next_signal() => anyhow::bail!("stopped at once on a second request ({why})"),
        stopped = tokio::time::timeout(STOP_TIMEOUT, running.server.stop()) => {
            stopped.with_context(|| format!("it took longer than {} s to stop", STOP_TIMEOUT.as_secs()))?;
        }
    }
    tracing::info!("stopped");
    Ok(Exit::Done.into())
}

const NO_USERS: &str =
    "There is no user yet, so nobody can log in. To make the first admin, stop this and run it again with
  --user NAME --password-file FILE
added, where the text of FILE is the password; later users: kv users add. If there were users, and a damaged disk lost them: what is stored
under NAME is that user's again, and that of others with kv users add --keep-data";

const READY: &str = "kv-storage ready: ";
const NOT_IN: &str = "kv-storage not in the cluster yet: ";
const NOT_ALL: &str = "kv-storage not every shard serves yet: ";
const NO_USER_YET: &str = "kv-storage the first user is not made yet: ";
const NOT_READY: [&str; 3] = [NOT_IN, NOT_ALL, NO_USER_YET];

/// What such a line begins with.
fn beginning(all_serve: bool, takes_part: bool, awaits_user: bool) -> &'static str {
    match (all_serve, takes_part, awaits_user) {
        (_, true, false) => READY,
        (_, true, true) => NO_USER_YET,
        (true, false, _) => NOT_IN,
        (false, false, _) => NOT_ALL,
    }
}

/// The line that says that the node listens, and where; and whether it serves and belongs already.
fn listening_line(address: SocketAddr, data: &Path, begin: &str) -> String {
    format!("{begin}listening on http://{address}, data in {}", data.display())
}

/// The address in such a line.
pub fn url_in_line(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(READY).or_else(|| without_reason(line))?;
    let rest = rest.strip_prefix("listening on ")?;
    rest.split_once(", data in ").map(|(url, _)| url)
}

/// The line of a node that is ready by now.
pub fn as_ready(line: &str) -> String {
    without_reason(line).map_or_else(|| line.to_owned(), |rest| format!("{READY}{rest}"))
}

/// What follows on why it is not ready, if it is not.
fn without_reason(line: &str) -> Option<&str> {
    NOT_READY.iter().find_map(|begin| line.strip_prefix(begin))
}

fn announce(server: &Server, data: &Path) {
    let mut out = io::stdout().lock();
    let node = server.node();
    let awaits_user = server.users().why_not_ready().is_some();
    let begin = beginning(node.local().is_ready(), node.takes_part(), awaits_user);
    let line = listening_line(server.address(), data, begin);
    // Whoever started this may not read; it serves all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn first_admin(config: &ServeConfig) -> anyhow::Result<Option<FirstAdmin>> {
    let Some(admin) = &config.first_admin else {
        return Ok(None);
    };
    Ok(Some(FirstAdmin {
        user: admin.user.clone(),
        password_hash: password_hash(&secret::read_password(&admin.password_file)?),
    }))
}

fn start_logging(config: &ServeConfig) {
    // The filter was validated with the rest of the settings.
    let filter = EnvFilter::try_new(&config.log_filter).unwrap_or_default();
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would be told on standard error again, with a panic that ends the node if that cannot be written either.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && takes_colours(|name| std::env::var_os(name)));
    let started = match config.log_format {
        LogFormat::Text => logging.try_init(),
        LogFormat::Json => logging.json().try_init(),
    };
    if started.is_err() {
        say("warning: logging was set up before; its settings are kept");
    }
}

/// As <https://no-color.org> has it.
fn takes_colours(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("NO_COLOR").is_none_or(|text| text.is_empty()) && variable("TERM").is_none_or(|name| name != "dumb")
}

/// Everything that asks the process to stop.
struct StopRequests {
    terminate: Signal,
    interrupt: Signal,
    parent: Option<pipe::Receiver>,
}

impl StopRequests {
    fn new(stop_with_parent: bool) -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            parent: if stop_with_parent { Some(parent_pipe()?) } else { None },
        })
    }

    async fn next_signal(&mut self) -> &'static str {
        either_signal(&mut self.terminate, &mut self.interrupt).await
    }

    /// Dropping the future is fine.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            why = either_signal(&mut self.terminate, &mut self.interrupt) => why,
            () = closed(self.parent.as_mut()) => "the process that started this one is gone",
        }
    }
}

async fn either_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn parent_pipe() -> anyhow::Result<pipe::Receiver> {
    let not_a_pipe = "--stop-with-parent needs a pipe on standard input";
    let stdin = io::stdin().as_fd().try_clone_to_owned().context(not_a_pipe)?;
    pipe::Receiver::from_owned_fd(stdin).context(not_a_pipe)
}

/// Returns when the pipe's other end was closed; never without a pipe.
async fn closed(pipe: Option<&mut pipe::Receiver>) {
    let Some(pipe) = pipe else {
        return std::future::pending().await;
    };
    let mut ignored = [0; 64];
    while pipe.read(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_whether_the_node_serves_and_is_in_and_can_be_read_back() {
        let end = "listening on http://127.0.0.1:8000, data in ./data";
        let address = "127.0.0.1:8000".parse().unwrap();
        let ready = format!("kv-storage ready: {end}");
        for (all_serve, takes_part, awaits_user, begin) in [
            (true, true, false, "kv-storage ready: "),
            (true, true, true, "kv-storage the first user is not made yet: "),
            (true, false, true, "kv-storage not in the cluster yet: "),
            // A node of its own has no cluster to be in.
            (false, false, false, "kv-storage not every shard serves yet: "),
        ] {
            let begins = beginning(all_serve, takes_part, awaits_user);
            let line = listening_line(address, Path::new("./data"), begins);
            assert_eq!(line, format!("{begin}{end}"));
            assert_eq!(url_in_line(&line), Some("http://127.0.0.1:8000"));
            assert_eq!(as_ready(&line), ready);
        }
        assert_eq!(url_in_line("something else"), None);
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        std::fs::write(&path, "listen = '127.0.0.1:3'\nshards = 3\ndata = 'd'").unwrap();
        let args = ServeArgs {
            listen: Some("127.0.0.1:1".to_owned()),
            ..ServeArgs::default()
        };
        let variable = |name: &str| match name {
            "KV_CONFIG" => Some(path.display().to_string()),
            "KV_LISTEN" => Some("127.0.0.1:2".to_owned()),
            "KV_SHARDS" => Some("2".to_owned()),
            _ => None,
        };
        let config = args.into_config(variable).unwrap();
        assert_eq!((config.listen.port(), config.shards), (1, 2));
        assert_eq!(config.data, dir.path().join("d"));
        let config = ServeArgs::default().into_config(|_| Some(String::new())).unwrap();
        assert_eq!(config.listen.port(), 8000);
    }

    #[test]
    fn a_log_has_no_colours_where_nobody_wants_them() {
        let takes = |set: &'static str, text: &'static str| takes_colours(|name| (name == set).then(|| text.into()));
        assert!(takes("TERM", "xterm") && takes("NO_COLOR", ""));
        assert!(!takes("TERM", "dumb") && !takes("NO_COLOR", "1"));
    }

    #[test]
    fn nodes_to_join_may_be_repeated_or_have_commas_between() {
        let args = ServeArgs {
            cluster_listen: Some("127.0.0.1:7000".to_owned()),
            cluster_key_file: Some("key".to_owned()),
            join: vec!["127.0.0.1:7001,127.0.0.1:7002".to_owned(), "127.0.0.1:7003".to_owned()],
            ..ServeArgs::default()
        };
        assert_eq!(args.into_config(|_| None).unwrap().cluster.unwrap().join.len(), 3);
    }

    #[test]
    fn settings_that_are_not_valid_are_wrong_usage() {
        let args = ServeArgs {
            shards: Some("x".to_owned()),
            ..ServeArgs::default()
        };
        let error = args.into_config(|_| None).unwrap_err();
        assert_eq!(crate::cli::exit::exit_of(&error), Exit::Usage);
        let args = ServeArgs {
            config: Some("/nowhere/node.toml".into()),
            ..ServeArgs::default()
        };
        let error = args.into_config(|_| None).unwrap_err();
        assert!(error.to_string().contains("/nowhere/node.toml"));
    }
}
