//! Who is a member, with whole nodes.

mod founding;
mod gathering;
mod losses;
mod members;
mod standing_still;
