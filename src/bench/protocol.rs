//! What a server speaks, as the load generator sees it.

use super::mix::Operation;

/// Status of an operation that was done.
pub const STATUS_DONE: u16 = 200;

/// One answer. Its content was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// 200 for done; else the protocol's own code for what went wrong.
    pub status: u16,
    /// The server closes the connection after it.
    pub closes: bool,
}

/// How far a piece of input was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes that are not needed any more. What is left is given again, with more behind it.
    pub consumed: usize,
    pub answer: Option<Answer>,
}

/// The server sent something that is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer is garbled")]
pub struct Garbled;

/// Requests and answers on one connection, one at a time.
pub trait Protocol: Send + 'static {
    /// Appends a request for key number `key` to `out`; `random` chooses the value.
    fn request(&mut self, operation: Operation, key: u64, random: u64, out: &mut Vec<u8>);
    /// Reads on in an answer.
    fn advance(&mut self, input: &[u8]) -> Result<Step, Garbled>;
    /// The connection was lost: what was read of an answer is void.
    fn reset(&mut self);
}
