//! The actor above the listener and the replicators: one replicator for each link there is, and a new one for one that died.
//!
//! Invariant: which links there are is decided by `Shared::links` alone; whatever was said before, the actor makes the replicators fit what
//! stands there now.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use super::link::Link;
use super::listener::{ListenerActor, ListenerArguments};
use super::owned_task::TaskEnded;
use super::replicator::{Replicator, ReplicatorArguments};
use super::shared::Shared;
use crate::env;
use crate::types::NodeId;

/// The pause before a dead actor is started again: it died of a bug, which may strike again at once.
const RESTART_PAUSE_MS: u64 = 100;

pub enum PeersMessage {
    /// The links have changed, or something has to be started again.
    Fit,
    /// Answered when nothing runs any more.
    Stop { done: oneshot::Sender<()> },
    /// For tests: let the replicator of this peer die.
    #[cfg(test)]
    Kill(NodeId),
    #[cfg(test)]
    KillListener,
}

pub struct PeersArguments {
    pub shared: Arc<Shared>,
    /// Where the socket listens.
    pub address: SocketAddr,
    pub socket: Box<dyn env::Listener>,
}

struct Running {
    actor: ActorRef<TaskEnded>,
    link: Arc<Link>,
    address: SocketAddr,
}

pub struct PeersState {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<ActorRef<TaskEnded>>,
    replicators: BTreeMap<NodeId, Running>,
}

pub struct PeersSupervisor;

impl Actor for PeersSupervisor {
    type Msg = PeersMessage;
    type State = PeersState;
    type Arguments = PeersArguments;

    async fn pre_start(
        &self,
        me: ActorRef<PeersMessage>,
        arguments: PeersArguments,
    ) -> Result<PeersState, ActorProcessingErr> {
        let PeersArguments {
            shared,
            address,
            socket,
        } = arguments;
        let mut state = PeersState {
            shared,
            address,
            listener: None,
            replicators: BTreeMap::new(),
        };
        state.start_listener(&me, Some(socket)).await?;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<PeersMessage>,
        message: PeersMessage,
        state: &mut PeersState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PeersMessage::Fit => state.fit(&me).await?,
            PeersMessage::Stop { done } => {
                state.stop().await;
                me.stop(None);
                let _ = done.send(());
            }
            #[cfg(test)]
            PeersMessage::Kill(node) => state.replicators[&node].actor.kill(),
            #[cfg(test)]
            PeersMessage::KillListener => state.listener.iter().for_each(|listener| listener.kill()),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<PeersMessage>,
        event: SupervisionEvent,
        state: &mut PeersState,
    ) -> Result<(), ActorProcessingErr> {
        let (who, why) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who, error.to_string()),
            SupervisionEvent::ActorTerminated(who, _, reason) => (who, reason.unwrap_or_else(|| "it ended".to_owned())),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let id = who.get_id();
        let replicators = state.replicators.len();
        state.replicators.retain(|_, running| running.actor.get_id() != id);
        let listener = state.listener.take_if(|listener| listener.get_id() == id);
        // Those that were told to stop are not there any more.
        if listener.is_some() || state.replicators.len() < replicators {
            tracing::error!(why, "an actor between nodes died; it is started again");
            me.send_after(Duration::from_millis(RESTART_PAUSE_MS), || PeersMessage::Fit);
        }
        Ok(())
    }
}

impl PeersState {
    async fn start_listener(
        &mut self,
        me: &ActorRef<PeersMessage>,
        socket: Option<Box<dyn env::Listener>>,
    ) -> Result<(), ActorProcessingErr> {
        let arguments = ListenerArguments {
            shared: self.shared.clone(),
            address: self.address,
            socket,
        };
        let (actor, _) = Actor::spawn_linked(None, ListenerActor, arguments, me.get_cell()).await?;
        self.listener = Some(actor);
        Ok(())
    }

    async fn fit(&mut self, me: &ActorRef<PeersMessage>) -> Result<(), ActorProcessingErr> {
        if self.listener.is_none()
            && let Err(error) = self.start_listener(me, None).await
        {
            tracing::error!(%error, "nobody listens for other nodes; it is tried again");
            me.send_after(Duration::from_millis(RESTART_PAUSE_MS), || PeersMessage::Fit);
        }
        let links = self.shared.links.load_full();
        let fits = |running: &Running| {
            let peer = links.get(&running.link.node);
            peer.is_some_and(|peer| Arc::ptr_eq(&peer.0, &running.link) && *peer.0.address.lock() == running.address)
        };
        for (_, running) in self.replicators.extract_if(.., |_, running| !fits(running)) {
            let _ = running.actor.stop_and_wait(None, None).await;
        }
        for (node, peer) in &*links {
            if !self.replicators.contains_key(node) {
                self.start_replicator(me, peer.0.clone()).await?;
            }
        }
        Ok(())
    }

    async fn start_replicator(
        &mut self,
        me: &ActorRef<PeersMessage>,
        link: Arc<Link>,
    ) -> Result<(), ActorProcessingErr> {
        let address = *link.address.lock();
        let arguments = ReplicatorArguments {
            shared: self.shared.clone(),
            link: link.clone(),
            address,
        };
        // No name: ractor's registry is global to the process, and one process may hold many nodes.
        let (actor, _) = Actor::spawn_linked(None, Replicator, arguments, me.get_cell()).await?;
        let running = Running { actor, link, address };
        self.replicators.insert(running.link.node, running);
        Ok(())
    }

    async fn stop(&mut self) {
        self.shared.links.store(Arc::default());
        for (_, running) in std::mem::take(&mut self.replicators) {
            let _ = running.actor.stop_and_wait(None, None).await;
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.stop_and_wait(None, None).await;
        }
    }
}
