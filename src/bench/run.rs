//! Runs the load: connects, divides the connections among threads, watches them, and adds up what they counted.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use tokio::task::JoinSet;

use super::connection::{Connection, Work};
use super::keys::{Distribution, KeyPicker};
use super::mix::Mix;
use super::protocol::Protocol;
use super::record::{Interval, Live, Record};
use super::report::{Report, Second};
use super::schedule::Schedule;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the threads to get ready before the first operation is due.
const RUN_UP: Duration = Duration::from_millis(5);
/// How often the watcher looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often, at the least, it is seen that the run was stopped, or that answers were waited for long enough.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long answers are waited for when the run was stopped.
const DRAIN_STOPPED: Duration = Duration::from_secs(1);
/// More threads than this for one server only get in each other's way.
const THREADS_MAX: usize = 8;

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// The connections are spread over these in turn; at least one.
    pub addresses: Vec<SocketAddr>,
    pub connections: usize,
    pub warmup: Duration,
    pub duration: Duration,
    /// Operations a second over all connections; None: as many as they can.
    pub rate_per_s: Option<f64>,
    pub mix: Mix,
    pub keys: u64,
    pub distribution: Distribution,
    pub seed: u64,
    /// How long answers may be waited for after the end.
    pub drain: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("no address of a server was given")]
    NoAddress,
    #[error("cannot connect to {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("the load generator cannot run")]
    Io(#[from] io::Error),
    #[error("a thread of the load generator failed")]
    Thread,
    #[error("it was stopped before anything was measured")]
    NothingMeasured,
}

/// Blocks until the run is over. `watch` is told about each second.
pub fn run<P: Protocol>(
    load: &Load,
    protocol: impl FnMut(SocketAddr) -> P,
    watch: impl FnMut(&Second),
) -> Result<Report, LoadError> {
    run_or_stop(load, protocol, watch, &AtomicBool::new(false))
}

/// The same, but it ends soon after `stop` is set, with what was measured by then.
pub fn run_or_stop<P: Protocol>(
    load: &Load,
    mut protocol: impl FnMut(SocketAddr) -> P,
    mut watch: impl FnMut(&Second),
    stop: &AtomicBool,
) -> Result<Report, LoadError> {
    let threads = threads(load.connections);
    let mut shares: Vec<Vec<Made<P>>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..load.connections {
        let address = *load
            .addresses
            .get(index % load.addresses.len().max(1))
            .ok_or(LoadError::NoAddress)?;
        let stream = connect(address).map_err(|source| LoadError::Connect { address, source })?;
        shares[index % threads].push(Made {
            address,
            stream,
            protocol: protocol(address),
            // A stream of numbers of its own for each connection.
            random: Xoshiro256PlusPlus::seed_from_u64(load.seed ^ ((index as u64 + 1) << 32)),
        });
    }
    let start = Instant::now() + RUN_UP;
    let schedule = Arc::new(Schedule::new(start, load.warmup, load.duration, load.rate_per_s));
    let lives: Vec<Live> = shares.iter().map(|_| Live::default()).collect();
    std::thread::scope(|scope| {
        let handles: Vec<_> = shares
            .into_iter()
            .zip(&lives)
            .map(|(share, live)| {
                let (schedule, live) = (schedule.clone(), live.clone());
                scope.spawn(move || drive(load, share, schedule, live))
            })
            .collect();
        let all_ended = || handles.iter().all(std::thread::ScopedJoinHandle::is_finished);
        let seconds = watch_until(&lives, &schedule, all_ended, &mut watch, stop);
        let mut sum = Record::default();
        for handle in handles {
            sum.add(&handle.join().map_err(|_| LoadError::Thread)??);
        }
        if schedule.measured().is_zero() {
            return Err(LoadError::NothingMeasured);
        }
        Ok(Report::new(load, &schedule, &sum, seconds))
    })
}

/// Half of the processors, for the server needs some too.
fn threads(connections: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (processors / 2).clamp(1, THREADS_MAX).min(connections.max(1))
}

/// A connection that is made but not used yet.
struct Made<P> {
    address: SocketAddr,
    stream: TcpStream,
    protocol: P,
    random: Xoshiro256PlusPlus,
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// One thread: all of its connections on one runtime, so that nothing is shared on the way of a request.
fn drive<P: Protocol>(
    load: &Load,
    share: Vec<Made<P>>,
    schedule: Arc<Schedule>,
    live: Live,
) -> Result<Record, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let record = Rc::new(RefCell::new(Record::watched_by(live)));
    let keys = KeyPicker::new(load.keys, load.distribution);
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut connections = JoinSet::new();
        for made in share {
            let work = Work {
                schedule: schedule.clone(),
                mix: load.mix,
                keys: keys.clone(),
                record: record.clone(),
            };
            let stream = tokio::net::TcpStream::from_std(made.stream)?;
            let connection = Connection::new(made.address, stream, made.protocol, made.random, work)?;
            connections.spawn_local(connection.drive());
        }
        loop {
            match tokio::time::timeout(LOOK_EVERY, connections.join_next()).await {
                Ok(Some(Ok(outcome))) => outcome?,
                Ok(Some(Err(_))) => return Err(LoadError::Thread),
                Ok(None) => break,
                Err(_) => {
                    let drain = if schedule.is_stopped() {
                        load.drain.min(DRAIN_STOPPED)
                    } else {
                        load.drain
                    };
                    if Instant::now() >= schedule.end() + drain {
                        // Late enough. What is under way is counted as it is dropped.
                        break;
                    }
                }
            }
        }
        connections.shutdown().await;
        Ok(())
    })?;
    let record = std::mem::take(&mut *record.borrow_mut());
    Ok(record)
}

fn watch_until(
    lives: &[Live],
    schedule: &Schedule,
    all_ended: impl Fn() -> bool,
    watch: &mut impl FnMut(&Second),
    stop: &AtomicBool,
) -> Vec<Second> {
    let mut seconds = Vec::new();
    let mut due = schedule.start() + INTERVAL;
    while !all_ended() {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) {
            schedule.stop(now);
        }
        if now < due {
            // Short enough for the end not to be waited for in vain.
            std::thread::sleep((due - now).min(LOOK_EVERY));
            continue;
        }
        let second = Second::new(due - schedule.start(), &take(lives));
        due += INTERVAL;
        watch(&second);
        seconds.push(second);
    }
    // The rest of a second.
    let rest = take(lives);
    if rest.errors > 0 || rest.latencies.count() > 0 {
        seconds.push(Second::new(schedule.start().elapsed(), &rest));
    }
    seconds
}

/// What happened in all threads since the last time.
fn take(lives: &[Live]) -> Interval {
    let mut sum = Interval::default();
    for live in lives {
        let mut live = live.lock();
        sum.latencies.add(&live.latencies);
        sum.errors += live.errors;
        live.latencies.clear();
        live.errors = 0;
    }
    sum
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
