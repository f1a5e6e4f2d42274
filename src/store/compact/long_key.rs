//! Keys whose ops do not fit in memory: they are read ahead of the merge, for what has to be known of them before the first op is written.

use super::clears::KeyClears;
use super::input::{Input, Salvage};
use super::{KeyName, Merge, MergeError, Source};
use crate::core::op::{Body, Op};
use crate::core::slot::KeyHash;
use crate::store::memtable::{MemoryOps, Memtable};

impl Merge {
    /// The clears of a key whose ops do not fit in memory: read from its ops alone, ahead of the merge.
    pub(super) fn clears_of_long_key(&self, name: &KeyName) -> Result<KeyClears, MergeError> {
        let mut clears = Vec::new();
        if self.clears {
            let sources = self.sources.iter().filter(|source| source.has_clears());
            self.see_key(name, sources, |op| {
                clears.extend(matches!(op.body, Body::Clear(_)).then_some(op));
            })?;
        }
        Ok(KeyClears::of(clears.iter(), self.context.cleared_in_memory.get(name)))
    }

    /// Reads the ops of one key, ahead of the merge.
    pub(super) fn see_key<'a>(
        &self,
        name: &KeyName,
        sources: impl Iterator<Item = &'a Source>,
        mut see: impl FnMut(Op),
    ) -> Result<(), MergeError> {
        let (slot, user, key) = name;
        for source in sources {
            match source {
                Source::Segment(segment) => {
                    let mut input = Input::Segment {
                        scan: Box::new(segment.scan(Some((*slot, user.as_str(), key.as_str())))),
                        salvage: self.context.salvage.then(Salvage::default),
                    };
                    let mut of = None;
                    while let Some(op) = input.next(&mut of)?
                        && of.as_ref() == Some(name)
                    {
                        see(op);
                    }
                }
                Source::Memtable(memtable) => {
                    let name = (KeyHash::of(user, key), user, key);
                    let ops = MemoryOps::of([memtable], name, Memtable::closed_groups);
                    ops.iter().for_each(&mut see);
                }
            }
        }
        Ok(())
    }
}
