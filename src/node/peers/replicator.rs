//! The actor of the link to one peer: owns the task that keeps the connection.

use std::net::SocketAddr;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::dial;
use super::link::Link;
use super::owned_task::{OwnedTask, TaskEnded};
use super::shared::Shared;

pub struct ReplicatorArguments {
    pub shared: Arc<Shared>,
    pub link: Arc<Link>,
    pub address: SocketAddr,
}

pub struct Replicator;

impl Actor for Replicator {
    type Msg = TaskEnded;
    type State = OwnedTask;
    type Arguments = ReplicatorArguments;

    async fn pre_start(
        &self,
        me: ActorRef<TaskEnded>,
        arguments: ReplicatorArguments,
    ) -> Result<OwnedTask, ActorProcessingErr> {
        let ReplicatorArguments { shared, link, address } = arguments;
        Ok(OwnedTask::spawn(me, dial::keep(shared, link, address)))
    }

    async fn handle(
        &self,
        _me: ActorRef<TaskEnded>,
        _ended: TaskEnded,
        _task: &mut OwnedTask,
    ) -> Result<(), ActorProcessingErr> {
        Err("the link ended without being asked".into())
    }

    async fn post_stop(&self, _me: ActorRef<TaskEnded>, task: &mut OwnedTask) -> Result<(), ActorProcessingErr> {
        task.abort().await;
        Ok(())
    }
}
