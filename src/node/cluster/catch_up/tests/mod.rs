//! Catching up, with whole nodes.

mod copying;
mod due;
mod given_up;
mod healing;
