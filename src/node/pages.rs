//! Sizes of pages: what is too much for one message goes in several.

/// Sizes of pages between nodes. Nobody but tests and the simulation has them other than they are by default: smaller, so that there is more than
/// one page of anything.
#[derive(Debug, Clone, Copy)]
pub struct Pages {
    /// Ops of one key, when replicas are brought to hold the same, bytes.
    pub key_bytes: usize,
    /// Text that a node reads through another one, bytes.
    pub reader_bytes: usize,
    /// Text of a pull, bytes: some milliseconds of work for either disk.
    pub pull_bytes: usize,
    /// About how many bytes name what one pull is for. The peer's answer names as much again, and may name it in more pieces.
    pub portion_bytes: usize,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            key_bytes: 1 << 20,
            reader_bytes: 1 << 20,
            pull_bytes: 256 << 10,
            portion_bytes: 1 << 20,
        }
    }
}
