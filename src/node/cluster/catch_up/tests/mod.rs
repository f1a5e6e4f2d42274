//! Catching up, with whole nodes.

mod closed;
mod copying;
mod due;
mod given_up;
mod healing;
