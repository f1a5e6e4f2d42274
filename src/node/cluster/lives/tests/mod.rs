//! Whose word counts, with whole nodes.

mod dropped;
mod introductions;
mod set_back;
