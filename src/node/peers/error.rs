//! Why a call to a peer brought no answer.

/// Only after `Lost` and `Deadline` may the peer have carried the request out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("there is no connection to the peer")]
    NotConnected,
    #[error("too much waits for the peer already")]
    Busy,
    #[error("the request takes {bytes} bytes, more than one message may")]
    TooLarge { bytes: usize },
    #[error("the connection to the peer ended before it answered")]
    Lost,
    #[error("the peer did not answer in time")]
    Deadline,
    /// Of a one-off call: the address could not be reached, or what answers there is no node of this cluster.
    #[error("cannot speak to the node at that address: {0}")]
    Unreachable(String),
}
