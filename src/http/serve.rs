//! Accepts connections, hands them to hyper, and shuts down gracefully.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::env::{Listener, Stream};

use super::backend::Backend;
use super::config::{
    H2_CONNECTION_WINDOW_BYTES, H2_HEADER_LIST_BYTES_MAX, H2_SEND_BYTES_MAX, H2_STREAM_WINDOW_BYTES, H2_STREAMS_MAX,
    HEAD_BYTES_MAX, TURNED_AWAY_READ_BYTES, TURNED_AWAY_WAIT,
};
use super::connection::{Busy, Connections};
use super::front::Front;
use super::metrics::Refusal;
use super::protocol::{H2_PREFACE_LINE, is_http2};
use super::watched::Watched;

/// Between two attempts to accept when the first one failed: the usual cause, no free file descriptor, passes only with time.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What a connection hears that finds no place.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 123\r\n\r\n\
    {\"detail\":\"the node is overloaded: too many connections are open; retry\",\
    \"code\":\"overloaded\",\"may_have_taken_effect\":false}";

/// The same over HTTP/2: no settings, and GOAWAY (`ENHANCE_YOUR_CALM`) behind stream 0, which says that nothing was done.
const NO_PLACE_HTTP2: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x25\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b\
    too many connections are open";

/// Serves until `shutdown` becomes true or its sender is gone; then takes no more, lets what is in flight finish within
/// the configured deadline, cuts the rest, and returns. Dropped before that, its connections still end once their requests
/// have been answered.
pub async fn serve<B: Backend>(
    mut listener: Box<dyn Listener>,
    front: Arc<Front<B>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    // Dropped when the front ends, however that comes.
    let (goes_on, told) = watch::channel(());
    let ending = || Ending {
        told: told.clone(),
        watcher: graceful.watcher(),
    };
    {
        let mut stopped = pin!(shutdown.wait_for(|stop| *stop));
        let mut sweeping = pin!(sweep(&front));
        let mut accepting = pin!(accept(listener.as_mut(), &front, ending));
        tokio::select! {
            biased;
            _ = &mut stopped => {}
            () = &mut sweeping => {}
            () = &mut accepting => {}
        }
    }
    drop((listener, goes_on));
    front.draining.store(true, Relaxed);
    let open = front.connections.count();
    tracing::info!(open, "the front takes no more connections");
    if timeout(front.config.shutdown_deadline, graceful.shutdown())
        .await
        .is_err()
    {
        let open = front.connections.count();
        tracing::warn!(open, "connections were still busy at the deadline and are cut");
        front.connections.abort_all();
    }
}

async fn sweep<B: Backend>(front: &Front<B>) {
    let mut ticks = interval(front.config.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        front.writes.adapt(front.backend.commit_time());
        for reason in front.connections.sweep(&front.config) {
            front.metrics.cut(reason);
            tracing::debug!(reason, "connection cut");
        }
    }
}

/// How a connection hears that the front ends: before it has asked for anything, and after.
struct Ending {
    told: watch::Receiver<()>,
    watcher: Watcher,
}

async fn accept<B: Backend>(listener: &mut dyn Listener, front: &Arc<Front<B>>, ending: impl Fn() -> Ending) {
    let protocols = Arc::new(Protocols::new());
    loop {
        match listener.accept().await {
            Ok((io, from)) => admit(io, from, front, &protocols, &ending),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn admit<B: Backend>(
    mut io: Box<dyn Stream>,
    from: SocketAddr,
    front: &Arc<Front<B>>,
    protocols: &Arc<Protocols>,
    ending: impl Fn() -> Ending,
) {
    let Some(place) = Connections::enter(front, front.config.connections_max) else {
        front.metrics.refused(Refusal::Connections);
        match front.turned_away.take(1) {
            Some(one_of_few) => {
                tokio::spawn(async move {
                    let _held = one_of_few;
                    let _ = timeout(2 * TURNED_AWAY_WAIT, turn_away(io)).await;
                });
            }
            // A fresh socket has room for this; a client that has none must do without it.
            None => drop(io.write_all(NO_PLACE).now_or_never()),
        }
        return;
    };
    let id = place.id;
    let task = tokio::spawn(carry(Watched::new(io, place), from, protocols.clone(), ending()));
    front.connections.set_task(id, task.abort_handle());
}

/// A connection from its first byte to its end.
async fn carry<B: Backend>(mut io: Watched<B>, from: SocketAddr, protocols: Arc<Protocols>, mut ending: Ending) {
    let (front, activity) = (io.place.front.clone(), io.place.activity.clone());
    let spoken = tokio::select! {
        biased;
        spoken = is_http2(&mut io) => spoken,
        // Its sender is gone; nothing was asked.
        _ = ending.told.changed() => return,
    };
    let ended = match spoken {
        Err(error) => {
            tracing::debug!(%error, %from, "connection ended");
            return;
        }
        Ok(false) => {
            let service = service_fn(move |request: Request<Incoming>| {
                let busy = Busy::new(&activity, None, request.body().size_hint().exact());
                let front = front.clone();
                async move { Ok::<_, Infallible>(front.handle(from.ip(), busy, request).await) }
            });
            let connection = protocols.http1.serve_connection(TokioIo::new(io), service);
            ending.watcher.watch(connection).await
        }
        Ok(true) => {
            activity.speaks_http2();
            let service = service_fn(move |request| {
                // Its place is taken, and its state allocated, here in the connection's own turn: hyper makes a task for each stream, and may
                // make very many before the first of them runs.
                let handled = front.begin_stream(&activity, &request).map(|busy| {
                    let front = front.clone();
                    Box::pin(async move { front.handle(from.ip(), busy, request).await })
                });
                async move { Ok::<_, h2::Error>(handled?.await) }
            });
            let connection = protocols.http2.serve_connection(TokioIo::new(io), service);
            ending.watcher.watch(connection).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %from, "connection ended");
    }
}

/// Tells why, once the client has asked: an answer that comes before is none, and where it closes on what nobody read, the connection is reset.
async fn turn_away(mut io: Box<dyn Stream>) -> io::Result<()> {
    let mut read = vec![0; TURNED_AWAY_READ_BYTES];
    let heard = match timeout(TURNED_AWAY_WAIT, io.read(&mut read)).await {
        Ok(heard) => heard?,
        Err(_) => 0,
    };
    let is_http2 = read
        .get(..heard)
        .is_some_and(|heard| heard.starts_with(H2_PREFACE_LINE));
    io.write_all(if is_http2 { NO_PLACE_HTTP2 } else { NO_PLACE }).await?;
    io.shutdown().await?;
    while io.read(&mut read).await? > 0 {}
    Ok(())
}

/// How the front speaks either version.
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    fn new() -> Self {
        let mut http1 = http1::Builder::new();
        // A client may close its sending side after its last request and still wait for the answer.
        http1
            .half_close(true)
            // The sweep does this, without a timer per request.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES_MAX);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .max_concurrent_streams(H2_STREAMS_MAX)
            .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
            .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(H2_SEND_BYTES_MAX);
        Self { http1, http2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::FrontConfig;
    use crate::http::tests::fake::Fake;

    #[test]
    fn the_refusal_of_a_connection_is_as_long_as_it_says() {
        let text = std::str::from_utf8(NO_PLACE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_is_cut_though_the_front_was_started_anew() {
        let front = Front::new(FrontConfig::default(), Arc::new(Fake::default()), &[]);
        let idle = front.config.idle_timeout;
        // The one before ended after a long time.
        let _ = timeout(idle * 10, sweep(&front)).await;
        let place = Connections::enter(&front, 1).expect("there is room");
        let task = tokio::spawn(std::future::pending::<()>());
        front.connections.set_task(place.id, task.abort_handle());
        let _ = timeout(idle * 2, sweep(&front)).await;
        assert!(task.is_finished());
    }
}
