//! What anybody asks for leaves threads for the others.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;

/// Longer than anything takes, in virtual time.
const LONG: Duration = Duration::from_secs(60);
const READERS: usize = 100;

/// Runs every job where it is submitted, but for those that come while it holds them.
#[derive(Default)]
struct Holding {
    holds: AtomicBool,
    held: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Blocking for Holding {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        match self.holds.load(Ordering::Relaxed) {
            true => self.held.lock().push(job),
            false => job(),
        }
    }
}

impl Holding {
    fn hold(&self, holds: bool) {
        self.holds.store(holds, Ordering::Relaxed);
    }

    fn held(&self) -> usize {
        self.held.lock().len()
    }

    fn run_held(&self) {
        self.hold(false);
        let held = std::mem::take(&mut *self.held.lock());
        held.into_iter().for_each(|job| job());
    }
}

async fn node_on(disk: &MemoryDisk) -> (Node, Arc<Holding>) {
    node_with(disk, Limits::default()).await
}

async fn node_with(disk: &MemoryDisk, limits: Limits) -> (Node, Arc<Holding>) {
    let jobs = Arc::new(Holding::default());
    let env = Env {
        blocking: jobs.clone(),
        ..env(disk)
    };
    let no_cache = NodeConfig {
        cache_bytes: 0,
        limits,
        ..config()
    };
    (Node::start(env, no_cache).await.unwrap(), jobs)
}

fn soon() -> Terms {
    Terms {
        deadline: tokio::time::Instant::now() + Duration::from_millis(1),
        ..Terms::usual()
    }
}

async fn add_to(node: &Node, key: &Key, text: &str, finish: bool, terms: Terms) -> Result<Added, OpError> {
    node.add(&user(), key, text.into(), finish, None, terms).await
}

/// Until all that can go on has gone on.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The shard of all keys is reopened, and remembers nothing.
async fn reopen(node: &Node) {
    let before = node.figures()[0].restarts;
    node.kill_shard_of(&user(), &key(0));
    let serves = || node.is_ready() && node.figures()[0].restarts > before;
    let reopened = async {
        while !serves() {
            settled().await;
        }
    };
    tokio::time::timeout(LONG, reopened).await.expect("it is opened anew");
}

/// So many lists that had parts, each of so many values, all of them sealed.
async fn lists_with_parts(node: &Node, lists: usize, values: usize) {
    for list in 0..lists {
        add_to(node, &key(list), "part", false, Terms::usual()).await.unwrap();
        for value in 0..values {
            let text = noise((list * values + value) as u64);
            add_to(node, &key(list), &text, true, Terms::usual()).await.unwrap();
        }
    }
    reopen(node).await;
    let stats = || node.figures().remove(0).stats;
    let sealed = async {
        while stats().sealed_ops < (lists * (values + 1)) as u64 {
            settled().await;
        }
    };
    let sealed = tokio::time::timeout(LONG, sealed).await;
    assert!(sealed.is_ok(), "{:?}", stats());
}

/// A text that does not compress.
fn noise(seed: u64) -> String {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 58) as u8)
    };
    (0..1000).map(|_| next()).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_of_keys_that_nobody_waits_for_take_few_threads() {
    let (node, jobs) = node_on(&MemoryDisk::new()).await;
    add_to(&node, &key(0), "v", true, Terms::usual()).await.unwrap();
    let late = Err(OpError::Deadline { maybe_applied: false });
    let one = user();
    jobs.hold(true);
    for _ in 0..READERS {
        let listed = node.list_keys(&one, "", None, 10, soon());
        assert_eq!(tokio::time::timeout(LONG, listed).await, Ok(late.clone()));
    }
    assert!((1..=2).contains(&jobs.held()), "{} of one user", jobs.held());
    for number in 0..READERS {
        let other = UserId::new(&format!("u{number}")).unwrap();
        let listed = node.list_keys(&other, "", None, 10, soon());
        assert_eq!(tokio::time::timeout(LONG, listed).await, Ok(late.clone()));
    }
    assert!(jobs.held() <= 8, "{} of all", jobs.held());
    jobs.run_held();
    let listed = node.list_keys(&user(), "", None, 10, Terms::usual()).await;
    assert_eq!(listed.unwrap().keys, [key(0)]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn adds_that_come_at_once_read_a_list_once() {
    let disk = MemoryDisk::new();
    let (node, _) = node_on(&disk).await;
    lists_with_parts(&node, 1, 300).await;
    let before = disk.read_bytes();
    let key = key(0);
    let adds = (0..READERS).map(|_| add_to(&node, &key, "v", true, Terms::usual()));
    assert!(join_all(adds).await.iter().all(Result::is_ok));
    let read = disk.read_bytes() - before;
    // Twice, as the clears have to be known first.
    let list_bytes = node.figures()[0].stats.segment_bytes;
    assert!(read < 4 * list_bytes, "{read} bytes of a list of {list_bytes}");
    assert_eq!(
        node.count(&user(), &key, Terms::usual()).await,
        Ok(300 + READERS as u64)
    );
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn look_ups_take_few_threads_and_do_not_keep_a_shard_from_being_opened_anew() {
    let (node, jobs) = node_on(&MemoryDisk::new()).await;
    lists_with_parts(&node, READERS, 3).await;
    jobs.hold(true);
    let keys: Vec<Key> = (0..READERS).map(key).collect();
    let terms = Terms {
        deadline: tokio::time::Instant::now() + LONG,
        ..Terms::usual()
    };
    let mut adds = Box::pin(join_all(keys.iter().map(|key| add_to(&node, key, "v", true, terms))));
    assert!(futures_util::poll!(&mut adds).is_pending());
    settled().await;
    let held = jobs.held();
    assert!((1..=32).contains(&held), "{held} look-ups");
    jobs.hold(false);
    // The jobs of the shard that ends are not done yet.
    reopen(&node).await;
    assert_eq!(jobs.held(), held);
    assert!(adds.await.iter().all(Result::is_err));
    jobs.run_held();
    settled().await;
    let adds = keys.iter().map(|key| add_to(&node, key, "v", true, Terms::usual()));
    assert!(join_all(adds).await.iter().all(Result::is_ok));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_look_up_learnt_counts_though_nobody_waits_for_its_write_any_more() {
    let (node, jobs) = node_on(&MemoryDisk::new()).await;
    lists_with_parts(&node, 1, 300).await;
    jobs.hold(true);
    let late = Err(OpError::Deadline { maybe_applied: true });
    let key = key(0);
    // It is at work when its client goes away, and so are those behind it.
    assert_eq!(add_to(&node, &key, "late", true, soon()).await, late);
    assert_eq!(add_to(&node, &key, "later", true, soon()).await, late);
    assert_eq!(jobs.held(), 1);
    jobs.run_held();
    settled().await;
    jobs.hold(true);
    let added = add_to(&node, &key, "v", true, soon()).await;
    assert_eq!((added, jobs.held()), (Ok(Added::Appended), 0));
    jobs.hold(false);
    assert_eq!(node.count(&user(), &key, Terms::usual()).await, Ok(301));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn writes_that_nobody_waits_for_keep_no_places_while_their_key_is_looked_up() {
    const PLACES: usize = 4;
    let limits = Limits {
        shard_requests: PLACES,
        ..Limits::default()
    };
    let (node, jobs) = node_with(&MemoryDisk::new(), limits).await;
    lists_with_parts(&node, 1, 3).await;
    // The disk hangs.
    jobs.hold(true);
    let (key, user) = (key(0), user());
    let patient = Terms {
        deadline: tokio::time::Instant::now() + LONG,
        ..Terms::usual()
    };
    let mut first = Box::pin(add_to(&node, &key, "first", true, patient));
    assert!(futures_util::poll!(&mut first).is_pending());
    let late = Err(OpError::Deadline { maybe_applied: true });
    for _ in 0..3 * PLACES {
        assert_eq!(add_to(&node, &key, "late", true, soon()).await, late);
        // The shard looks once a second, in virtual time.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    jobs.run_held();
    assert_eq!(first.await, Ok(Added::Appended));
    assert_eq!(node.count(&user, &key, Terms::usual()).await, Ok(4));
    node.stop().await;
}
