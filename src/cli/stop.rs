//! The signals that end a command, heard where something can be said about what was done.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// By which signal.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {0}")]
pub struct Stopped(pub &'static str);

/// Those of a terminal and of whoever ends processes.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The first one that comes.
    pub async fn signal(&mut self) -> anyhow::Error {
        anyhow::Error::from(tokio::select! {
            _ = self.terminate.recv() => Stopped("SIGTERM"),
            _ = self.interrupt.recv() => Stopped("SIGINT"),
        })
    }
}
