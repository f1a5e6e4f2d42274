//! Reads of this node's own disk, and what becomes of them where that fails or is slow.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::OpError;
use super::cluster::{Elsewhere, RemoteReader};
use super::local::LocalReader;
use crate::store::reader::Fragment;

/// A disk gets so long before another replica is asked too: many times what a read takes, and little for whoever waits.
const HEDGE: Duration = Duration::from_millis(150);
/// A page of a list that did not come by then never will: the answer that it belongs to is cut.
const PAGE_MAX: Duration = Duration::from_secs(30);

/// Whether it is this node's disk that is in the way, so that another replica may do better.
pub fn is_own_disk(error: &OpError) -> bool {
    matches!(error, OpError::Damaged(_) | OpError::Disk(_) | OpError::DiskFull)
}

/// What this node's own disk says; where it fails or is slow, what another replica says.
pub async fn own_or_other<T>(
    own: impl Future<Output = Result<T, OpError>>,
    other: impl Future<Output = Result<T, OpError>>,
) -> Result<T, OpError> {
    let (mut own, mut other) = (pin!(own), pin!(other));
    let said = match timeout(HEDGE, &mut own).await {
        Ok(said) => said,
        Err(_) => tokio::select! {
            biased;
            said = &mut own => said,
            said = &mut other => match said {
                Ok(said) => return Ok(said),
                Err(_) => return own.await,
            }
        },
    };
    match said {
        Err(error) if is_own_disk(&error) => other.await,
        said => said,
    }
}

/// The same, or an error by then.
pub async fn by<T>(deadline: Instant, read: impl Future<Output = Result<T, OpError>>) -> Result<T, OpError> {
    let read = timeout_at(deadline, read).await;
    read.unwrap_or(Err(OpError::Deadline { maybe_applied: false }))
}

/// A snapshot of one key's list, read piece by piece.
pub enum ValueReader {
    /// From this node's disk. Until something was given, another replica may do it.
    Local(LocalReader, Option<First>),
    /// From another node, which has the key.
    Remote(RemoteReader),
}

/// What there is to know of the first piece.
pub struct First {
    pub deadline: Instant,
    pub elsewhere: Option<Box<Elsewhere>>,
}

impl ValueReader {
    /// The next fragments, together about `budget_bytes` of text (always at least one fragment); empty at the end.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        match self {
            Self::Local(reader, first) => match first.take() {
                Some(first) => {
                    let (fragments, remote) = first.read(reader, budget_bytes).await?;
                    if let Some(remote) = remote {
                        *self = Self::Remote(remote);
                    }
                    Ok(fragments)
                }
                None if reader.is_warm() => reader.next(budget_bytes).await,
                None => Box::pin(by(Instant::now() + PAGE_MAX, reader.next(budget_bytes))).await,
            },
            Self::Remote(reader) => Box::pin(by(Instant::now() + PAGE_MAX, reader.next(budget_bytes))).await,
        }
    }
}

impl First {
    /// Also the reader that it goes on with, if that is another one.
    async fn read(
        self,
        reader: &mut LocalReader,
        budget_bytes: usize,
    ) -> Result<(Vec<Fragment>, Option<RemoteReader>), OpError> {
        // Usual, without a timer, and without the room that all else would take in every request.
        if reader.is_warm() {
            match (reader.next(budget_bytes).await, self.elsewhere) {
                (Err(error), Some(elsewhere)) if is_own_disk(&error) => {
                    Box::pin(by(self.deadline, read_elsewhere(elsewhere, budget_bytes))).await
                }
                (fragments, _) => Ok((fragments?, None)),
            }
        } else {
            Box::pin(self.read_cold(reader, budget_bytes)).await
        }
    }

    async fn read_cold(
        self,
        reader: &mut LocalReader,
        budget_bytes: usize,
    ) -> Result<(Vec<Fragment>, Option<RemoteReader>), OpError> {
        let own = async { Ok((reader.next(budget_bytes).await?, None)) };
        match self.elsewhere {
            None => by(self.deadline, own).await,
            Some(elsewhere) => {
                by(
                    self.deadline,
                    own_or_other(own, read_elsewhere(elsewhere, budget_bytes)),
                )
                .await
            }
        }
    }
}

async fn read_elsewhere(
    elsewhere: Box<Elsewhere>,
    budget_bytes: usize,
) -> Result<(Vec<Fragment>, Option<RemoteReader>), OpError> {
    let mut remote = elsewhere.open().await?;
    Ok((remote.next(budget_bytes).await?, Some(remote)))
}
