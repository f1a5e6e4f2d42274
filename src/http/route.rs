//! Which call a method and a path name.

use hyper::Method;

use crate::api::path;

use super::shape::{self, Shape};

/// In the query of `/readyz`: asks also whether the node votes.
pub const COUNTS: &str = "counts";

/// Everything that can be asked for, in the order of `/openapi.json` and `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    AddValue,
    GetValue,
    ClearKey,
    ListKeys,
    Batch,
    UsersList,
    UsersAdd,
    UsersRemove,
    UsersPasswd,
    ClusterStatus,
    ClusterRemove,
    ClusterReplace,
    Healthz,
    Readyz,
    Metrics,
    OpenApi,
    /// A path that names nothing.
    Unknown,
}

impl Call {
    pub const ALL: [Call; 17] = [
        Call::AddValue,
        Call::GetValue,
        Call::ClearKey,
        Call::ListKeys,
        Call::Batch,
        Call::UsersList,
        Call::UsersAdd,
        Call::UsersRemove,
        Call::UsersPasswd,
        Call::ClusterStatus,
        Call::ClusterRemove,
        Call::ClusterReplace,
        Call::Healthz,
        Call::Readyz,
        Call::Metrics,
        Call::OpenApi,
        Call::Unknown,
    ];

    pub fn of_path(path: &str) -> Self {
        match path {
            path::ADD_VALUE => Self::AddValue,
            path::GET_VALUE => Self::GetValue,
            path::CLEAR_KEY => Self::ClearKey,
            path::LIST_KEYS => Self::ListKeys,
            path::BATCH => Self::Batch,
            path::USERS_LIST => Self::UsersList,
            path::USERS_ADD => Self::UsersAdd,
            path::USERS_REMOVE => Self::UsersRemove,
            path::USERS_PASSWD => Self::UsersPasswd,
            path::CLUSTER_STATUS => Self::ClusterStatus,
            path::CLUSTER_REMOVE => Self::ClusterRemove,
            path::CLUSTER_REPLACE => Self::ClusterReplace,
            path::HEALTHZ => Self::Healthz,
            path::READYZ => Self::Readyz,
            path::METRICS => Self::Metrics,
            path::OPENAPI => Self::OpenApi,
            _ => Self::Unknown,
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::AddValue => path::ADD_VALUE,
            Self::GetValue => path::GET_VALUE,
            Self::ClearKey => path::CLEAR_KEY,
            Self::ListKeys => path::LIST_KEYS,
            Self::Batch => path::BATCH,
            Self::UsersList => path::USERS_LIST,
            Self::UsersAdd => path::USERS_ADD,
            Self::UsersRemove => path::USERS_REMOVE,
            Self::UsersPasswd => path::USERS_PASSWD,
            Self::ClusterStatus => path::CLUSTER_STATUS,
            Self::ClusterRemove => path::CLUSTER_REMOVE,
            Self::ClusterReplace => path::CLUSTER_REPLACE,
            Self::Healthz => path::HEALTHZ,
            Self::Readyz => path::READYZ,
            Self::Metrics => path::METRICS,
            Self::OpenApi => path::OPENAPI,
            Self::Unknown => "",
        }
    }

    /// The label of its metrics and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            known => known.path().trim_start_matches('/'),
        }
    }

    /// The shape of its body; None for what is asked with GET.
    pub fn shape(self) -> Option<&'static Shape> {
        match self {
            Self::AddValue => Some(&shape::ADD_VALUE),
            Self::GetValue => Some(&shape::GET_VALUE),
            Self::ClearKey => Some(&shape::CLEAR_KEY),
            Self::ListKeys => Some(&shape::LIST_KEYS),
            Self::Batch => Some(&shape::BATCH),
            Self::UsersList => Some(&shape::USERS_LIST),
            Self::UsersAdd => Some(&shape::USERS_ADD),
            Self::UsersRemove => Some(&shape::USERS_REMOVE),
            Self::UsersPasswd => Some(&shape::USERS_PASSWD),
            Self::ClusterStatus => Some(&shape::CLUSTER_STATUS),
            Self::ClusterRemove => Some(&shape::CLUSTER_REMOVE),
            Self::ClusterReplace => Some(&shape::CLUSTER_REPLACE),
            Self::Healthz | Self::Readyz | Self::Metrics | Self::OpenApi | Self::Unknown => None,
        }
    }

    /// The value of `Allow`.
    pub fn allow(self) -> &'static str {
        if self.shape().is_some() { "POST" } else { "GET, HEAD" }
    }

    pub fn takes(self, method: &Method) -> bool {
        if self.shape().is_some() {
            method == Method::POST
        } else {
            method == Method::GET || method == Method::HEAD
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_found_under_its_path() {
        for (index, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(Call::of_path(call.path()), call);
            assert_eq!(call as usize, index);
        }
        assert_eq!(Call::of_path("/add_value/"), Call::Unknown);
    }
}
