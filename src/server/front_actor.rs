//! The actor around the HTTP front: owns the listening socket and the task that serves it.

use std::net::SocketAddr;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::env::Env;
use crate::http::{self, Front, Live};

pub struct FrontArguments {
    pub env: Env,
    pub front: Arc<Front<Live>>,
    pub listen: SocketAddr,
    /// Hears the real address.
    pub bound: oneshot::Sender<SocketAddr>,
}

pub enum FrontMessage {
    /// The task that serves ended without being asked.
    Ended,
    /// Take no more connections and let what is in flight finish.
    Stop { done: oneshot::Sender<()> },
}

pub struct FrontState {
    shutdown: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
}

pub struct FrontActor;

impl Actor for FrontActor {
    type Msg = FrontMessage;
    type State = FrontState;
    type Arguments = FrontArguments;

    async fn pre_start(
        &self,
        me: ActorRef<FrontMessage>,
        arguments: FrontArguments,
    ) -> Result<FrontState, ActorProcessingErr> {
        let listener = arguments.env.net.listen(arguments.listen).await?;
        let address = listener.local_addr()?;
        // Whoever started this may have given up already.
        let _ = arguments.bound.send(address);
        let (shutdown, stop) = watch::channel(false);
        let serving = tokio::spawn(async move {
            // Told when the task ends for any reason, a panic included.
            let _ended = Ended(me);
            http::serve(listener, arguments.front, stop).await;
        });
        Ok(FrontState {
            shutdown,
            serving: Some(serving),
        })
    }

    async fn handle(
        &self,
        me: ActorRef<FrontMessage>,
        message: FrontMessage,
        state: &mut FrontState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FrontMessage::Ended => Err("the front ended without being asked".into()),
            FrontMessage::Stop { done } => {
                let _ = state.shutdown.send(true);
                if let Some(serving) = state.serving.take() {
                    // It ends by itself within its deadline; a panic in it was logged.
                    let _ = serving.await;
                }
                let _ = done.send(());
                me.stop(None);
                Ok(())
            }
        }
    }
}

struct Ended(ActorRef<FrontMessage>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.cast(FrontMessage::Ended);
    }
}
