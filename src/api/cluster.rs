//! Bodies and answers of the calls on the cluster itself. All of them need an admin's credentials.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{User, accept};

body! {
    /// Body of `cluster/status`.
    #[derive(Default)]
    pub struct AskClusterStatus {}
}

body! {
    /// Body of `cluster/remove`.
    pub struct RemoveNode {
        /// The id of a member: 16 hexadecimal digits.
        #[serde(borrow)]
        pub node: Cow<'a, str>,
    }
}

body! {
    /// Body of `cluster/replace`.
    pub struct ReplaceNode {
        /// The id of the member that is lost.
        #[serde(borrow)]
        pub old: Cow<'a, str>,
        /// The id of the empty node that takes its place.
        #[serde(borrow)]
        pub new: Cow<'a, str>,
    }
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

/// One node, as it tells of itself. What cannot be known, of one that does not answer, is absent.
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
    /// Ops that it lacks of what any other member has: those that it lacked when they last compared, and that did not come since. Absent
    /// while it has compared with nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ops: Option<u64>,
    /// An estimate: as many times the mean size of the ops that came to it from others since its start, or of those on its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// Since it last lacked nothing, or since its start. 0 when it lacks nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Slots that have not synced with all their replicas since the node lost something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsynced_slots: Option<u32>,
    /// Its clock against the one of the node that answers: positive when it is ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// Files that were set aside because they are damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined_segments: Option<u64>,
    /// Requests to it, since its start, for which too few replicas answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum_failures: Option<u64>,
    /// Ops that came to it from other replicas, live or to catch up, a second, over the last seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_ops_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_bytes_per_s: Option<f64>,
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
