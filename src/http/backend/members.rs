//! The cluster as the API shows it.

use crate::api::{ClusterStatus, Member, MemberState};
use crate::node::cluster::{self, MemberRefused, MemberStatus};

use super::ClusterError;

/// What the node says, as the API writes it.
pub(super) fn status_of(status: cluster::ClusterStatus) -> ClusterStatus {
    let mut members: Vec<Member> = status.members.into_iter().map(member_of).collect();
    members.sort_by(|a, b| a.node.cmp(&b.node));
    ClusterStatus {
        cluster: status.name,
        node: status.node.to_string(),
        replication: u8::try_from(status.replication).unwrap_or(u8::MAX),
        members,
    }
}

fn member_of(member: MemberStatus) -> Member {
    let own = member.own.as_ref();
    Member {
        node: member.node.to_string(),
        peer: member.peer.to_string(),
        http: member.http.to_string(),
        zone: member.zone,
        weight: u16::try_from(member.weight).unwrap_or(u16::MAX),
        state: match member.state {
            Some(cluster::MemberState::Up) => MemberState::Up,
            Some(cluster::MemberState::Removed) => MemberState::Removed,
            Some(cluster::MemberState::Displaced) | None => MemberState::Joining,
        },
        alive: member.alive,
        slots: u32::try_from(member.slots).unwrap_or(u32::MAX),
        lag_ops: own.and_then(|own| own.lag_ops),
        lag_bytes: own.and_then(|own| own.lag_bytes),
        lag_seconds: own.and_then(|own| own.lag_seconds),
        unsynced_slots: own.map(|own| u32::try_from(own.unsynced_slots).unwrap_or(u32::MAX)),
        clock_skew_ms: member.clock_skew_ms,
        quarantined_segments: own.map(|own| own.quarantined_segments),
        quorum_failures: own.and_then(|own| own.quorum_failures),
        stream_ops_per_s: own.and_then(|own| own.stream_ops_per_s),
        stream_bytes_per_s: own.and_then(|own| own.stream_bytes_per_s),
    }
}

pub(super) fn refused(refused: MemberRefused) -> ClusterError {
    match refused {
        MemberRefused::Unknown(node) => ClusterError::Unknown(node.to_string()),
        MemberRefused::Store(error) => ClusterError::Store(error),
        refused => ClusterError::Refused(refused.to_string()),
    }
}
