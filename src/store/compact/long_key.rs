//! Keys whose ops do not fit in memory. Each is read twice: ahead of the merge, for what must be known before its first op is written, and
//! again as it is written, in as many steps as it takes.

use super::clears::KeyClears;
use super::input::{Input, Salvage};
use super::spent::Copies;
use super::{KeyName, Merge, MergeError, Source, StepEnd};
use crate::core::op::{Dot, Op};
use crate::store::memtable::{MemoryOps, Memtable};

/// A key that is being written, and what has to be known of it.
pub(super) struct LongKey {
    pub(super) name: KeyName,
    pub(super) clears: KeyClears,
    pub(super) copies: Copies,
    /// The last op that was read.
    pub(super) last: Option<Dot>,
}

impl Merge {
    /// Merges on in a long key, to its end or that of the step.
    pub(super) fn go_on(&mut self, mut long: LongKey, end: StepEnd) -> Result<(), MergeError> {
        while !self.has_come_to(end) {
            let Some(op) = self.next_of(&long.name)? else {
                return Ok(());
            };
            let known = (&long.clears, &long.copies);
            long.last = self.write_all(&long.name, known, long.last, vec![op])?;
        }
        self.long = Some(long);
        Ok(())
    }

    /// The clears of a key whose ops do not fit in memory: read from its ops alone, ahead of the merge.
    pub(super) fn clears_of_long_key(&self, name: &KeyName) -> Result<KeyClears, MergeError> {
        let mut clears = KeyClears::new(self.cleared_in_memory.get(name));
        if self.clears {
            let sources = self.sources.iter().filter(|source| source.has_clears());
            self.see_key(name, sources, |op| clears.see(&op))?;
        }
        Ok(clears)
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
                    let ops = MemoryOps::of([memtable], (user, key), Memtable::closed_groups);
                    ops.iter().for_each(&mut see);
                }
            }
        }
        Ok(())
    }
}
