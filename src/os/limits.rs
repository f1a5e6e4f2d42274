//! Limits that the operating system sets on the process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files and sockets that the process may have open to the most it may ask for, and gives that number
/// (`None`: unlimited). The usual soft limit of 1024 is less than the connections that one node must hold.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(limit.current);
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    Ok(getrlimit(Resource::Nofile).current)
}

/// Files that a node has open besides those of its shards: listeners, the runtime's own, what it starts with.
const FILES_OF_PROCESS: u64 = 64;
/// Logs and segments of one shard, as many as it usually has open at once, also while merges run and readers keep what was merged away.
const FILES_OF_SHARD: u64 = 64;
/// Connections of the other nodes, both ways, and strangers in the middle of a handshake.
const FILES_OF_PEERS: u64 = 384;
/// With less, a node may not even open its files.
const FILES_MIN: u64 = 64;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may have only {0} files and connections open, and a node needs {FILES_MIN} at least: raise the limit (ulimit -n)"
)]
pub struct TooFewFiles(u64);

/// How many clients' connections there may be, so that strangers who open them leave the shards their files: what the limit leaves after these, and
/// where it leaves next to nothing, a quarter of it.
pub fn connections_within(open_files: Option<u64>, shards: u16, is_member: bool) -> Result<usize, TooFewFiles> {
    let Some(files) = open_files else {
        return Ok(usize::MAX);
    };
    if files < FILES_MIN {
        return Err(TooFewFiles(files));
    }
    // One more shard is the system's own.
    let of_shards = (u64::from(shards) + 1) * FILES_OF_SHARD;
    let of_peers = if is_member { FILES_OF_PEERS } else { 0 };
    let left = files.saturating_sub(FILES_OF_PROCESS + of_shards + of_peers);
    Ok(usize::try_from(left.max(files / 4)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_shards_their_files() {
        assert_eq!(connections_within(None, 2, true), Ok(usize::MAX));
        assert_eq!(connections_within(Some(1024), 2, false), Ok(1024 - 64 - 3 * 64));
        assert_eq!(connections_within(Some(1024), 2, true), Ok(1024 - 64 - 3 * 64 - 384));
        assert_eq!(connections_within(Some(1024), 16, true), Ok(256), "a quarter at least");
        assert_eq!(connections_within(Some(64), 2, true), Ok(16));
        let too_few = connections_within(Some(12), 1, false).unwrap_err().to_string();
        assert!(
            too_few.contains("only 12 files") && too_few.contains("ulimit -n"),
            "{too_few}"
        );
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_open_files().expect("the soft limit may always be raised to the hard one");
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_open_files().ok(), Some(raised));
    }
}
