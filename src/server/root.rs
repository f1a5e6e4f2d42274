//! The root of the supervision tree.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::{oneshot, watch};

use super::front_actor::{FrontActor, FrontArguments, FrontMessage};
use crate::env::Env;
use crate::http::{Front, FrontConfig, Live};

/// Before the front is started again; the port may need a moment to be free.
const FRONT_RESTART_PAUSE_MS: u64 = 100;

pub struct RootArguments {
    pub env: Env,
    pub front: FrontConfig,
    pub listen: SocketAddr,
    pub live: Live,
    pub failed: watch::Sender<Option<String>>,
}

pub enum RootMessage {
    Address { reply: oneshot::Sender<SocketAddr> },
    RestartFront,
    Stop { done: oneshot::Sender<()> },
}

pub struct RootState {
    env: Env,
    front: Arc<Front<Live>>,
    address: SocketAddr,
    front_actor: Option<ActorRef<FrontMessage>>,
    failed: watch::Sender<Option<String>>,
    stopping: bool,
}

pub struct Root;

impl Actor for Root {
    type Msg = RootMessage;
    type State = RootState;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        me: ActorRef<RootMessage>,
        arguments: RootArguments,
    ) -> Result<RootState, ActorProcessingErr> {
        let RootArguments {
            env,
            front,
            listen,
            live,
            failed,
        } = arguments;
        live.node.supervise_from(me.get_cell());
        let node = live.node.clone();
        let mut state = RootState {
            env,
            front: Front::new(front, live, &[&node]),
            address: listen,
            front_actor: None,
            failed,
            stopping: false,
        };
        state.start_front(&me).await?;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<RootMessage>,
        message: RootMessage,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::Address { reply } => {
                let _ = reply.send(state.address);
            }
            RootMessage::RestartFront => {
                if !state.stopping
                    && let Err(error) = state.start_front(&me).await
                {
                    tracing::error!(%error, "the front cannot be started; it is tried again");
                    state.restart_front_later(&me);
                }
            }
            RootMessage::Stop { done } => {
                state.stopping = true;
                state.stop_front().await;
                let _ = done.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<RootMessage>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        let (who, why) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who, error.to_string()),
            SupervisionEvent::ActorTerminated(who, _, reason) => (who, reason.unwrap_or_else(|| "it ended".to_owned())),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let front = state
            .front_actor
            .take_if(|front| front.get_id() == who.get_id())
            .is_some();
        if state.stopping {
            if !front {
                // The node stopped as it was told: nothing is left to supervise.
                me.stop(None);
            }
        } else if front {
            tracing::error!(why, "the front died; it is started again");
            state.restart_front_later(&me);
        } else {
            tracing::error!(why, "the node's supervisor died");
            state.failed.send_replace(Some(why));
            state.stop_front().await;
            me.stop(None);
        }
        Ok(())
    }
}

/// What the actor itself said, without the words around it.
pub fn startup_cause(error: SpawnErr) -> ActorProcessingErr {
    match error {
        SpawnErr::StartupFailed(cause) => cause,
        other => other.into(),
    }
}

impl RootState {
    async fn start_front(&mut self, me: &ActorRef<RootMessage>) -> Result<(), ActorProcessingErr> {
        let (bound, address) = oneshot::channel();
        let arguments = FrontArguments {
            env: self.env.clone(),
            front: self.front.clone(),
            listen: self.address,
            bound,
        };
        let started = Actor::spawn_linked(None, FrontActor, arguments, me.get_cell()).await;
        let (actor, _) = started.map_err(startup_cause)?;
        self.front_actor = Some(actor);
        if let Ok(address) = address.await {
            self.address = address;
        }
        Ok(())
    }

    fn restart_front_later(&self, me: &ActorRef<RootMessage>) {
        me.send_after(Duration::from_millis(FRONT_RESTART_PAUSE_MS), || {
            RootMessage::RestartFront
        });
    }

    async fn stop_front(&mut self) {
        let (done, stopped) = oneshot::channel();
        if let Some(front) = self.front_actor.take()
            && front.cast(FrontMessage::Stop { done }).is_ok()
        {
            let _ = stopped.await;
        }
    }
}
