//! What another replica lacks of one key.

use super::OpError;
use super::local::Local;
use crate::core::clock::Clock;
use crate::core::op::{KeyedOp, Op};
use crate::store::export::KeyExport;
use crate::store::source::KeySource;
use crate::types::{Key, UserId};

/// The ops of a snapshot that a clock does not cover, page after page.
pub struct Lacking {
    local: Local,
    /// The number of the shard's door.
    index: usize,
    user: UserId,
    key: Key,
    /// Lent out while a page is read; gone after a page that was not waited for.
    export: Option<KeyExport>,
}

impl Local {
    pub fn lacking(&self, source: KeySource, known: Clock) -> Lacking {
        Lacking {
            index: self.door_of(source.slot),
            user: source.user.clone(),
            key: source.key.clone(),
            export: Some(KeyExport::new(source, known, self.env().wall.now())),
            local: self.clone(),
        }
    }
}

impl Lacking {
    /// About so many bytes of them, and whether there are more.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<(Vec<KeyedOp>, bool), OpError> {
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        let mut export = self.export.take().ok_or(gone)?;
        let (export, page) = self
            .local
            .look_up(move || {
                let page = export.next_page(budget_bytes);
                (export, page)
            })
            .await?;
        self.export = Some(export);
        let (ops, more) = page.map_err(|error| self.local.report(self.index, error))?;
        let keyed = |op: Op| KeyedOp {
            user: self.user.clone(),
            key: self.key.clone(),
            op,
        };
        Ok((ops.into_iter().map(keyed).collect(), more))
    }
}
