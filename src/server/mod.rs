//! A whole node as one thing: storage, users and the HTTP front under one supervision tree.
//!
//! ```text
//! root ── node supervisor ── shard actors, one per shard and one for the system's own key range
//!      └─ front actor (hyper)
//! ```
//!
//! The front is started again when it dies. When the node's supervisor dies, nothing is known any more, and the root ends: `failed`
//! says so, and the process should too.

mod front_actor;
mod root;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use ractor::{Actor, ActorRef};
use tokio::sync::{oneshot, watch};

use crate::env::Env;
use crate::http::{FrontConfig, Live};
use crate::node::{Node, NodeConfig, OpError, StartError};
use crate::types::UserId;
use crate::users::{AwaitedAdmin, PasswordCost, Users, UsersError};

use root::{Root, RootArguments, RootMessage};

/// The user that is made when there is none of that name.
#[derive(Debug, Clone)]
pub struct FirstAdmin {
    pub user: UserId,
    pub password_hash: String,
}

#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub node: NodeConfig,
    pub front: FrontConfig,
    pub listen: SocketAddr,
    pub first_admin: Option<FirstAdmin>,
    pub password_cost: PasswordCost,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Node(#[from] StartError),
    #[error("the first admin could not be made: {0}")]
    FirstAdmin(#[from] UsersError),
    #[error("cannot listen on {address}: {why}")]
    Listen { address: SocketAddr, why: String },
}

/// Between two tries to make the first admin.
const ADMIN_PAUSE: Duration = Duration::from_millis(100);
/// The same of a node of its own, where what is in the way may stay for long: a removal, or damage.
const ADMIN_PAUSE_ALONE: Duration = Duration::from_secs(1);
/// How long a founder waits for its first admin before it listens all the same; it is ready only when somebody can log in.
const FOUNDING_MAX: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    address: SocketAddr,
    node: Node,
    users: Users,
    root: ActorRef<RootMessage>,
    /// Why the root ended, once it did without being asked.
    failure: watch::Receiver<Option<String>>,
}

impl Server {
    /// Starts everything; Ok when it serves.
    pub async fn start(env: Env, config: ServerConfig) -> Result<Self, ServerError> {
        // Before there are files: which of them there are depends on how it is started.
        let listening = env.net.listen(config.listen).await;
        drop(listening.map_err(|error| ServerError::Listen {
            address: config.listen,
            why: error.to_string(),
        })?);
        let node = Node::start(env.clone(), config.node).await?;
        let users = Users::start(env.clone(), node.clone(), config.password_cost.clone());
        if let Some(admin) = config.first_admin
            && let Err(error) = see_to_admin(&node, &users, admin).await
        {
            node.stop().await;
            return Err(error.into());
        }
        let (failed, failure) = watch::channel(None);
        let arguments = RootArguments {
            env,
            front: config.front,
            listen: config.listen,
            live: Live {
                node: node.clone(),
                users: users.clone(),
            },
            failed,
        };
        let started = Actor::spawn(None, Root, arguments).await;
        let root = match started {
            Ok((root, _)) => root,
            Err(error) => {
                node.stop().await;
                return Err(ServerError::Listen {
                    address: config.listen,
                    why: root::startup_cause(error).to_string(),
                });
            }
        };
        let (reply, address) = oneshot::channel();
        let asked = root.cast(RootMessage::Address { reply });
        let address = match asked {
            Ok(()) => address.await.unwrap_or(config.listen),
            Err(_) => config.listen,
        };
        Ok(Self {
            address,
            node,
            users,
            root,
            failure,
        })
    }

    /// What it listens on: the port is the real one also where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Returns, with the reason, when the server can no longer serve. Dropping the future is fine.
    pub async fn failed(&mut self) -> String {
        match self.failure.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "its supervisor is gone".to_owned(),
        }
    }

    /// Takes no new requests, finishes what is in flight, and closes the files.
    pub async fn stop(self) {
        let (done, stopped) = oneshot::channel();
        if self.root.cast(RootMessage::Stop { done }).is_ok() {
            // If the root is gone, there is no front left to wait for.
            let _ = stopped.await;
        }
        self.node.stop().await;
    }
}

/// Makes the first admin, now or later. An error when it never can be made.
async fn see_to_admin(node: &Node, users: &Users, admin: FirstAdmin) -> Result<(), UsersError> {
    let later = |admin, pause, awaited| {
        let made = ensure_admin_soon(node.clone(), users.clone(), admin, pause, awaited);
        tokio::spawn(made)
    };
    if node.cluster().is_some() {
        let awaited = users.await_admin(&admin.user);
        let made = later(admin, ADMIN_PAUSE, Some(awaited));
        // Whoever founds a cluster wants to log in next. A member that comes back may have to wait for the others.
        if node.local().life().is_fresh {
            let _ = tokio::time::timeout(FOUNDING_MAX, made).await;
        }
        return Ok(());
    }
    match users.ensure_admin(&admin.user, &admin.password_hash).await {
        Ok(_) => Ok(()),
        Err(error) if is_for_good(&error) => Err(error),
        Err(error) => {
            // Other users, and what can be read, are served all the same; and only a node that runs ends a removal.
            tracing::error!(%error, "the user that the start gave is not made, or not known to be there; this is tried again");
            later(admin, ADMIN_PAUSE_ALONE, None);
            Ok(())
        }
    }
}

/// It is what the start gave that is wrong.
fn is_for_good(error: &UsersError) -> bool {
    matches!(error, UsersError::Name(_) | UsersError::PasswordHash(_))
}

/// Makes the first admin as soon as it can be made. Until then, or until it is known to be there, it is awaited.
async fn ensure_admin_soon(
    node: Node,
    users: Users,
    admin: FirstAdmin,
    pause: Duration,
    mut awaited: Option<AwaitedAdmin>,
) {
    loop {
        if node.takes_part() {
            if awaited.is_some() && users.is_there(&admin.user).await {
                awaited = None;
            }
            match users.ensure_admin(&admin.user, &admin.password_hash).await {
                Ok(_) => return,
                // Where it is another node that goes down, this one goes on.
                Err(UsersError::Store(OpError::ShuttingDown)) if !node.local().is_ready() => return,
                Err(error) if is_for_good(&error) => {
                    return tracing::error!(%error, "the first admin cannot be made");
                }
                Err(error) => tracing::debug!(%error, "the first admin cannot be made yet"),
            }
        }
        tokio::time::sleep(pause).await;
    }
}
