//! The settings' names: in a file, as a flag, as a variable.

/// One setting; the name in the file, and with dashes the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    Data,
    Listen,
    User,
    PasswordFile,
    Shards,
    Threads,
    BlockCacheBytes,
    ActiveSegmentBytes,
    LogFormat,
    LogFilter,
    ClusterListen,
    Advertise,
    Join,
    ClusterKeyFile,
    ClusterTls,
    Zone,
    Weight,
    Replication,
    ClusterName,
}

impl Setting {
    pub const ALL: [Self; 19] = [
        Self::Data,
        Self::Listen,
        Self::User,
        Self::PasswordFile,
        Self::Shards,
        Self::Threads,
        Self::BlockCacheBytes,
        Self::ActiveSegmentBytes,
        Self::LogFormat,
        Self::LogFilter,
        Self::ClusterListen,
        Self::Advertise,
        Self::Join,
        Self::ClusterKeyFile,
        Self::ClusterTls,
        Self::Zone,
        Self::Weight,
        Self::Replication,
        Self::ClusterName,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Listen => "listen",
            Self::User => "user",
            Self::PasswordFile => "password_file",
            Self::Shards => "shards",
            Self::Threads => "threads",
            Self::BlockCacheBytes => "block_cache_bytes",
            Self::ActiveSegmentBytes => "active_segment_bytes",
            Self::LogFormat => "log_format",
            Self::LogFilter => "log_filter",
            Self::ClusterListen => "cluster_listen",
            Self::Advertise => "advertise",
            Self::Join => "join",
            Self::ClusterKeyFile => "cluster_key_file",
            Self::ClusterTls => "cluster_tls",
            Self::Zone => "zone",
            Self::Weight => "weight",
            Self::Replication => "replication",
            Self::ClusterName => "cluster_name",
        }
    }

    /// `KV_ADMIN_…` for the first admin: `KV_USER` is who the client commands speak as, perhaps in the same shell.
    pub fn variable(self) -> String {
        match self {
            Self::User => "KV_ADMIN_USER".to_owned(),
            Self::PasswordFile => "KV_ADMIN_PASSWORD_FILE".to_owned(),
            _ => format!("KV_{}", self.name().to_uppercase()),
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(
            self,
            Self::Shards
                | Self::Threads
                | Self::BlockCacheBytes
                | Self::ActiveSegmentBytes
                | Self::Weight
                | Self::Replication
        )
    }

    /// What its value in a file may be.
    pub(super) fn shape(self) -> &'static str {
        match self {
            Self::Join => "a text or a list of texts",
            _ if self.is_number() => "a text or a whole number",
            _ => "a text",
        }
    }

    pub fn flag(self) -> String {
        format!("--{}", self.name().replace('_', "-"))
    }
}
