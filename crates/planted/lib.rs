//! Bugs on purpose: what the simulation plants in a node or a client, to prove that its checks find them.
//!
//! Invariant: without the feature `on`, which the tests of the store alone turn on, [`planted`] is a constant `false`, and the compiler
//! leaves nothing of any of it.
#![forbid(unsafe_code)]

/// A bug that a store like this one could have; it is planted where its name is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A write is acknowledged when its group is about to be written.
    AckBeforeSync = 1,
    /// A clear removes what is stamped earlier, seen or not.
    ClearByTime,
    /// A clear's record goes as soon as it can be merged away, whatever other replicas have missed, and nothing is left to tell them.
    ClearDroppedEarly,
    /// A member keeps its origin when it restarts.
    DotReused,
    /// Nobody looks at request ids.
    RetryTakenAnew,
    /// A replica's acknowledgement counts twice.
    QuorumCountedTwice,
    /// What a read at quorum found here and not at the others is not written back to them.
    ReadRepairDropped,
    /// The last op of each page of a catch-up is left out.
    CatchUpSkipsLast,
    /// An op is stamped by what this node alone knows.
    StampNotAsked,
    /// A failed sync of the log is tried again.
    SyncRetried,
    /// A record at the end of the log counts although its text did not reach the disk.
    TornTailAccepted,
    /// A part is appended twice.
    PartTwice,
    /// An old disk that was put back keeps what was cleared meanwhile.
    ReconcileSkipped,
    /// A replica whose disk was lost counts before it has copied what the others hold.
    VotesUnsynced,
    /// Nobody remembers what a node told to be durable in its life before.
    SetBackUnnoticed,
    /// Where a user has logged in, any password will do.
    PasswordForgotten,
    /// A page that was read through a node without the list begins at its front.
    PageOffsetForgotten,
    /// Whoever names a user may clear their keys.
    ClearUnasked,
    /// The next page of a listing begins behind keys that were not given.
    ListBoundForgotten,
    /// Nobody looks at request ids but who reads.
    RetryTakenUnseen,
    /// Nobody looks at the request ids of clears.
    ClearTakenAnew,
    /// A part at the end of a page of a catch-up is left out.
    CatchUpSkipsParts,
    /// Of what was cleared no request id stays.
    SpentForgotten,
    /// A merge does not say what the first of several segments knew to be dropped.
    DroppedForgotten,
    /// A clear's record stays for ever.
    ClearsKept,
    /// Request ids stay for ever.
    SpentKept,
    /// For each place in a queue that is given back, another one is not.
    PermitKept,
    /// Twice as many may wait as the limit says.
    DoorOpen,
    /// The client sends adds without a request id.
    AddUnnamed,
    /// When the last try is refused, the client knows no more that an earlier one may have taken effect.
    DoubtForgotten,
    /// A write that will fail is stamped by what this node alone knows.
    DoomedNotAsked,
    /// A request id is known whatever key it came for.
    RequestOfAnyKey,
    /// What was damaged is never healed.
    NeverHealed,
    /// What a peer says to be cleared is forgotten by the time of its op.
    SpentByOp,
    /// What a replica lacks of a key counts as there when the first of several messages with it was answered.
    GivenInPart,
    /// Who takes a lost member's place counts before it has copied what the others hold.
    PlaceUnfilled,
    /// The place of a member that was replaced already is given to one more.
    PlaceGivenTwice,
    /// A member is removed whatever it holds.
    RemovedWithData,
    /// The removal of a user leaves the last key of each page.
    RemovalSkipsLast,
    /// A segment whose name could not be given is used under the one that it has.
    RenameIgnored,
}

impl Bug {
    pub const ALL: [Self; 40] = [
        Self::AckBeforeSync,
        Self::ClearByTime,
        Self::ClearDroppedEarly,
        Self::DotReused,
        Self::RetryTakenAnew,
        Self::QuorumCountedTwice,
        Self::ReadRepairDropped,
        Self::CatchUpSkipsLast,
        Self::StampNotAsked,
        Self::SyncRetried,
        Self::TornTailAccepted,
        Self::PartTwice,
        Self::ReconcileSkipped,
        Self::VotesUnsynced,
        Self::SetBackUnnoticed,
        Self::PasswordForgotten,
        Self::PageOffsetForgotten,
        Self::ClearUnasked,
        Self::ListBoundForgotten,
        Self::RetryTakenUnseen,
        Self::ClearTakenAnew,
        Self::CatchUpSkipsParts,
        Self::SpentForgotten,
        Self::DroppedForgotten,
        Self::ClearsKept,
        Self::SpentKept,
        Self::PermitKept,
        Self::DoorOpen,
        Self::AddUnnamed,
        Self::DoubtForgotten,
        Self::DoomedNotAsked,
        Self::RequestOfAnyKey,
        Self::NeverHealed,
        Self::SpentByOp,
        Self::GivenInPart,
        Self::PlaceUnfilled,
        Self::PlaceGivenTwice,
        Self::RemovedWithData,
        Self::RemovalSkipsLast,
        Self::RenameIgnored,
    ];
}

#[cfg(feature = "on")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// From now on all nodes and clients of this process have this bug.
#[cfg(feature = "on")]
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, std::sync::atomic::Ordering::Relaxed);
}

/// Whether the nodes and clients of this process have this bug.
#[cfg(feature = "on")]
pub fn planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

#[cfg(not(feature = "on"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Whether nobody who takes a write looks at its request id.
#[inline(always)]
pub fn takes_retries() -> bool {
    planted(Bug::RetryTakenAnew) || planted(Bug::RetryTakenUnseen)
}
