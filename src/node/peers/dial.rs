//! Makes connections: the one that each link keeps, and those for a single request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::CallError;
use super::connection::{self, Ended};
use super::link::Link;
use super::meter::Metered;
use super::shared::{Shared, WrongPeer};
use crate::env::{Entropy, Stream};
use crate::net::{self, Channel, FrameReader};
use crate::types::NodeId;
use crate::wire::{MESSAGE_BYTES_MAX, Message, Request, Response};

/// A connection and its handshake: two round trips. A peer that takes longer would be too slow for anything.
const DIAL_MS_MAX: u64 = 1_500;
/// After a connection that ended or did not come about; doubled each time.
const PAUSE_MS: u64 = 50;
/// A node that is back is found again within this.
const PAUSE_MS_MAX: u64 = 1_000;
/// A connection that held so long ended for a new reason: the pauses begin anew.
const STEADY_MS: u64 = 2_000;
/// The name of the one request on a connection that is made for it.
const ONLY_CALL: u64 = 0;

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("it does not answer within {DIAL_MS_MAX} ms")]
    Deadline,
    #[error(transparent)]
    Wrong(#[from] WrongPeer),
}

/// Keeps a connection to the peer at `address`; never ends.
pub async fn keep(shared: Arc<Shared>, link: Arc<Link>, address: SocketAddr) {
    let mut failures = 0;
    loop {
        match dial(&shared, &link, address).await {
            Ok(channel) => {
                let since = Instant::now();
                tracing::info!(node = %link.node, %address, "connected to a peer");
                let ended = connection::run(&link, channel).await;
                note_end(&shared, &link, &ended);
                if since.elapsed() >= Duration::from_millis(STEADY_MS) {
                    failures = 0;
                }
            }
            Err(error) => note_failure(&shared, &link, address, &error),
        }
        tokio::time::sleep(pause(failures, &*shared.env.entropy)).await;
        failures += 1;
    }
}

fn note_end(shared: &Shared, link: &Link, ended: &Ended) {
    if ended.is_garbage() {
        shared.counters.garbage.add(1);
    }
    tracing::warn!(node = %link.node, why = %ended, "the connection to a peer ended");
}

fn note_failure(shared: &Shared, link: &Link, address: SocketAddr, error: &DialError) {
    link.counters.dial_failures.add(1);
    if let DialError::Wrong(_) = error {
        shared.counters.wrong_peers.add(1);
        if shared.may_complain() {
            tracing::warn!(node = %link.node, %address, why = %error, "what answers at a peer's address is not that peer");
        }
    }
    tracing::debug!(node = %link.node, %address, why = %error, "no connection to a peer");
}

/// Before the next attempt after so many failures: a random part of it, so that nodes that lost each other do not all meet again at once.
fn pause(failures: u32, entropy: &dyn Entropy) -> Duration {
    let longest_ms = (PAUSE_MS << failures.min(10)).min(PAUSE_MS_MAX);
    let half_ms = longest_ms / 2;
    Duration::from_millis(half_ms + entropy.u64() % (longest_ms - half_ms + 1))
}

async fn dial(shared: &Shared, link: &Link, address: SocketAddr) -> Result<Channel, DialError> {
    let dialled = timeout(Duration::from_millis(DIAL_MS_MAX), async {
        let stream = shared.env.net.connect(address).await?;
        let stream = Metered::new(stream, link.meter.clone());
        handshake(shared, Box::new(stream), Some(link.node)).await
    });
    dialled.await.unwrap_or(Err(DialError::Deadline))
}

async fn handshake(shared: &Shared, stream: Box<dyn Stream>, expected: Option<NodeId>) -> Result<Channel, DialError> {
    let channel = net::connect(stream, &shared.local()).await;
    let channel = channel.map_err(WrongPeer::Handshake)?;
    shared.check(&channel.peer, expected)?;
    Ok(channel)
}

/// One request to whoever is at `address`.
pub async fn call_address(
    shared: &Shared,
    address: SocketAddr,
    request: &Request,
    limit: Duration,
) -> Result<(NodeId, Response), CallError> {
    let mut message = Vec::new();
    request.encode(ONLY_CALL, &mut message);
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(CallError::TooLarge { bytes: message.len() });
    }
    let answered = timeout(limit, async {
        let channel = dial_stranger(shared, address).await;
        ask(channel?, &message).await
    });
    answered.await.unwrap_or(Err(CallError::Deadline))
}

async fn dial_stranger(shared: &Shared, address: SocketAddr) -> Result<Channel, CallError> {
    let dialled = timeout(Duration::from_millis(DIAL_MS_MAX), async {
        let stream = shared.env.net.connect(address).await?;
        handshake(shared, stream, None).await
    });
    let dialled = dialled.await.unwrap_or(Err(DialError::Deadline));
    dialled.map_err(|error| CallError::Unreachable(error.to_string()))
}

async fn ask(mut channel: Channel, message: &[u8]) -> Result<(NodeId, Response), CallError> {
    let sent = channel.writer.send(&[message]).await;
    sent.map_err(|_| CallError::Lost)?;
    let answer = answer(&mut channel.reader).await?;
    // So that the other side does not take it for cut off. It has answered: what becomes of this is all the same.
    let _ = channel.writer.close().await;
    Ok((channel.peer.node, answer))
}

/// The answer to the only request. A peer that takes longer shows meanwhile, by answers to no request, that it is there (`serving`).
async fn answer(reader: &mut FrameReader) -> Result<Response, CallError> {
    loop {
        let frame = reader.recv().await;
        let frame = frame.ok().flatten().ok_or(CallError::Lost)?;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match Message::decode(&mut rest) {
                Ok(Message::Response(ONLY_CALL, response)) => return Ok(response),
                Ok(Message::Response(..)) => {}
                Ok(Message::Request(..)) | Err(_) => return Err(CallError::Lost),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn pauses_double_up_to_their_limit_and_are_never_all_the_same() {
        for (failures, longest_ms) in [(0, 50), (1, 100), (4, 800), (5, 1000), (40, 1000)] {
            let pauses = [0, 1, 77, 255].map(|byte| pause(failures, &Fixed(byte)).as_millis());
            let range = longest_ms / 2..=longest_ms;
            assert!(pauses.iter().all(|pause| range.contains(pause)), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
