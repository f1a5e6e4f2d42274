//! What the front needs from below: a node and its users. Static dispatch; in production it is [`Live`].

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

mod members;

use crate::api::ClusterStatus;
use crate::core::op::Text;
use crate::node::{Add, Added, Fragment, KeyPage, MemberChange, Node, OpError, Terms, ValueReader};
use crate::types::{Key, NodeId, RequestId, UserId};
use crate::users::{AuthError, Principal, UserInfo, Users, UsersError};

/// Why a call on the cluster was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error("this node is not part of a cluster")]
    Alone,
    #[error("there is no node {0:?} in the cluster")]
    Unknown(String),
    /// An address, say: which node has it is for the admin to find out.
    #[error(
        "there is no node {0:?}: a node is named here by its id, 16 hexadecimal digits, as `/cluster/status` has it"
    )]
    NoId(String),
    /// It makes no sense as things are.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] OpError),
}

/// A snapshot of one key's list, read piece by piece; see [`ValueReader`].
pub trait Reader: Send + 'static {
    fn next(&mut self, budget_bytes: usize) -> impl Future<Output = Result<Vec<Fragment>, OpError>> + Send;
    /// Nothing of it is sent before `sent`: so that long it may begin anew.
    fn until_sent(&mut self);
    fn sent(&mut self);
    /// Whether what came before the last piece is void.
    fn began_anew(&mut self) -> bool;
}

/// The methods of [`Node`] and [`Users`] under their own names.
pub trait Backend: Send + Sync + 'static {
    type Reader: Reader;

    fn add(
        &self,
        user: &UserId,
        key: &Key,
        text: Text,
        finish: bool,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> impl Future<Output = Result<Added, OpError>> + Send;
    fn add_series(
        &self,
        user: &UserId,
        key: &Key,
        adds: Vec<Add>,
        terms: Terms,
    ) -> impl Future<Output = Vec<Result<Added, OpError>>> + Send;
    fn clear(
        &self,
        user: &UserId,
        key: &Key,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> impl Future<Output = Result<(), OpError>> + Send;
    fn get(
        &self,
        user: &UserId,
        key: &Key,
        offset: u64,
        limit: u64,
        terms: Terms,
    ) -> impl Future<Output = Result<Self::Reader, OpError>> + Send;
    fn count(&self, user: &UserId, key: &Key, terms: Terms) -> impl Future<Output = Result<u64, OpError>> + Send;
    fn list_keys(
        &self,
        user: &UserId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        terms: Terms,
    ) -> impl Future<Output = Result<KeyPage, OpError>> + Send;
    /// Why it does not serve, if it does not.
    fn why_not_ready(&self) -> Option<String>;
    /// Why its word does not count for all that it holds, if it does not.
    fn why_not_counting(&self) -> Option<String>;
    fn commit_time(&self) -> Duration;

    fn verify(
        &self,
        user_id: &str,
        password_hash: &str,
        from: IpAddr,
    ) -> impl Future<Output = Result<Principal, AuthError>> + Send;
    /// What `asker` asks for; so are the other two.
    fn add_user(
        &self,
        asker: &Principal,
        user: &UserId,
        password_hash: &str,
        admin: bool,
        keep_data: bool,
    ) -> impl Future<Output = Result<(), UsersError>> + Send;
    fn remove_user(&self, asker: &Principal, user: &UserId) -> impl Future<Output = Result<(), UsersError>> + Send;
    fn set_password(
        &self,
        asker: &Principal,
        user: &UserId,
        password_hash: &str,
    ) -> impl Future<Output = Result<(), UsersError>> + Send;
    fn list_users(&self) -> impl Future<Output = Result<Vec<UserInfo>, UsersError>> + Send;

    fn cluster_status(&self) -> impl Future<Output = Result<ClusterStatus, ClusterError>> + Send;
    fn remove_node(&self, node: NodeId) -> impl Future<Output = Result<(), ClusterError>> + Send;
    fn replace_node(&self, old: NodeId, new: NodeId) -> impl Future<Output = Result<(), ClusterError>> + Send;
}

/// The real node and its users.
#[derive(Clone)]
pub struct Live {
    pub node: Node,
    pub users: Users,
}

impl Reader for ValueReader {
    async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        ValueReader::next(self, budget_bytes).await
    }

    fn until_sent(&mut self) {
        ValueReader::until_sent(self);
    }

    fn sent(&mut self) {
        ValueReader::sent(self);
    }

    fn began_anew(&mut self) -> bool {
        ValueReader::began_anew(self)
    }
}

impl Backend for Live {
    type Reader = ValueReader;

    async fn add(
        &self,
        user: &UserId,
        key: &Key,
        text: Text,
        finish: bool,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> Result<Added, OpError> {
        self.node.add(user, key, text, finish, request_id, terms).await
    }

    async fn add_series(&self, user: &UserId, key: &Key, adds: Vec<Add>, terms: Terms) -> Vec<Result<Added, OpError>> {
        self.node.add_series(user, key, adds, terms).await
    }

    async fn clear(
        &self,
        user: &UserId,
        key: &Key,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> Result<(), OpError> {
        self.node.clear(user, key, request_id, terms).await
    }

    async fn get(
        &self,
        user: &UserId,
        key: &Key,
        offset: u64,
        limit: u64,
        terms: Terms,
    ) -> Result<ValueReader, OpError> {
        self.node.get(user, key, offset, limit, terms).await
    }

    async fn count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        self.node.count(user, key, terms).await
    }

    async fn list_keys(
        &self,
        user: &UserId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        terms: Terms,
    ) -> Result<KeyPage, OpError> {
        self.node.list_keys(user, prefix, after, limit, terms).await
    }

    fn why_not_ready(&self) -> Option<String> {
        self.node.why_not_ready().or_else(|| self.users.why_not_ready())
    }

    fn why_not_counting(&self) -> Option<String> {
        self.node.why_not_counting().or_else(|| self.users.why_not_ready())
    }

    fn commit_time(&self) -> Duration {
        self.node.commit_time()
    }

    async fn verify(&self, user_id: &str, password_hash: &str, from: IpAddr) -> Result<Principal, AuthError> {
        self.users.verify(user_id, password_hash, from).await
    }

    async fn add_user(
        &self,
        asker: &Principal,
        user: &UserId,
        password_hash: &str,
        admin: bool,
        keep_data: bool,
    ) -> Result<(), UsersError> {
        let users = self.users.asked_by(asker);
        match keep_data {
            true => users.adopt(user, password_hash, admin).await,
            false => users.add(user, password_hash, admin).await,
        }
    }

    async fn remove_user(&self, asker: &Principal, user: &UserId) -> Result<(), UsersError> {
        self.users.asked_by(asker).remove(user).await
    }

    async fn set_password(&self, asker: &Principal, user: &UserId, password_hash: &str) -> Result<(), UsersError> {
        self.users.asked_by(asker).set_password(user, password_hash).await
    }

    async fn list_users(&self) -> Result<Vec<UserInfo>, UsersError> {
        self.users.list().await
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, ClusterError> {
        let cluster = self.node.cluster().ok_or(ClusterError::Alone)?;
        Ok(members::status_of(cluster.status().await))
    }

    async fn remove_node(&self, node: NodeId) -> Result<(), ClusterError> {
        let cluster = self.node.cluster().ok_or(ClusterError::Alone)?;
        let removed = cluster.change_members(MemberChange::Remove(node)).await;
        removed.map_err(members::refused)
    }

    async fn replace_node(&self, old: NodeId, new: NodeId) -> Result<(), ClusterError> {
        let cluster = self.node.cluster().ok_or(ClusterError::Alone)?;
        let replaced = cluster.change_members(MemberChange::Replace { old, new }).await;
        replaced.map_err(members::refused)
    }
}
