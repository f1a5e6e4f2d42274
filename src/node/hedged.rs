//! Reads of this node's own disk, and what becomes of them where that fails or is slow.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::OpError;
use super::cluster::{Elsewhere, RemoteReader, is_worth_another};
use super::local::LocalReader;
use crate::store::reader::Fragment;

/// A disk gets so long before another replica is asked too: many times what a read takes, and little for whoever waits.
pub const HEDGE: Duration = Duration::from_millis(150);
/// A look at the past of a key gets so long before another replica is asked to write instead: it may read much, and would have to be read there too.
pub const LOOK_MAX: Duration = Duration::from_secs(1);
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
    first_or_other(own, other, is_own_disk).await
}

/// What the first one says; where it takes long, or cannot for a reason that `passes_on`, what the other one says.
pub async fn first_or_other<T>(
    own: impl Future<Output = Result<T, OpError>>,
    other: impl Future<Output = Result<T, OpError>>,
    passes_on: fn(&OpError) -> bool,
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
        Err(error) if passes_on(&error) => match other.await {
            // What too few answered says more than that the other one could not either.
            Err(_) if !is_own_disk(&error) => Err(error),
            said => said,
        },
        said => said,
    }
}

/// What `read` gives, or an error at the deadline.
pub async fn by<T>(deadline: Instant, read: impl Future<Output = Result<T, OpError>>) -> Result<T, OpError> {
    let read = timeout_at(deadline, read).await;
    read.unwrap_or(Err(OpError::Deadline { maybe_applied: false }))
}

/// A snapshot of one key's list, read piece by piece.
///
/// Where a piece cannot be had, another replica may give its own snapshot: in place of the first piece, or, if the caller asked for that
/// with `until_sent`, in place of all that was given so far.
pub struct ValueReader {
    source: Source,
    unsent: Option<Unsent>,
    /// Whether `unsent` counts until `sent` is called, and not only until the first piece.
    holds_back: bool,
    given: bool,
    began_anew: bool,
}

enum Source {
    /// This node's disk.
    Local(LocalReader),
    /// Another node, which has the key.
    Remote(RemoteReader),
}

/// What counts while nothing was sent.
pub struct Unsent {
    pub deadline: Instant,
    pub elsewhere: Option<Arc<Elsewhere>>,
}

impl ValueReader {
    pub fn local(reader: LocalReader, unsent: Option<Unsent>) -> Self {
        Self::new(Source::Local(reader), unsent)
    }

    pub fn remote(reader: RemoteReader, unsent: Option<Unsent>) -> Self {
        Self::new(Source::Remote(reader), unsent)
    }

    fn new(source: Source, unsent: Option<Unsent>) -> Self {
        Self {
            source,
            unsent,
            holds_back: false,
            given: false,
            began_anew: false,
        }
    }

    /// From now on nothing read from here is sent to the client until `sent` is called. Until then the deadline
    /// applies, and the read may restart from another replica.
    pub fn until_sent(&mut self) {
        self.holds_back = true;
    }

    pub fn sent(&mut self) {
        self.unsent = None;
    }

    /// Whether the read restarted: everything before the last piece must be discarded.
    pub fn began_anew(&mut self) -> bool {
        std::mem::take(&mut self.began_anew)
    }

    /// The next fragments, together about `budget_bytes` of text (always at least one fragment); empty at the end.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        // Usual, without a timer, and without the room that all else would take in every request.
        let fragments = match &mut self.source {
            Source::Local(reader) => match reader.is_warm() {
                true => reader.next(budget_bytes).await,
                false => Box::pin(self.next_cold(budget_bytes)).await,
            },
            Source::Remote(_) => Box::pin(self.next_cold(budget_bytes)).await,
        };
        let fragments = match fragments {
            Err(error) if self.may_begin_elsewhere(&error) => Box::pin(self.next_elsewhere(budget_bytes, error)).await,
            fragments => fragments,
        };
        self.given = true;
        if !self.holds_back {
            self.unsent = None;
        }
        fragments
    }

    async fn next_cold(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        let Some(Unsent { deadline, elsewhere }) = &self.unsent else {
            return by(Instant::now() + PAGE_MAX, self.source.next(budget_bytes)).await;
        };
        let (deadline, elsewhere) = (*deadline, elsewhere.clone());
        match (&mut self.source, elsewhere) {
            (Source::Local(reader), Some(elsewhere)) => {
                let own = async { Ok((reader.next(budget_bytes).await?, None)) };
                let other = async {
                    let (fragments, remote) = read_elsewhere(&elsewhere, budget_bytes).await?;
                    Ok((fragments, Some(remote)))
                };
                let (fragments, remote) = by(deadline, own_or_other(own, other)).await?;
                if let Some(remote) = remote {
                    self.go_on_with(remote);
                }
                Ok(fragments)
            }
            // A page takes as long as its line lets it, so that only an error leads to another one.
            (source, _) => by(deadline, source.next(budget_bytes)).await,
        }
    }

    /// Whether another one may do better, and there is one.
    fn may_begin_elsewhere(&self, error: &OpError) -> bool {
        let has_others = self.unsent.as_ref().is_some_and(|unsent| unsent.elsewhere.is_some());
        has_others
            && match self.source {
                Source::Local(_) => is_own_disk(error),
                Source::Remote(_) => is_worth_another(error),
            }
    }

    async fn next_elsewhere(&mut self, budget_bytes: usize, error: OpError) -> Result<Vec<Fragment>, OpError> {
        let Some(Unsent { deadline, elsewhere }) = &self.unsent else {
            return Err(error);
        };
        let Some(elsewhere) = elsewhere.clone() else {
            return Err(error);
        };
        let read = by(*deadline, read_elsewhere(&elsewhere, budget_bytes)).await;
        // What was wrong first tells more.
        let (fragments, remote) = read.map_err(|_| error)?;
        self.go_on_with(remote);
        Ok(fragments)
    }

    fn go_on_with(&mut self, remote: RemoteReader) {
        if let Some(unsent) = &mut self.unsent {
            // That one has had its turn.
            let rest = |elsewhere: Arc<Elsewhere>| Arc::new(elsewhere.without(remote.node()));
            unsent.elsewhere = unsent.elsewhere.take().map(rest);
        }
        self.source = Source::Remote(remote);
        self.began_anew = self.given;
    }
}

impl Source {
    async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        match self {
            Self::Local(reader) => reader.next(budget_bytes).await,
            Self::Remote(reader) => reader.next(budget_bytes).await,
        }
    }
}

async fn read_elsewhere(elsewhere: &Elsewhere, budget_bytes: usize) -> Result<(Vec<Fragment>, RemoteReader), OpError> {
    let mut remote = elsewhere.open().await?;
    Ok((remote.next(budget_bytes).await?, remote))
}
