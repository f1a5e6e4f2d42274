//! What is asked of the keys of a user.

use super::record::key_name;

/// One page of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listing {
    /// Those keys alone whose names begin with this one's.
    pub prefix: Option<u8>,
    /// From behind this one on.
    pub after: Option<u8>,
    /// No more than so many.
    pub limit: Option<u64>,
}

impl Listing {
    /// Whether the page would name this key, if it showed; `next` is what the next page begins behind.
    pub fn asks_for(&self, key: u8, next: Option<u8>) -> bool {
        let name = key_name(key);
        self.is_named(&name)
            && self.after.is_none_or(|after| name > key_name(after))
            && next.is_none_or(|next| name <= key_name(next))
    }

    /// Whether the name begins as it is to.
    pub fn is_named(&self, name: &str) -> bool {
        self.prefix.is_none_or(|prefix| name.starts_with(&key_name(prefix)))
    }
}
