//! One connection to a peer, for the requests of this node, from its handshake to its end. One task does all of it: what came is
//! handed out and what gathered meanwhile is written in the same turn.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::batch::send;
use super::link::Link;
use super::peer::Call;
use crate::net::{Channel, FrameError, FrameReader};
use crate::wire::{Message, Request, Response, WireRefused};

/// How often the peer is asked whether it is there while it owes an answer.
const KEEP_ALIVE_MS: u64 = 500;
/// And how long nothing may have come from it when it owes none. An exchange costs some 250 bytes with all headers, and there are two
/// connections to a pair; the first request to a peer that froze meanwhile goes to another one after `cluster::calls::SLOW`. This also
/// keeps the connection in the memory of whatever lies between.
const QUIET_MS_MAX: u64 = 2_000;
/// A peer that owes an answer and says nothing for so long is given up: it is frozen or unreachable, or so overloaded that it makes no
/// difference. Keep-alives are answered on the spot, however much work it has, and a request that is long on its way is answered for while it
/// comes (`serving`).
const SILENCE_MS_MAX: u64 = 3_000;
/// Why a connection is no more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the peer closed it")]
    Closed,
    #[error("it cannot be read: {0}")]
    Read(#[from] FrameError),
    #[error("it cannot be written: {0}")]
    Write(#[from] io::Error),
    #[error("the peer has gone silent")]
    Silent,
    #[error("the peer sends garbage: {0}")]
    Garbage(#[from] WireRefused),
    #[error("the peer sends requests where answers belong")]
    NoAnswer,
    #[error("the peer sends answers where requests belong")]
    NoRequest,
}

impl Ended {
    /// Whether it was the peer that broke the rules.
    pub fn is_garbage(&self) -> bool {
        matches!(self, Self::Garbage(_) | Self::NoAnswer | Self::NoRequest)
    }
}

/// Takes calls until the connection ends.
pub async fn run(link: &Arc<Link>, channel: Channel) -> Ended {
    let Channel { reader, writer, .. } = channel;
    let _opened = link.open();
    let ended: Result<Infallible, Ended> = tokio::select! {
        biased;
        ended = receive(link, reader) => ended,
        ended = send(&**link, writer, &link.counters.frames_sent) => ended.map_err(Ended::from),
        never = link.see_to_those_that_wait() => Ok(never),
        ended = watch(link) => ended,
    };
    match ended {
        Err(ended) => ended,
        Ok(never) => match never {},
    }
}

async fn receive(link: &Link, mut reader: FrameReader) -> Result<Infallible, Ended> {
    let mut answers = Vec::new();
    loop {
        let mut frame = reader.recv().await?;
        if frame.is_none() {
            return Err(Ended::Closed);
        }
        while let Some(bytes) = frame {
            decode(&bytes, &mut answers)?;
            frame = reader.try_recv()?;
        }
        link.answered(&mut answers);
    }
}

fn decode(mut bytes: &[u8], answers: &mut Vec<(u64, Response)>) -> Result<(), Ended> {
    while !bytes.is_empty() {
        match Message::decode(&mut bytes)? {
            Message::Response(id, response) => answers.push((id, response)),
            Message::Request(..) => return Err(Ended::NoAnswer),
        }
    }
    Ok(())
}

/// Keeps the connection alive, and ends when the peer does not.
async fn watch(link: &Link) -> Result<Infallible, Ended> {
    let mut ticks = tokio::time::interval(Duration::from_millis(KEEP_ALIVE_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut signs = Signs::new(link);
    let mut ping: Option<(Call, Instant)> = None;
    let mut pinged = Instant::now();
    loop {
        tokio::select! {
            biased;
            answer = answer(&mut ping) => {
                if let (Ok(_), Some((_, sent))) = (answer, ping.take()) {
                    link.counters.round_trip_us.set(sent.elapsed().as_micros() as u64);
                }
            }
            now = ticks.tick() => {
                signs.look(link, now);
                if signs.silence(link, now) >= Duration::from_millis(SILENCE_MS_MAX) {
                    link.counters.silent.add(1);
                    return Err(Ended::Silent);
                }
                let is_due = !link.waiting().is_zero() || signs.quiet(now) >= Duration::from_millis(QUIET_MS_MAX);
                if ping.is_none() && is_due {
                    // Where no more can wait, enough waits to show whether the peer is there.
                    ping = link.call(&Request::Ping).ok().map(|answer| (Call(answer), now));
                    pinged = now;
                } else if ping.is_some() && now - pinged >= Duration::from_millis(QUIET_MS_MAX) {
                    // Its answer waits behind a long one. The peer is to hear all the same that somebody takes that.
                    drop(link.call(&Request::Ping));
                    pinged = now;
                }
            }
        }
    }
}

async fn answer(ping: &mut Option<(Call, Instant)>) -> Result<Response, super::CallError> {
    match ping {
        Some((call, _)) => call.await,
        None => std::future::pending().await,
    }
}

/// Signs of life: bytes, so that a large message does not look like silence while it comes.
struct Signs {
    looked: Instant,
    seen: Instant,
    /// When anything was last found to have come.
    came: Instant,
    received: u64,
}

impl Signs {
    fn new(link: &Link) -> Self {
        Self {
            looked: Instant::now(),
            seen: Instant::now(),
            came: Instant::now(),
            received: link.meter.received(),
        }
    }

    fn look(&mut self, link: &Link, now: Instant) {
        let received = link.meter.received();
        // It was this node that stood still; what has come meanwhile is not read yet.
        let was_away = now - self.looked > 2 * Duration::from_millis(KEEP_ALIVE_MS);
        if received != self.received || was_away {
            self.seen = now;
        }
        if received != self.received {
            self.came = now;
        }
        (self.looked, self.received) = (now, received);
    }

    fn quiet(&self, now: Instant) -> Duration {
        now - self.came
    }

    /// For how long the peer has owed an answer and shown no sign.
    fn silence(&self, link: &Link, now: Instant) -> Duration {
        link.waiting().min(now - self.seen)
    }
}
