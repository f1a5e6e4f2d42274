//! Whose word counts, with whole nodes.

mod dropped;
mod introductions;
mod named;
mod set_back;
