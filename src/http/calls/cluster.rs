//! The calls on the cluster itself. For admins.

use hyper::StatusCode;

use crate::api::{AskClusterStatus, RemoveNode, ReplaceNode};
use crate::http::answer::Answer;
use crate::http::backend::{Backend, ClusterError};
use crate::http::failure::Failure;
use crate::http::request::Submitted;
use crate::types::{NODE_ID_TEXT_BYTES_MAX, NodeId, check_length};

use super::users::only_admins;

pub async fn status<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: AskClusterStatus = submitted.parse()?;
    let credentials = submitted.credentials(&body.user)?;
    only_admins(&submitted.authenticate(credentials).await?)?;
    Ok(Answer::of(&submitted.front.backend.cluster_status().await?))
}

pub async fn remove<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: RemoveNode = submitted.parse()?;
    let node = named(submitted, &body.node)?;
    let credentials = submitted.credentials(&body.user)?;
    only_admins(&submitted.authenticate(credentials).await?)?;
    submitted.front.backend.remove_node(node?).await?;
    Ok(Answer::status_ok())
}

pub async fn replace<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: ReplaceNode = submitted.parse()?;
    let (old, new) = (named(submitted, &body.old)?, named(submitted, &body.new)?);
    let credentials = submitted.credentials(&body.user)?;
    only_admins(&submitted.authenticate(credentials).await?)?;
    submitted.front.backend.replace_node(old?, new?).await?;
    Ok(Answer::status_ok())
}

/// A text that is no id names no node; that is only said to an admin.
fn named<B: Backend>(submitted: &Submitted<'_, B>, text: &str) -> Result<Result<NodeId, ClusterError>, Failure> {
    check_length(text, NODE_ID_TEXT_BYTES_MAX).map_err(|error| submitted.reject(error))?;
    Ok(text.parse().map_err(|_| ClusterError::NoId(text.to_owned())))
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Unknown(_) | ClusterError::NoId(_) => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            ClusterError::Alone | ClusterError::Refused(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            ClusterError::Store(error) => Self::of_members(error),
        }
    }
}
