//! Who belongs to the cluster, as an operator saw and changed it.

use std::collections::BTreeSet;

/// What an operator asked for.
#[derive(Debug, Clone)]
pub struct Change {
    pub at_us: u64,
    /// Who was asked.
    pub node: u8,
    /// Who is to belong no more.
    pub gone: String,
    /// And whose its place is to be; nobody's, if it is none.
    pub new: Option<String>,
    /// It has to be refused.
    pub is_wrong: bool,
    /// It was answered by OK.
    pub is_done: bool,
}

/// Who belongs, by the word of one node.
#[derive(Debug, Clone)]
pub struct Table {
    pub at_us: u64,
    pub node: u8,
    pub own: String,
    pub up: BTreeSet<String>,
    /// All faults were over, and all that was asked for was told to be done.
    pub is_last: bool,
}
