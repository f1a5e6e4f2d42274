//! Accepts connections, hands them to hyper, and shuts down gracefully.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::env::{Listener, Stream};

use super::backend::Backend;
use super::config::{
    H2_CONNECTION_WINDOW_BYTES, H2_HEADER_LIST_BYTES_MAX, H2_SEND_BYTES_MAX, H2_STREAM_WINDOW_BYTES, H2_STREAMS_MAX,
    HEAD_BYTES_MAX, TURNED_AWAY_READ_BYTES, TURNED_AWAY_WAIT,
};
use super::connection::{Connections, H2_PREFACE_LINE, Watched};
use super::front::Front;
use super::metrics::Refusal;

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
    {
        let mut stopped = pin!(shutdown.wait_for(|stop| *stop));
        let mut sweeping = pin!(sweep(&front));
        let mut accepting = pin!(accept(listener.as_mut(), &front, &graceful));
        tokio::select! {
            biased;
            _ = &mut stopped => {}
            () = &mut sweeping => {}
            () = &mut accepting => {}
        }
    }
    drop(listener);
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

async fn accept<B: Backend>(listener: &mut dyn Listener, front: &Arc<Front<B>>, graceful: &GracefulShutdown) {
    let builder = builder();
    loop {
        match listener.accept().await {
            Ok((io, from)) => admit(io, from, front, graceful, &builder),
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
    graceful: &GracefulShutdown,
    builder: &auto::Builder<TokioExecutor>,
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
    let (id, activity) = (place.id, place.activity.clone());
    let service = {
        let front = front.clone();
        service_fn(move |request| {
            let (front, activity) = (front.clone(), activity.clone());
            async move { front.handle(from.ip(), &activity, request).await }
        })
    };
    let connection = builder
        .serve_connection(TokioIo::new(Watched { io, place }), service)
        .into_owned();
    let connection = graceful.watch(connection);
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error, %from, "connection ended");
        }
    });
    front.connections.set_task(id, task.abort_handle());
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

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // A client may close its sending side after its last request and still wait for the answer.
        .half_close(true)
        // The sweep does this, without a timer per request.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(H2_SEND_BYTES_MAX);
    builder
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
