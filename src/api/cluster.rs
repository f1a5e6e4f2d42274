//! Bodies and answers of the calls on the cluster itself. All of them need an admin's credentials.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{User, accept};

/// Body of `cluster/status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AskClusterStatus<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::user",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<User<'a>>,
}

/// Body of `cluster/remove`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveNode<'a> {
    /// The id of a member: 16 hexadecimal digits.
    #[serde(borrow)]
    pub node: Cow<'a, str>,
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::user",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<User<'a>>,
}

/// Body of `cluster/replace`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceNode<'a> {
    /// The id of the member that is lost.
    #[serde(borrow)]
    pub old: Cow<'a, str>,
    /// The id of the empty node that takes its place.
    #[serde(borrow)]
    pub new: Cow<'a, str>,
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::user",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<User<'a>>,
}

/// The cluster as the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// Replicas of each key, where there are as many nodes.
    pub replication: u8,
    /// In the order of their ids.
    pub members: Vec<Member>,
}

/// One node; what it lags behind is behind the node that answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// 16 hexadecimal digits.
    pub node: String,
    /// Where the other nodes reach it.
    pub peer: String,
    /// Where clients reach it.
    pub http: String,
    pub zone: String,
    pub weight: u16,
    pub state: MemberState,
    /// Whether it is heard of now.
    pub alive: bool,
    /// Slots of which it is a replica.
    pub slots: u32,
    pub lag_ops: u64,
    pub lag_bytes: u64,
    pub lag_seconds: f64,
    /// Slots that have not synced with all their replicas since the node lost something.
    pub unsynced_slots: u32,
    /// Its clock against the one of the node that answers: positive when it is ahead.
    pub clock_skew_ms: i64,
    /// Files that were set aside because they are damaged.
    pub quarantined_segments: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    Up,
    /// Not a replica of anything yet.
    Joining,
    Removed,
}

impl MemberState {
    pub const NAMES: [&'static str; 3] = ["up", "joining", "removed"];

    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Joining => "joining",
            Self::Removed => "removed",
        }
    }
}
