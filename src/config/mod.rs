//! The settings of `kv serve`: from flags, over the environment, over a file; validated once, then plain fields.
//!
//! Invariant: a `ServeConfig` is usable as it is; every error names the setting, where it came from and what would be right.

mod cluster;
mod setting;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use values::{bytes, log_filter, log_format};

use crate::types::{SHARDS_MAX, UserId};

pub use cluster::{ClusterSettings, REPLICATION_DEFAULT, REPLICATION_MAX, WEIGHT_DEFAULT, ZONE_DEFAULT};
pub use setting::Setting;

pub const LISTEN_DEFAULT: &str = "127.0.0.1:8000";
pub const DATA_DEFAULT: &str = "data";
/// By default a node has a shard for each processor, and no more than so many: each has memory of its own.
pub const SHARDS_DEFAULT_MAX: u16 = 16;
/// One waits for the disk while another one goes on.
pub const THREADS_MIN: usize = 2;
pub const THREADS_MAX: usize = 1024;
/// Decompressed blocks kept in memory.
pub const BLOCK_CACHE_BYTES_DEFAULT: u64 = 64 * MIB;
/// Less than this holds too few blocks for reads that run at the same time.
pub const BLOCK_CACHE_BYTES_MIN: u64 = MIB;
/// Size at which a shard's active segment is sealed.
pub const ACTIVE_SEGMENT_BYTES_DEFAULT: u64 = 8 * MIB;
/// Smaller ones would be sealed all the time. (An op that is larger than this gets a log of its own.)
pub const ACTIVE_SEGMENT_BYTES_MIN: u64 = MIB;
/// Beyond this, sealing would need too much memory at once.
pub const ACTIVE_SEGMENT_BYTES_MAX: u64 = 1024 * MIB;
const MIB: u64 = 1024 * 1024;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Flag,
    Variable,
    File(PathBuf),
}

/// A setting's text, not validated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    text: String,
    source: Source,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {text:?} is not valid: {why}", place(*.setting, .given_by))]
    Invalid {
        setting: Setting,
        given_by: Source,
        text: String,
        why: String,
    },
    #[error("{} is given, but {} is not: the first admin needs both", place(*.given, .given_by), named(*.missing, .given_by))]
    HalfAnAdmin {
        given: Setting,
        given_by: Source,
        missing: Setting,
    },
    #[error(
        "{} is given, but {} is not: without it this node belongs to no cluster; give it, or leave {} out",
        place(*.given, .given_by), named(Setting::ClusterListen, .given_by), named(*.given, .given_by)
    )]
    NoCluster { given: Setting, given_by: Source },
    #[error(
        "{} is given, but {} is not: the nodes of a cluster know each other by a key; `kv cluster keygen FILE` makes one, to be \
         copied to all of them", place(Setting::ClusterListen, .given_by), named(Setting::ClusterKeyFile, .given_by)
    )]
    NoClusterKey { given_by: Source },
    #[error(
        "{}: {listen} is no address that other nodes could reach: give the one of this machine with {}",
        place(Setting::ClusterListen, .given_by), named(Setting::Advertise, .given_by)
    )]
    NothingToAdvertise { listen: SocketAddr, given_by: Source },
    #[error(
        "{}, {nodes}, and {}, {clients}, are one address: give each its own port",
        place(Setting::ClusterListen, .nodes_by), place(Setting::Listen, .clients_by)
    )]
    SharedAddress {
        clients: SocketAddr,
        clients_by: Source,
        nodes: SocketAddr,
        nodes_by: Source,
    },
    #[error("{}: unknown setting {name:?}; there are: {}", path.display(), names())]
    UnknownKey { path: PathBuf, name: String },
    #[error("{}: {name} must be {must_be}", path.display())]
    NotPlain {
        path: PathBuf,
        name: String,
        must_be: &'static str,
    },
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
}

fn place(setting: Setting, source: &Source) -> impl fmt::Display {
    match source {
        Source::Flag => setting.flag(),
        Source::Variable => format!("the environment variable {}", setting.variable()),
        Source::File(path) => format!("{} in {}", setting.name(), path.display()),
    }
}

/// A setting as it would be written where another one came from.
fn named(setting: Setting, source: &Source) -> String {
    match source {
        Source::Flag => setting.flag(),
        Source::Variable => setting.variable(),
        Source::File(_) => setting.name().to_owned(),
    }
}

fn names() -> String {
    Setting::ALL.map(Setting::name).join(", ")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The user that is made on the first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAdmin {
    pub user: UserId,
    pub password_file: PathBuf,
}

/// All settings of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub first_admin: Option<FirstAdmin>,
    /// Counts only when the data folder is created.
    pub shards: u16,
    /// Of the runtime.
    pub threads: usize,
    pub block_cache_bytes: u64,
    pub active_segment_bytes: u64,
    pub log_format: LogFormat,
    /// Directives as tracing's `EnvFilter` takes them.
    pub log_filter: String,
    /// None: a node of its own.
    pub cluster: Option<ClusterSettings>,
}

/// The text of the settings from all sources; build it from the strongest source to the weakest.
#[derive(Debug, Default)]
pub struct Settings {
    given: BTreeMap<Setting, Given>,
}

impl Settings {
    /// Gives `setting` a text, unless a stronger source already did.
    pub fn offer(&mut self, setting: Setting, text: impl Into<String>, source: Source) {
        let text = text.into();
        self.given.entry(setting).or_insert(Given { text, source });
    }

    pub fn offer_environment(&mut self, variable: impl Fn(&str) -> Option<String>) {
        for setting in Setting::ALL {
            // An empty one is as good as none, for whoever cannot unset it.
            if let Some(text) = variable(&setting.variable()).filter(|text| !text.is_empty()) {
                self.offer(setting, text, Source::Variable);
            }
        }
    }

    /// `text` is TOML, read from `path`. Paths in it are relative to the folder of the file.
    pub fn offer_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let path_buf = || path.to_path_buf();
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::File {
            path: path_buf(),
            why: error.to_string(),
        })?;
        for (name, value) in table {
            let Some(setting) = Setting::ALL.into_iter().find(|setting| setting.name() == name) else {
                return Err(ConfigError::UnknownKey { path: path_buf(), name });
            };
            let not_plain = |name| ConfigError::NotPlain {
                path: path_buf(),
                name,
                must_be: setting.shape(),
            };
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) if setting.is_number() => number.to_string(),
                toml::Value::Array(list) if setting == Setting::Join => match texts(&list) {
                    Some(texts) => texts.join(","),
                    None => return Err(not_plain(name)),
                },
                _ => return Err(not_plain(name)),
            };
            let text = match setting {
                Setting::Data | Setting::PasswordFile | Setting::ClusterKeyFile | Setting::ClusterTls => {
                    beside(path, &text)
                }
                _ => text,
            };
            self.offer(setting, text, Source::File(path_buf()));
        }
        Ok(())
    }

    /// Validates everything.
    pub fn into_config(self) -> Result<ServeConfig, ConfigError> {
        let segment_range = ACTIVE_SEGMENT_BYTES_MIN..=ACTIVE_SEGMENT_BYTES_MAX;
        let cache_range = BLOCK_CACHE_BYTES_MIN..=u64::MAX;
        let listen = self.get(Setting::Listen, LISTEN_DEFAULT, address)?;
        Ok(ServeConfig {
            data: self.get(Setting::Data, DATA_DEFAULT, path)?,
            listen,
            first_admin: self.first_admin()?,
            shards: self.get(Setting::Shards, &shards_default(1).to_string(), |text| {
                whole(text, 1, SHARDS_MAX)
            })?,
            threads: self.get(Setting::Threads, &threads_default(1).to_string(), |text| {
                whole(text, THREADS_MIN, THREADS_MAX)
            })?,
            block_cache_bytes: self.get(
                Setting::BlockCacheBytes,
                &BLOCK_CACHE_BYTES_DEFAULT.to_string(),
                |text| bytes(text, &cache_range),
            )?,
            active_segment_bytes: self.get(
                Setting::ActiveSegmentBytes,
                &ACTIVE_SEGMENT_BYTES_DEFAULT.to_string(),
                |text| bytes(text, &segment_range),
            )?,
            log_format: self.get(Setting::LogFormat, "text", log_format)?,
            log_filter: self.get(Setting::LogFilter, "info", log_filter)?,
            cluster: self.cluster(listen)?,
        })
    }

    fn has(&self, setting: Setting) -> bool {
        self.given.contains_key(&setting)
    }

    /// Of a default: a flag can change it.
    fn source_of(&self, setting: Setting) -> Source {
        let given = self.given.get(&setting);
        given.map_or(Source::Flag, |given| given.source.clone())
    }

    fn get<T>(
        &self,
        setting: Setting,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let given = self.given.get(&setting);
        let text = given.map_or(default, |given| given.text.as_str());
        parse(text).map_err(|why| ConfigError::Invalid {
            setting,
            given_by: self.source_of(setting),
            text: text.to_owned(),
            why,
        })
    }

    fn first_admin(&self) -> Result<Option<FirstAdmin>, ConfigError> {
        let half = |given, missing| {
            Err(ConfigError::HalfAnAdmin {
                given,
                given_by: self.source_of(given),
                missing,
            })
        };
        match (self.has(Setting::User), self.has(Setting::PasswordFile)) {
            (false, false) => Ok(None),
            (true, false) => half(Setting::User, Setting::PasswordFile),
            (false, true) => half(Setting::PasswordFile, Setting::User),
            (true, true) => Ok(Some(FirstAdmin {
                user: self.get(Setting::User, "", |text| {
                    UserId::new(text).map_err(|error| error.to_string())
                })?,
                password_file: self.get(Setting::PasswordFile, "", path)?,
            })),
        }
    }
}

/// None when something else is among them.
fn texts(list: &[toml::Value]) -> Option<Vec<&str>> {
    list.iter().map(toml::Value::as_str).collect()
}

/// `text` as a path, relative to the folder of `file`.
fn beside(file: &Path, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    folder.join(text).to_string_lossy().into_owned()
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub fn address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    local
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| "write it as ADDRESS:PORT, such as 127.0.0.1:8000 or [::1]:8000".to_owned())
}

/// Of this machine, as far as this process may use them.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Threads of a node's runtime when nothing else is asked for and so many nodes share this machine: one more than a node has processors. Shards
/// sync their logs on these threads, and a thread that waits for the disk leaves its processor to another.
pub fn threads_default(nodes: usize) -> usize {
    (processors() / nodes.max(1) + 1).clamp(THREADS_MIN, THREADS_MAX)
}

/// Shards of a new data folder when nothing else is asked for and so many nodes share this machine: one for each processor that a node has.
pub fn shards_default(nodes: usize) -> u16 {
    u16::try_from(processors() / nodes.max(1))
        .unwrap_or(SHARDS_DEFAULT_MAX)
        .clamp(1, SHARDS_DEFAULT_MAX)
}

fn whole<T: FromStr + PartialOrd + fmt::Display>(text: &str, min: T, max: T) -> Result<T, String> {
    match text.parse() {
        Ok(number) if min <= number && number <= max => Ok(number),
        _ => Err(format!("write a number from {min} to {max}")),
    }
}

#[cfg(test)]
mod tests;
