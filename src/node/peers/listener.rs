//! The actor that lets other nodes in: owns the listening socket and the connections that came through it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::meter::Meter;
use super::owned_task::{OwnedTask, TaskEnded};
use super::serving;
use super::shared::Shared;
use crate::env;

/// Connections that are served at once: each member has one, and a few more while it restarts.
const CONNECTIONS_MAX: usize = 1024;
/// After a connection that could not be accepted: the cause is mostly a lack of file descriptors, which does not pass at once.
const ACCEPT_PAUSE_MS: u64 = 50;

pub struct ListenerArguments {
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
    /// Absent when the actor is restarted.
    pub socket: Option<Box<dyn env::Listener>>,
}

pub struct ListenerState {
    task: OwnedTask,
    stop: Option<oneshot::Sender<()>>,
}

pub struct ListenerActor;

impl Actor for ListenerActor {
    type Msg = TaskEnded;
    type State = ListenerState;
    type Arguments = ListenerArguments;

    async fn pre_start(
        &self,
        me: ActorRef<TaskEnded>,
        arguments: ListenerArguments,
    ) -> Result<ListenerState, ActorProcessingErr> {
        let ListenerArguments {
            shared,
            address,
            socket,
        } = arguments;
        let socket = match socket {
            Some(socket) => socket,
            None => shared.env.net.listen(address).await?,
        };
        let (stop, stopped) = oneshot::channel();
        let task = OwnedTask::spawn(me, accept(shared, socket, stopped));
        Ok(ListenerState { task, stop: Some(stop) })
    }

    async fn handle(
        &self,
        _me: ActorRef<TaskEnded>,
        _ended: TaskEnded,
        _state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        Err("the listener ended without being asked".into())
    }

    async fn post_stop(&self, _me: ActorRef<TaskEnded>, state: &mut ListenerState) -> Result<(), ActorProcessingErr> {
        drop(state.stop.take());
        state.task.ended().await;
        Ok(())
    }
}

async fn accept(shared: Arc<Shared>, mut socket: Box<dyn env::Listener>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            // A panic in one was logged and concerns no other.
            Some(_ended) = connections.join_next() => {}
            accepted = socket.accept() => match accepted {
                Ok((stream, from)) => {
                    let meter = Arc::new(Meter::default());
                    match shared.begin_handshake(from, meter.clone()) {
                        Some(place) if connections.len() < CONNECTIONS_MAX => {
                            connections.spawn(serving::serve(shared.clone(), from, stream, place, meter));
                        }
                        _ => {
                            shared.counters.refused.add(1);
                            tracing::debug!(%from, "too many connections to the peer port; one was closed");
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to the peer port could not be accepted");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            },
        }
    }
    drop(socket);
    connections.shutdown().await;
}
