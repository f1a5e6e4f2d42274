//! What the world does to the nodes, their disks and the network.

/// A kind of fault, in the words of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Partition,
    OneWay,
    /// Two nodes do not hear each other, and the others hear both.
    BrokenLink,
    ClientAway,
    SlowLink,
    LossyLink,
    CutConnection,
    PowerLoss,
    CrashInWrite,
    Kill,
    Restart,
    LongAbsence,
    Pause,
    ClockJump,
    ReadError,
    WriteError,
    SyncError,
    SyncDirError,
    NameError,
    FullDisk,
    SlowDisk,
    /// These lose what was durable; at most a minority of the nodes ever meets them.
    EmptyDisk,
    OldDisk,
    BitFlip,
    /// A member is lost for good, and a new node takes its place when an operator says so. Drawn apart, as it came later than the others.
    MemberLost,
    /// In a scenario of its own.
    BadSector,
    /// All clocks say that more than an hour has passed, as if all had been idle for as long: what is kept for an hour may go. Drawn apart
    /// from the others, as it takes the clients' requests with it that could be sent again.
    HourPasses,
}

impl Fault {
    /// Those that the swarm draws from.
    pub const ALL: [Self; 24] = [
        Self::Partition,
        Self::OneWay,
        Self::ClientAway,
        Self::SlowLink,
        Self::LossyLink,
        Self::CutConnection,
        Self::PowerLoss,
        Self::CrashInWrite,
        Self::Kill,
        Self::Restart,
        Self::LongAbsence,
        Self::Pause,
        Self::ClockJump,
        Self::ReadError,
        Self::WriteError,
        Self::SyncError,
        Self::SyncDirError,
        Self::NameError,
        Self::FullDisk,
        Self::SlowDisk,
        Self::EmptyDisk,
        Self::OldDisk,
        Self::BitFlip,
        Self::BrokenLink,
    ];

    /// Whether nodes are away because of it, or hard to reach.
    pub fn takes_away(self) -> bool {
        use Fault::{
            BrokenLink, CrashInWrite, EmptyDisk, Kill, LongAbsence, LossyLink, MemberLost, OldDisk, OneWay, Partition,
            Pause, PowerLoss, Restart, SlowLink,
        };
        matches!(
            self,
            Partition
                | OneWay
                | BrokenLink
                | SlowLink
                | LossyLink
                | PowerLoss
                | CrashInWrite
                | Kill
                | Restart
                | LongAbsence
                | Pause
                | EmptyDisk
                | MemberLost
                | OldDisk
        )
    }

    pub fn loses_disk(self) -> bool {
        matches!(
            self,
            Self::EmptyDisk | Self::OldDisk | Self::BitFlip | Self::MemberLost | Self::BadSector
        )
    }
}
