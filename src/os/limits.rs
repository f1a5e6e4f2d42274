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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_open_files().expect("the soft limit may always be raised to the hard one");
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_open_files().ok(), Some(raised));
    }
}
