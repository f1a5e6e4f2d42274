//! A task that belongs to an actor: it ends with it, and the actor hears when it ends by itself.

use std::future::Future;

use ractor::ActorRef;
use tokio::task::JoinHandle;

/// The task ended without being asked, a panic included. The only thing that its actor is ever told.
pub struct TaskEnded;

pub struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    pub fn spawn(owner: ActorRef<TaskEnded>, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            let _told = Told(owner);
            task.await;
        }))
    }

    /// Until nothing of it runs any more.
    pub async fn abort(&mut self) {
        self.0.abort();
        self.ended().await;
    }

    pub async fn ended(&mut self) {
        // A panic in it was logged.
        let _ = (&mut self.0).await;
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Told(ActorRef<TaskEnded>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.cast(TaskEnded);
    }
}
