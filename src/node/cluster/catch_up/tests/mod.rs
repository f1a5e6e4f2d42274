//! Catching up, with whole nodes.

mod clears;
mod closed;
mod copying;
mod due;
mod given_up;
mod healing;
