//! The limits of the front, each with its reason.

use std::time::Duration;

/// Longest head of an HTTP/1.1 request, and the largest read or write buffer of its connection.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The longest head of an HTTP/2 request, by the rules of HTTP/2 for a header list.
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Requests that one HTTP/2 connection may have in flight. Each leaves about a KiB of room with its connection.
pub const H2_STREAMS_MAX: u32 = 100;
/// One connection may have as many streams as this part of the places that are left for all, and a few however few are left: so that some
/// connections with many do not keep out all others.
pub const H2_STREAMS_PART: usize = 16;
pub const H2_STREAMS_OWN_MIN: usize = 8;
/// Body bytes that one HTTP/2 stream, and all of a connection together, may send ahead of being read.
pub const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Answer bytes that one HTTP/2 stream may have waiting to be sent.
pub const H2_SEND_BYTES_MAX: usize = 128 * 1024;
/// Answers up to this size are sent whole, with Content-Length; larger ones in frames of about this size.
pub const ANSWER_FRAME_BYTES: usize = 64 * 1024;
/// What a streamed answer holds: a frame on its way, and the next one in the making. One whose fragments are longer takes room for them too.
pub const STREAM_BYTES: usize = 2 * ANSWER_FRAME_BYTES;
/// Streams that wait for room to hold a long fragment, which they hold already; and for how long. Beyond that the answer is cut.
pub const STREAMS_WAITING_MAX: usize = 8;
pub const STREAM_WAIT: Duration = Duration::from_secs(10);
pub const STREAM_WAIT_STEP: Duration = Duration::from_millis(20);
/// Bodies up to this size have permits of their own for their bytes.
pub const SHORT_BODY_BYTES_MAX: usize = 64 * 1024;
/// What is still read of a body that was refused, and for how long: a connection closed on unread bytes is reset, and the
/// client would never see why.
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
pub const LINGER_TIME: Duration = Duration::from_secs(5);
/// One connection that finds no place, for each so many that do, is waited for: for its request, and then until it has read why it is
/// refused. The others are told at once, and may not take that for an answer.
pub const TURNED_AWAY_PART: usize = 16;
pub const TURNED_AWAY_MAX: usize = 64;
pub const TURNED_AWAY_WAIT: Duration = Duration::from_secs(1);
pub const TURNED_AWAY_READ_BYTES: usize = 8 * 1024;
/// Operations of one batch that are in flight at once.
pub const BATCH_IN_FLIGHT_MAX: usize = 256;
/// A body up to this size is read before its request is refused: it has come with its head, and the connection goes on.
pub const BODY_READ_BEFORE_REFUSAL_MAX: u64 = 16 * 1024;
/// How old metrics may be when there is no room to make them for one who asks.
pub const METRICS_AGE_MAX: Duration = Duration::from_secs(1);
/// When to come back after a refusal at the door: permits come free within milliseconds.
pub const RETRY_AFTER_S: u32 = 1;

#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// Open connections. Beyond it a new one is answered 503 and closed. Each costs a file descriptor and, once used,
    /// about 24 KiB. Fewer where the process may not have so many files open (`cli::launch`).
    pub connections_max: usize,
    /// Requests over HTTP/2 whose answers have not been taken to their end, over all connections. Each costs some KiB, and there a
    /// connection can hold [`H2_STREAMS_MAX`].
    pub h2_streams_max: usize,
    /// Requests between the end of their body and when their answer is made, or, of one that is made while it is sent, its end.
    pub requests_in_flight_max: usize,
    /// Writes, and as many reads, at work once they queue for longer than a burst, where commits are short; see `admission`.
    /// Five times what keeps a node busy, so that a request takes no more than about five times as long.
    pub requests_at_work_max: usize,
    /// Bytes of all bodies that are being read or worked on.
    pub body_bytes_in_flight_max: usize,
    /// Besides, those of bodies up to [`SHORT_BODY_BYTES_MAX`].
    pub short_body_bytes_in_flight_max: usize,
    /// Bytes of all answers that are being made or sent; a streamed one counts with its buffers.
    pub answer_bytes_in_flight_max: usize,
    /// Bytes of refusals and metrics that are being sent: what anybody is told, who may leave it untaken.
    pub public_bytes_in_flight_max: usize,
    /// From the first byte of a request's head to its last.
    pub head_timeout: Duration,
    /// How long a connection may do nothing between requests.
    pub idle_timeout: Duration,
    /// How long a client may leave the bytes of an answer untaken; half as long again over HTTP/2, see `untaken`.
    pub write_stall_timeout: Duration,
    /// An answer may wait for its client for as long as one stall may take, all in all, and a second more for every so many bytes that were
    /// taken of it; then anew.
    pub answer_bytes_per_s_min: u32,
    /// A body may take this long, and a second more for every `body_bytes_per_s_min` bytes that have arrived, of the last so many of which
    /// that makes as much again.
    pub body_grace: Duration,
    pub body_bytes_per_s_min: u32,
    /// How long requests in flight may go on once the front shuts down.
    pub shutdown_deadline: Duration,
    /// How often connections are looked over; the three timeouts of a connection are exact to this.
    pub sweep_interval: Duration,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            h2_streams_max: 8192,
            requests_in_flight_max: 4096,
            requests_at_work_max: 320,
            body_bytes_in_flight_max: 64 * 1024 * 1024,
            short_body_bytes_in_flight_max: 16 * 1024 * 1024,
            answer_bytes_in_flight_max: 128 * 1024 * 1024,
            public_bytes_in_flight_max: 16 * 1024 * 1024,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(600),
            write_stall_timeout: Duration::from_secs(30),
            answer_bytes_per_s_min: 16 * 1024,
            body_grace: Duration::from_secs(10),
            body_bytes_per_s_min: 16 * 1024,
            shutdown_deadline: Duration::from_secs(20),
            sweep_interval: Duration::from_secs(1),
        }
    }
}
