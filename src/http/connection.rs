//! What each connection is doing, and the sweep that cuts those which do nothing for too long.
//!
//! One clock for all, moved by the sweep, and a few atomics a connection: no timer per connection or request, so thousands of
//! idle connections cost nothing but their place in a table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::quota::Share;

use super::config::FrontConfig;
use super::front::Front;
use super::untaken::{Clock, Untaken};

/// Milliseconds on the sweep's clock; 0 stands for "not now".
type Since = AtomicU64;

#[derive(Debug)]
pub struct Activity {
    clock: Arc<Clock>,
    /// Requests whose answer has not been sent to its end.
    busy: AtomicU64,
    http2: AtomicBool,
    /// When bytes last came in, or an answer ended.
    heard_ms: Since,
    /// Since when the head of a request has been arriving, or the rest of a body that was refused.
    head_since_ms: Since,
    /// Bytes that came after the head of the request at hand: its body, and what it has sent of the next one; or `UNKNOWN`.
    after_head_bytes: AtomicU64,
    /// What has not come yet of the body of the last request, which was answered before.
    body_left_bytes: AtomicU64,
    /// Since when the client takes no bytes although some wait for it.
    stalled_since_ms: Since,
    /// How long bytes of the answer at hand have waited for the client before, all in all, and how many it has taken.
    waited_ms: AtomicU64,
    taken_bytes: AtomicU64,
    /// Answers over HTTP/2 that the client has not let come.
    pub(super) untaken: Untaken,
}

/// After a request that came together with the one before it, or whose body does not say how long it is: where the next head begins cannot be
/// told. Such a connection counts as idle until more of the next head comes.
const UNKNOWN: u64 = u64::MAX;

impl Activity {
    fn new(clock: Arc<Clock>) -> Self {
        Self {
            busy: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            heard_ms: Since::new(clock.now_ms()),
            head_since_ms: Since::new(0),
            after_head_bytes: AtomicU64::new(0),
            body_left_bytes: AtomicU64::new(0),
            stalled_since_ms: Since::new(0),
            waited_ms: AtomicU64::new(0),
            taken_bytes: AtomicU64::new(0),
            untaken: Untaken::new(clock.clone()),
            clock,
        }
    }

    /// Requests whose answer has not been sent to its end.
    pub fn busy(&self) -> u64 {
        self.busy.load(Relaxed)
    }

    pub fn speaks_http2(&self) {
        self.http2.store(true, Relaxed);
        self.head_since_ms.store(0, Relaxed);
    }

    pub(super) fn heard(&self, bytes: &[u8]) {
        let now_ms = self.clock.now_ms();
        self.heard_ms.store(now_ms, Relaxed);
        // Over HTTP/2 much comes in that belongs to no request; there the head must fit one header list instead.
        if self.http2.load(Relaxed) {
            return;
        }
        if self.busy.load(Relaxed) == 0 {
            let next = self.past_body(bytes);
            if next.is_empty() && self.body_left_bytes.load(Relaxed) == 0 {
                return;
            }
            if self.head_since_ms.load(Relaxed) == 0 {
                self.head_since_ms.store(now_ms, Relaxed);
            }
            self.after_head_bytes.store(bytes_after_head(next) as u64, Relaxed);
        } else {
            let known = self.after_head_bytes.load(Relaxed);
            self.after_head_bytes
                .store(known.saturating_add(bytes.len() as u64), Relaxed);
        }
    }

    /// What of the bytes comes after the body of a request that was answered before it had come. At its end that is slow no more.
    fn past_body<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let left = self.body_left_bytes.load(Relaxed);
        if left == 0 {
            return bytes;
        }
        let of_body = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - of_body as u64;
        self.body_left_bytes.store(left, Relaxed);
        if left == 0 {
            self.head_since_ms.store(0, Relaxed);
        }
        bytes.get(of_body..).unwrap_or_default()
    }

    /// An answer came to its end, after a request whose body had so many bytes.
    fn answered(&self, body_bytes: Option<u64>) {
        let now_ms = self.clock.now_ms();
        self.heard_ms.store(now_ms, Relaxed);
        let after_head_bytes = self.after_head_bytes.swap(UNKNOWN, Relaxed);
        let Some(body_bytes) = body_bytes.filter(|_| after_head_bytes != UNKNOWN && !self.http2.load(Relaxed)) else {
            return;
        };
        if after_head_bytes > body_bytes {
            self.head_since_ms.store(now_ms, Relaxed);
        }
        let left = body_bytes.saturating_sub(after_head_bytes);
        self.body_left_bytes.store(left, Relaxed);
    }

    pub(super) fn took_bytes(&self, bytes: u64) {
        let since = self.stalled_since_ms.swap(0, Relaxed);
        if since != 0 {
            let waited = self.clock.now_ms().saturating_sub(since);
            self.waited_ms.fetch_add(waited, Relaxed);
        }
        self.taken_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn took_nothing(&self) {
        if self.stalled_since_ms.load(Relaxed) == 0 {
            self.stalled_since_ms.store(self.clock.now_ms(), Relaxed);
        }
    }

    /// Whether the answer has waited for its client for longer than one stall may take and what the client has taken is worth: a trickle would
    /// hold what the answer is read from as long as it likes.
    fn trickles(&self, now_ms: u64, config: &FrontConfig) -> bool {
        let since = self.stalled_since_ms.load(Relaxed);
        if since == 0 {
            return false;
        }
        let stalled = now_ms.saturating_sub(since);
        let rate = u64::from(config.answer_bytes_per_s_min.max(1));
        let worth = self.taken_bytes.load(Relaxed).saturating_mul(1000) / rate;
        let debt = (self.waited_ms.load(Relaxed) + stalled).saturating_sub(worth);
        let stall_ms = config.write_stall_timeout.as_millis();
        if u128::from(worth) >= stall_ms {
            // What was taken quickly must not count for hours. The stall at hand is counted when it ends.
            self.taken_bytes.store(0, Relaxed);
            self.waited_ms.store(debt.saturating_sub(stalled), Relaxed);
        }
        u128::from(debt) > stall_ms
    }

    /// Why this connection must go, if it must.
    fn verdict(&self, config: &FrontConfig) -> Option<&'static str> {
        let now_ms = self.clock.now_ms();
        let longer_than = |since: &Since, timeout: std::time::Duration| {
            let since = since.load(Relaxed);
            since != 0 && u128::from(now_ms.saturating_sub(since)) > timeout.as_millis()
        };
        if longer_than(&self.stalled_since_ms, config.write_stall_timeout)
            || self.trickles(now_ms, config)
            || self.untaken.is_overdue()
        {
            return Some("slow_reader");
        }
        if self.busy.load(Relaxed) > 0 {
            return None;
        }
        if longer_than(&self.head_since_ms, config.head_timeout) {
            return Some("slow_head");
        }
        longer_than(&self.heard_ms, config.idle_timeout).then_some("idle")
    }
}

/// Held from the end of a request's head to the end of its answer.
pub struct Busy {
    activity: Arc<Activity>,
    body_bytes: Option<u64>,
    /// Over HTTP/2, its place among the streams of all connections. The rest of a refused body may keep it longer.
    stream: Option<Arc<Share>>,
}

impl Busy {
    /// `body_bytes`: None when the head does not tell.
    pub fn new(activity: &Arc<Activity>, stream: Option<Share>, body_bytes: Option<u64>) -> Self {
        if activity.busy.fetch_add(1, Relaxed) == 0 {
            activity.waited_ms.store(0, Relaxed);
            activity.taken_bytes.store(0, Relaxed);
        }
        activity.head_since_ms.store(0, Relaxed);
        activity.body_left_bytes.store(0, Relaxed);
        Self {
            activity: activity.clone(),
            body_bytes,
            stream: stream.map(Arc::new),
        }
    }

    pub fn is_http2(&self) -> bool {
        self.stream.is_some()
    }

    pub fn stream(&self) -> Option<Arc<Share>> {
        self.stream.clone()
    }

    pub fn untaken(&self) -> &Untaken {
        &self.activity.untaken
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.answered(self.body_bytes);
        self.activity.busy.fetch_sub(1, Relaxed);
    }
}

/// How many of the bytes come after the empty line that ends a head; none when that is not among them.
fn bytes_after_head(bytes: &[u8]) -> usize {
    for at in memchr::memchr_iter(b'\n', bytes) {
        let rest = bytes.get(at + 1..).unwrap_or_default();
        let body = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"));
        if let Some(body) = body {
            return body.len();
        }
    }
    0
}

/// The open connections.
#[derive(Debug, Default)]
pub struct Connections {
    clock: Arc<Clock>,
    open: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    activity: Arc<Activity>,
    /// Comes a moment after the connection, when its task has been spawned.
    task: Option<AbortHandle>,
}

impl Connections {
    pub fn count(&self) -> usize {
        self.open.lock().entries.len()
    }

    /// None when there are `max` already.
    pub fn enter<B>(front: &Arc<Front<B>>, max: usize) -> Option<Place<B>> {
        let connections = &front.connections;
        let mut table = connections.open.lock();
        if table.entries.len() >= max {
            return None;
        }
        let activity = Arc::new(Activity::new(connections.clock.clone()));
        let id = table.next_id;
        table.next_id += 1;
        table.entries.insert(
            id,
            Entry {
                activity: activity.clone(),
                task: None,
            },
        );
        front.metrics.open_connections.inc();
        Some(Place {
            front: front.clone(),
            id,
            activity,
        })
    }

    /// Names the task that serves connection `id`; nothing when it has ended already.
    pub fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.open.lock().entries.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// Moves the clock and cuts what has been silent for too long; gives the reasons.
    pub fn sweep(&self, config: &FrontConfig) -> Vec<&'static str> {
        self.clock.move_on(config.write_stall_timeout);
        // Once: the task may not have ended yet when the next sweep comes.
        let cut = |entry: &mut Entry| {
            let reason = entry.activity.verdict(config)?;
            entry.task.take()?.abort();
            Some(reason)
        };
        self.open.lock().entries.values_mut().filter_map(cut).collect()
    }

    pub fn abort_all(&self) {
        for task in self
            .open
            .lock()
            .entries
            .values()
            .filter_map(|entry| entry.task.as_ref())
        {
            task.abort();
        }
    }
}

/// A connection's place in the table; dropping it leaves.
pub struct Place<B> {
    pub front: Arc<Front<B>>,
    pub id: u64,
    pub activity: Arc<Activity>,
}

impl<B> Drop for Place<B> {
    fn drop(&mut self) {
        self.front.connections.open.lock().entries.remove(&self.id);
        self.front.metrics.open_connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_quickly_is_no_credit_for_a_trickle_that_follows() {
        let config = FrontConfig::default();
        let (stall_ms, rate) = (
            config.write_stall_timeout.as_millis() as u64,
            u64::from(config.answer_bytes_per_s_min),
        );
        let activity = Activity::new(Arc::default());
        let mut now_ms = 1;
        let mut stall = |ms: u64, bytes: u64| {
            activity.took_nothing();
            now_ms += ms;
            activity.clock.move_to(now_ms - 1, config.write_stall_timeout);
            let is_cut = activity.verdict(&config).is_some();
            activity.took_bytes(bytes);
            is_cut
        };
        // Slow, and then a gigabyte.
        assert!(!stall(stall_ms - 1, 2 * rate) && !stall(1_500, 1 << 30));
        let trickle = (0..10).position(|_| stall(stall_ms / 2, rate));
        assert!(trickle.is_some_and(|at| at < 5), "{trickle:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_cut_and_counted_once_however_late_its_task_ends() {
        let config = FrontConfig::default();
        let connections = Connections::default();
        let task = tokio::spawn(std::future::pending::<()>());
        let entry = Entry {
            activity: Arc::new(Activity::new(connections.clock.clone())),
            task: Some(task.abort_handle()),
        };
        connections.open.lock().entries.insert(0, entry);
        tokio::time::advance(config.idle_timeout + config.sweep_interval).await;
        assert_eq!(connections.sweep(&config), ["idle"]);
        assert!(connections.sweep(&config).is_empty());
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    }
}
