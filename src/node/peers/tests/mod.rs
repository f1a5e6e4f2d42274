//! Whole nodes' connections over a network in memory and, where it says so, over real sockets.

mod calls;
mod failures;
mod memory_net;
mod rig;
mod slow_line;
mod strangers;
