//! Terms and names of a request, as they go from node to node.

use std::time::Duration;

use super::errors::refused;
use crate::node::{OpError, Terms};
use crate::types::{Consistency, Key, UserId};
use crate::wire::WireTerms;

pub(in crate::node::cluster) fn wire_terms(terms: Terms) -> WireTerms {
    WireTerms {
        level: match terms.consistency {
            Consistency::One => 0,
            Consistency::Quorum => 1,
            Consistency::All => 2,
        },
        left_ms: u32::try_from(terms.left().as_millis()).unwrap_or(u32::MAX),
    }
}

pub(in crate::node::cluster) fn terms_of(terms: WireTerms) -> Terms {
    Terms {
        consistency: match terms.level {
            0 => Consistency::One,
            1 => Consistency::Quorum,
            _ => Consistency::All,
        },
        deadline: tokio::time::Instant::now() + Duration::from_millis(terms.left_ms.into()),
    }
}

pub(in crate::node::cluster) fn names(user: &str, key: &str) -> Result<(UserId, Key), OpError> {
    Ok((
        crate::wire::user_of(user).map_err(refused)?,
        crate::wire::key_of(key).map_err(refused)?,
    ))
}
