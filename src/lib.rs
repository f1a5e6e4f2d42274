//! KV-Storage: a key-value store in which a key holds a list of text values, per user.
//!
//! # Code map
//!
//! In the order of their dependencies; a module uses only what stands before it.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`types`] | names and limits that everything shares |
//! | [`planted`] | bugs on purpose, for tests alone |
//! | [`quota`] | counted permits: taken at once or not at all |
//! | [`core`] | the replicated data type, the hash space and who holds which slot: ops, stamps, clocks, the fold, placement. Pure |
//! | [`store`] | the storage engine: log, memtable, segments, merges, recovery. Synchronous |
//! | [`shard`] | one run of slots: a state machine that hands out its disk work as jobs |
//! | [`env`] | the outside world as traits: disk, sockets, wall clock, entropy, threads |
//! | [`wire`] | the messages between nodes |
//! | [`net`] | what carries these messages, encrypted with the cluster key: datagrams and streams of frames |
//! | [`node`] | the actors around shards, their supervisor, the cluster, and the handle to all of it |
//! | [`users`] | who may use the store, and the check of every request's credentials |
//! | [`api`] | the JSON bodies, shared by server, client and command line |
//! | [`http`] | the front: the API over HTTP/1.1 and HTTP/2 |
//! | [`server`] | node, users and front under one supervision tree |
//! | [`os`] | the real disk, sockets, clock, entropy and threads |
//! | [`client`] | a typed client; knows nothing of nodes |
//! | [`bench`] | the load of `kv bench`, and its report; knows nothing of nodes either |
//! | [`config`], [`cli`] | settings and the `kv` command |
//!
//! To read the code, go through `core/op`, `core/clock`, `core/fold` (the data type); `store/log/mod`, `store/segment/format` (bytes on
//! disk), `store/recover` (rules of recovery); `shard/mod`, `shard/write`, `shard/commit` (state machine); `node/shards/shard_actor` (actor
//! and group commit); `node/cluster/mod`, its `coordinator/write` and `coordinator/read` (quorums), `catch_up/sync` (anti-entropy) and
//! `lives/mod` (who may vote).
//!
//! # Vocabulary
//!
//! | word | meaning | where |
//! | --- | --- | --- |
//! | op | one immutable fact about a key: a part, a value, or a clear | `core::op` |
//! | origin, life | what one start of one node stamps with (a shard that is reopened takes a further origin); never used twice | `core::stamp`, `node::cluster::lives` |
//! | dot | the name of one op: (origin, slot, sequence). An origin numbers its ops of a slot without gaps | `core::op` |
//! | stamp | hybrid logical time, then origin: the total order of ops | `core::stamp` |
//! | fold, view | a key's ops in stamp order, folded into the list of finished values that a reader sees | `core::fold` |
//! | clock | a version vector with gaps: per origin, the set of sequences that a replica *covers*, that is, holds or knows to be dropped | `core::clock` |
//! | clear | removes exactly the ops of its key that its clock (its causal context) covers | `core::op` |
//! | spent | what remains of a cleared op that had a request id, so that a retry still counts as done | `store::compact` |
//! | stable | covered by every replica's clock. A clear that is, with all that it saw, can be *collected*: its record goes, its dot stays in the segment's footer | `store::compact` |
//! | lost, damaged | a dot that was on this disk and is unreadable now; a slot with lost dots is damaged, and leaves its answers to other replicas | `store::recover` |
//! | group | ops of one shard that are written and synced together | `shard::commit` |
//! | seal, merge | a log becomes a sorted segment; several segments become one | `store::compact` |
//! | slot | 1/1024 of the hash space: the unit of placement and of catching up; the *system slot* beside them is held by every node | `core::slot` |
//! | seat | a place in the cluster's layout; whoever replaces a lost node takes its seat, so nobody else's data moves | `core::placement` |
//! | votes, its word counts | a replica counts towards quorums: it has everything that it ever acknowledged of the slot | `node::cluster::lives` |
//! | catching up, pull | asking a peer for the ops that one's own clock lacks | `node::cluster::catch_up` |
//!
//! # How an add travels
//!
//! `http::front` takes a permit and reads the body; `users` checks the credential against a keyed digest in memory; `node::local` finds the
//! slot's shard, takes a permit of its queue and leaves the write in the shard's inbox; the shard's actor, woken once for all that gathered
//! there, gives each op its dot and stamp and appends its record to the open group of the log; the group goes out as one write and one
//! `fdatasync`, on the very thread that runs the actor (`env::Blocking::run_here`: a change of threads costs as much as half a sync); then
//! everyone who waited for the group is answered, and the inbox has filled again.
//!
//! In a cluster `node::cluster` stands before the shards; any replica of the slot can coordinate. It first asks a
//! quorum for the highest time that each knows and whether the request id was used, and sends its own time along, so
//! that they stamp later. The op is stamped after all of these times, appended here and at the other replicas, and
//! acknowledged once enough of them have it durably. Ops that are stamped together travel in one message
//! (`node::shards::spreading`): at once to as many replicas as the quorum needs, a moment later to the rest. A node
//! that is no replica forwards the request. Whatever a replica misses, it asks for itself, by its clock
//! (`node::cluster::catch_up`).
//!
//! # How a get travels
//!
//! No actor is asked. A shard publishes its memtables and segments (`shard::published`), and a read takes a snapshot of them: the
//! key's durable ops in memtables, and the segments whose filter lets the key through. The caller folds it: one pass learns what is
//! visible, then the values stream out; small keys are read once and kept between the passes. A key of nothing but text,
//! which most are, needs no fold: its texts come as they lie there (`store::plain`); of a long list, what a page skips is
//! not even read (`store::spread`). Blocks come from the cache, or with one read each from the disk, on a thread that may block.
//!
//! At quorum, the digest of the slot's clock is compared with those of other replicas. If too few agree, replicas
//! first exchange what each lacks of the key and make it durable. Ops that arrive during the exchange are not shown
//! unless everything acknowledged before them is certain to be included.
//!
//! # Architecture invariants
//!
//! - **One owner.** Only a shard's actor changes the shard (others may raise the highest time that it knows); only its jobs write its
//!   files. Everyone else gets snapshots, which stay valid whatever happens meanwhile.
//! - **Visible means durable.** An op is shown, counted as taken, or acknowledged only when the group it was written in is synced.
//! - **A failed sync is the end of that shard's life.** It is reopened from its files, after its last job is done.
//! - **The disk says what is held.** There is no manifest and no separate clock: footers and logs are the truth, and a file that was
//!   merged away is named by the file that took it over until its removal is durable.
//! - **A dot is never used twice.** A member takes a new origin at every start, and for a shard at every reopening:
//!   ops that it stamped last and lost may survive on other replicas.
//! - **What a user stored never passes for a record.** The checksums of a log are seeded with a secret of its folder; its file and the header of
//!   every log hold it.
//! - **Any two quorums intersect, even across a change of members.** A node that took over a seat counts towards no
//!   quorum until every other replica of the slot uses a member table that names it.
//! - **Ops are never changed.** A clear covers dots; a merge drops what is covered; nothing decides by wall-clock time but how long a request
//!   id is remembered at least.
//! - **Waiting is bounded at the door.** Every queue has a permit in front of it, and a request that gets none is refused at once. Behind
//!   the door a request may wait, with its permit, for a turn at the disk or at Argon2, for its login's delay, or for room for an answer
//!   that is being sent: never more of them than there are permits.
//! - **Below the edge nothing asks the operating system.** A lint forbids it; `sim` runs the same code on other disks and clocks.
#![forbid(unsafe_code)]
// They panic where nobody can read it: a full disk under the log would end the node.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod api;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod env;
pub mod http;
pub mod net;
pub mod node;
pub mod os;
pub mod quota;
pub mod server;
pub mod shard;
pub mod store;
pub mod types;
pub mod users;
pub mod wire;

pub use kv_planted as planted;
