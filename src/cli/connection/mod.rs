//! From flags, environment and profile to a client, and from the client's errors to what to do next.
//!
//! Invariant: a password found in a profile is used for that profile's user only.

pub mod before_command;
pub mod profile;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cli::environment::with_environment;
use crate::cli::exit::{Advice, usage};
use crate::cli::progress::say;
use crate::cli::secret;
use crate::client::{Client, ClientBuilder, ClientError, Waiting};
use crate::types::Consistency;

use profile::{Folders, Found, Search, split_urls};

/// Rounds through all addresses after the first while nobody ever listened at any: about a second.
const RETRIES_TO_CONNECT: u32 = 4;
const URL_DEFAULT: &str = "http://127.0.0.1:8000";
/// Of the client, as the help says.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);
/// A person begins to wonder.
const NOTICE_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Address of a node; of several (repeated or with commas between) the next is asked when one fails or is silent [env: KV_URL] [default: that of the profile, or http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// Name to log in with [env: KV_USER]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// File whose text is the password [env: KV_PASSWORD_FILE, or KV_PASSWORD for the password itself]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Profile with url, user, password and consistency: a path (with a / or .toml), or NAME for NAME.toml in ~/.config/kv-storage [env: KV_PROFILE] [default: kv-cluster/profile.toml, which run-cluster writes, or else profile.toml in ~/.config/kv-storage]
    #[arg(long, value_name = "NAME_OR_PATH")]
    pub profile: Option<String>,
    /// Seconds without a word after which a node counts as failed and the request is tried again, at another node or this one
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = timeout, allow_negative_numbers = true)]
    pub timeout: u64,
    /// Seconds in which a request is tried again, over all nodes; after that it is given up, or after about a second where nothing ever listened at any address. A node takes at most 10 of them for a try unless it is given [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = deadline, allow_negative_numbers = true)]
    pub deadline: Option<Duration>,
}

impl ConnectionArgs {
    /// How long what fails for now is tried again.
    pub fn patience(&self) -> Duration {
        self.deadline.unwrap_or(DEADLINE_DEFAULT)
    }
}

// What a command on users or members takes. (A doc comment would be its text in the help.)
#[derive(Debug, clap::Args)]
pub struct CommonArgs {
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Of a command on keys. Users and members are always changed at the level that they need.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct KeyConnectionArgs {
    #[command(flatten)]
    pub common: ConnectionArgs,
    /// How many replicas each request must reach: one, quorum or all [env: KV_CONSISTENCY] [default: quorum]
    #[arg(long, value_name = "LEVEL", hide_possible_values = true, value_parser = PossibleValuesParser::new(Consistency::NAMES).try_map(|name| name.parse::<Consistency>()))]
    pub consistency: Option<Consistency>,
}

fn timeout(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds) if (1..=86_400).contains(&seconds) => Ok(seconds),
        _ => Err("write a whole number of seconds, from 1 to 86400".to_owned()),
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write a number of seconds, from 0.001 to 86400".to_owned()),
    }
}

/// A setting and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub from: String,
}

fn sourced<T>(value: T, from: impl Into<String>) -> Sourced<T> {
    let from = from.into();
    Sourced { value, from }
}

/// Whom to speak to, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub urls: Sourced<Vec<String>>,
    pub user: Sourced<String>,
    pub password: Sourced<String>,
    /// None: the node's default.
    pub consistency: Option<Consistency>,
}

/// The environment.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Puts the settings together: flags over `variable` over the profile.
pub fn resolve(
    args: &ConnectionArgs,
    level: Option<Consistency>,
    variable: impl Fn(&str) -> Option<String>,
    folders: &Folders,
) -> anyhow::Result<Target> {
    let variable: Variable = &|name| variable(name).filter(|text| !text.is_empty());
    let asked = args.profile.clone().or_else(|| variable("KV_PROFILE"));
    let search = folders.find(asked.as_deref())?;
    for text in worth_saying(&search, args, variable) {
        say(&format!("warning: {text}"));
    }
    let found = search.found.unwrap_or_default();
    let urls = urls(args, variable, &found);
    let Some(user) = user(args, variable, &found) else {
        return Err(usage(match folders.cluster_without_profile() {
            Some(folder) => format!(
                "no user is set, and {} has no profile yet: if `kv run-cluster` runs, its nodes are still starting, and it says when \
                 they serve; otherwise start it, or give --user and --password-file, or KV_USER and KV_PASSWORD, or --profile",
                folder.display()
            ),
            None => "no user is set: give --user and --password-file, or KV_USER and KV_PASSWORD, or a profile (--profile); \
                 `kv run-cluster` makes one for the folder it runs in"
                .to_owned(),
        }));
    };
    let Some(password) = password(args, variable, &found, &user.value)? else {
        return Err(usage(format!(
            "no password is set for the user {:?} (from {}): give --password-file or KV_PASSWORD",
            user.value, user.from
        )));
    };
    let consistency = consistency(level, variable, &found)?;
    Ok(Target {
        urls,
        user,
        password,
        consistency,
    })
}

/// What was passed over, where a setting could have come from it.
fn worth_saying<'a>(search: &'a Search, args: &ConnectionArgs, variable: Variable) -> &'a [String] {
    let has_url = !args.url.is_empty() || variable("KV_URL").is_some();
    let has_user = args.user.is_some() || variable("KV_USER").is_some();
    let password = || variable("KV_PASSWORD").or_else(|| variable("KV_PASSWORD_FILE"));
    let has_password = args.password_file.is_some() || password().is_some();
    match has_url && has_user && has_password {
        true => &[],
        false => &search.passed_over,
    }
}

fn consistency(flag: Option<Consistency>, variable: Variable, found: &Found) -> anyhow::Result<Option<Consistency>> {
    if flag.is_some() {
        return Ok(flag);
    }
    let environment = variable("KV_CONSISTENCY").map(|text| sourced(text, "KV_CONSISTENCY"));
    let profile = || {
        let text = found.profile.consistency.clone()?;
        Some(sourced(text, format!("consistency in {}", found.path.display())))
    };
    let Some(Sourced { value, from }) = environment.or_else(profile) else {
        return Ok(None);
    };
    let parsed = value.parse();
    parsed
        .map(Some)
        .map_err(|error| usage(format!("{from}: {value:?} is no consistency: {error}")))
}

fn urls(args: &ConnectionArgs, variable: Variable, found: &Found) -> Sourced<Vec<String>> {
    if !args.url.is_empty() {
        return sourced(args.url.iter().flat_map(|url| split_urls(url)).collect(), "--url");
    }
    if let Some(text) = variable("KV_URL") {
        return sourced(split_urls(&text), "KV_URL");
    }
    match &found.profile.url {
        Some(urls) => sourced(urls.list(), found.path.display().to_string()),
        None => sourced(vec![URL_DEFAULT.to_owned()], "the default"),
    }
}

fn user(args: &ConnectionArgs, variable: Variable, found: &Found) -> Option<Sourced<String>> {
    let flag = args.user.clone().map(|user| sourced(user, "--user"));
    let environment = || variable("KV_USER").map(|user| sourced(user, "KV_USER"));
    let profile = || {
        found
            .profile
            .user
            .clone()
            .map(|user| sourced(user, found.path.display().to_string()))
    };
    flag.or_else(environment).or_else(profile)
}

fn password(
    args: &ConnectionArgs,
    variable: Variable,
    found: &Found,
    user: &str,
) -> anyhow::Result<Option<Sourced<String>>> {
    if let Some(path) = &args.password_file {
        return Ok(Some(sourced(secret::read_password(path)?, path.display().to_string())));
    }
    if let Some(password) = variable("KV_PASSWORD") {
        return Ok(Some(sourced(password, "KV_PASSWORD")));
    }
    if let Some(path) = variable("KV_PASSWORD_FILE") {
        return Ok(Some(sourced(secret::read_password(path.as_ref())?, path)));
    }
    let profile = &found.profile;
    if profile.user.as_deref().is_some_and(|name| name != user) {
        return Ok(None);
    }
    if let Some(password) = &profile.password {
        return Ok(Some(sourced(password.clone(), found.path.display().to_string())));
    }
    let Some(path) = &profile.password_file else {
        return Ok(None);
    };
    let path = found
        .path
        .parent()
        .map_or_else(|| path.clone(), |folder| folder.join(path));
    Ok(Some(sourced(secret::read_password(&path)?, path.display().to_string())))
}

/// Says what is waited for, at the first call that takes long.
fn say_once(say: impl Fn(&str) + Send + Sync) -> impl Fn(&Waiting) + Send + Sync {
    let said = Once::new();
    move |waiting| {
        said.call_once(|| {
            say(&format!(
                "{}; waiting and trying again until the --deadline, {} s",
                waiting.why,
                waiting.deadline.as_secs_f32()
            ));
        });
    }
}

/// What fails for now is tried again until the deadline; but for an address at which there never was anybody, nobody wants to wait so long.
fn builder(target: &Target, args: &ConnectionArgs) -> ClientBuilder {
    let mut builder = Client::builder()
        .urls(target.urls.value.iter())
        .user(&target.user.value)
        .password(&target.password.value)
        .timeout(Duration::from_secs(args.timeout))
        .retries(u32::MAX)
        .retries_to_connect(RETRIES_TO_CONNECT);
    if let Some(consistency) = target.consistency {
        builder = builder.consistency(consistency);
    }
    if let Some(deadline) = args.deadline {
        builder = builder.deadline(deadline);
    }
    builder
}

/// A client, and what is needed to explain its failures.
pub struct Connection {
    pub client: Client,
    pub target: Target,
}

impl Connection {
    /// Sends nothing yet.
    pub fn new(args: &ConnectionArgs) -> anyhow::Result<Self> {
        Self::at_level(args, None)
    }

    /// The same, for a command on keys.
    pub fn to_keys(args: &KeyConnectionArgs) -> anyhow::Result<Self> {
        Self::at_level(&args.common, args.consistency)
    }

    fn at_level(args: &ConnectionArgs, level: Option<Consistency>) -> anyhow::Result<Self> {
        let folders = Folders::of_this_process();
        let target = with_environment(|variable| resolve(args, level, variable, &folders))?;
        let client = builder(&target, args);
        // A script may take what comes on standard error for a failure.
        let client = match io::stderr().is_terminal() {
            true => client.on_wait(NOTICE_AFTER, say_once(say)),
            false => client,
        };
        match client.build() {
            Ok(client) => Ok(Self { client, target }),
            Err(error) => Err(usage(format!("{error} (from {})", target.urls.from))),
        }
    }

    /// Adds to a failed call's error what to do about it, unless it says so already.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match self.advice(&error).filter(|_| !error.is::<Advice>()) {
            Some(advice) => error.context(Advice(advice)),
            None => error,
        }
    }

    /// The same for a change that nobody should ask for twice without a look. `doubt`: what to do when it may have been done.
    pub fn explain_change(&self, error: ClientError, doubt: &str) -> anyhow::Error {
        // What is no node has changed nothing.
        match error.is_in_doubt() && !matches!(error, ClientError::BadAnswer { .. }) {
            true => anyhow::Error::from(error).context(Advice(format!("it may have been done: {doubt}"))),
            false => self.explain(error.into()),
        }
    }

    /// What to do about a failed call, when that is known.
    pub fn advice(&self, error: &anyhow::Error) -> Option<String> {
        let error = error.downcast_ref::<ClientError>()?;
        advice(error, &self.target)
    }
}

/// Whether the address of a node, without a slash at its end, goes on after host and port.
fn has_path(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'))
}

/// What to do about it, when that is known.
fn advice(error: &ClientError, target: &Target) -> Option<String> {
    let urls = &target.urls;
    Some(match error {
        ClientError::Unreachable { .. } => format!(
            "is the node running? start one with `kv run-cluster`, or set another address with --url or KV_URL \
             (this one is from {})",
            urls.from
        ),
        ClientError::Broken { url, .. } if urls.value.len() > 1 => format!(
            "run the same command again; should {url} stay silent, put another address first (they are from {})",
            urls.from
        ),
        ClientError::Broken { .. } => "run the same command again".to_owned(),
        ClientError::Credentials { .. } => format!(
            "check the user {:?} (from {}) and the password (from {}) for {}",
            target.user.value,
            target.user.from,
            target.password.from,
            urls.value.join(",")
        ),
        ClientError::Forbidden { .. } => format!(
            "the user {:?} (from {}) may not do this; log in as an admin with --user and --password-file",
            target.user.value, target.user.from
        ),
        ClientError::Unavailable { .. } => "try again in a moment".to_owned(),
        ClientError::DiskFull { .. } => {
            "make room on the node's disk, or clear keys that are not needed; reads and `kv clear_key` go on".to_owned()
        }
        ClientError::NoSuchCall { url, .. } if has_path(url) => format!(
            "is this the address of a node? it is from {}, and has a path: that is for a proxy that takes it away; a node has none",
            urls.from
        ),
        ClientError::NoSuchCall { .. } | ClientError::BadAnswer { .. } => {
            format!("is this the address of a node? it is from {}", urls.from)
        }
        ClientError::Server { .. } => "the node's log says more".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
