//! Reading one key: its ops from the memtables and from every segment that may hold it, merged in stamp order and folded. Most keys need no
//! fold and take a short cut (`plain`); long lists of nothing but values take another one (`spread`).
//!
//! A reader is a snapshot: it owns what it needs and goes on undisturbed while the shard writes, seals and compacts.
//! Memory: the key's ops that are still in memtables (shared buffers), one block per segment, of long ones a few (`waiting`), and a
//! bounded buffer that spares small keys the second pass.

use super::filter::request_tag;
use super::plain::{self, Plain};
use super::segment::{Reach, ReadError};
use super::source::{KeySource, MergedOps};
use super::spread::Spread;
use crate::core::fold::{Survey, Surveyed, Visibility};
pub use crate::core::op::Fragment;
use crate::core::op::{Body, Op};
use crate::core::slot::KeyHash;
use crate::types::RequestId;

/// Ops that a survey keeps for the fold, so that a small key is read once.
const KEPT_OPS_MAX: usize = 256;
/// Text that a survey keeps for the fold, bytes.
const KEPT_TEXT_BYTES_MAX: usize = 256 * 1024;

/// What a first pass over a key found.
pub(super) struct Surveyor {
    pub(super) visibility: Visibility,
    /// How many ops were looked at for it.
    pub(super) ops: u64,
    /// All ops of the key, if they are few and small.
    kept: Option<Vec<Op>>,
}

pub(super) fn survey(source: &KeySource) -> Result<Surveyor, ReadError> {
    let mut pass = Survey::default();
    let mut kept = Some(Vec::new());
    let (mut text_bytes, mut count) = (0, 0);
    let mut ops = source.ops();
    while let Some(op) = ops.next()? {
        pass.see(&op);
        count += 1;
        if let Body::Part(text) | Body::Value(text) = &op.body {
            text_bytes += text.len();
        }
        match &mut kept {
            Some(list) if list.len() < KEPT_OPS_MAX && text_bytes <= KEPT_TEXT_BYTES_MAX => list.push(op),
            _ => kept = None,
        }
    }
    loop {
        match (pass.finish(), &kept) {
            (Surveyed::Done(visibility), _) => {
                return Ok(Surveyor {
                    visibility,
                    ops: count,
                    kept,
                });
            }
            (Surveyed::Again(mut next), Some(list)) => {
                list.iter().for_each(|op| next.see(op));
                pass = next;
            }
            (Surveyed::Again(mut next), None) => {
                let mut ops = source.ops();
                while let Some(op) = ops.next()? {
                    next.see(&op);
                    count += 1;
                }
                pass = next;
            }
        }
    }
}

/// How far a reader has come.
enum State {
    New,
    /// It waits for the disk before anything else.
    OutOfReach,
    /// It is known that the ops lie in more than one block.
    MayBeSpread,
    /// It is known that the ops have to be folded.
    NotPlain,
    Plain(std::vec::IntoIter<Fragment>),
    Spread(Spread),
    Folded(Box<Visibility>, Ops),
}

enum Ops {
    Kept(std::vec::IntoIter<Op>),
    Streamed(Box<MergedOps>),
}

impl Ops {
    fn next(&mut self) -> Result<Option<Op>, ReadError> {
        match self {
            Self::Kept(ops) => Ok(ops.next()),
            Self::Streamed(ops) => ops.next(),
        }
    }
}

/// Streams the values `offset..offset + limit` of one key.
pub struct KeyReader {
    source: KeySource,
    /// Values still to skip.
    skip: u64,
    /// Values still to give.
    left: u64,
    /// A fragment that did not fit into the last batch and begins the next one; `left` no longer counts it.
    held: Option<Fragment>,
    state: State,
}

impl KeyReader {
    pub fn new(source: KeySource, offset: u64, limit: u64) -> Self {
        Self {
            source,
            skip: offset,
            left: limit,
            held: None,
            state: State::New,
        }
    }

    /// Whether the next fragments come without waiting for the disk. What is found out on the way is kept.
    pub fn is_warm(&mut self) -> bool {
        if matches!(self.state, State::New) {
            match plain::view(&self.source, Reach::Memory) {
                Ok(Plain::View(fragments)) => self.state = State::Plain(fragments.into_iter()),
                Ok(Plain::Spread) => self.state = State::MayBeSpread,
                Ok(Plain::Other) => self.state = State::NotPlain,
                Ok(Plain::OutOfReach) => self.state = State::OutOfReach,
                // Damaged: the read itself, on a thread that may block, will say so.
                Err(_) => return false,
            }
        }
        match &self.state {
            State::New | State::NotPlain | State::MayBeSpread => self.source.is_warm(),
            State::OutOfReach => false,
            State::Plain(_) | State::Folded(_, Ops::Kept(_)) => true,
            State::Spread(_) | State::Folded(_, Ops::Streamed(_)) => self.left == 0,
        }
    }

    fn start(&mut self) -> Result<(), ReadError> {
        if matches!(self.state, State::New | State::OutOfReach) {
            self.state = match plain::view(&self.source, Reach::Disk)? {
                Plain::View(fragments) => State::Plain(fragments.into_iter()),
                Plain::Spread => State::MayBeSpread,
                Plain::Other | Plain::OutOfReach => State::NotPlain,
            };
        }
        if matches!(self.state, State::MayBeSpread) {
            self.state = Spread::of(&self.source)?.map_or(State::NotPlain, State::Spread);
        }
        if matches!(self.state, State::NotPlain) {
            let Surveyor { visibility, kept, .. } = survey(&self.source)?;
            let ops = match kept {
                Some(ops) => Ops::Kept(ops.into_iter()),
                None => Ops::Streamed(Box::new(self.source.ops())),
            };
            self.state = State::Folded(Box::new(visibility), ops);
        }
        Ok(())
    }

    /// The next fragment of the view, from its very beginning on.
    fn next_shown(&mut self) -> Result<Option<Fragment>, ReadError> {
        let (visibility, ops) = match &mut self.state {
            State::New | State::OutOfReach | State::NotPlain | State::MayBeSpread => return Ok(None),
            State::Plain(fragments) => return Ok(fragments.next()),
            State::Spread(values) => {
                values.skip(std::mem::take(&mut self.skip))?;
                return values.next();
            }
            State::Folded(visibility, ops) => (visibility, ops),
        };
        while let Some(op) = ops.next()? {
            if !visibility.shows(&op) {
                continue;
            }
            let (text, ends_value) = match op.body {
                Body::Part(text) => (text, false),
                Body::Value(text) => (text, true),
                Body::Clear(_) | Body::Spent { .. } => continue,
            };
            return Ok(Some(Fragment { text, ends_value }));
        }
        Ok(None)
    }

    /// The next fragment, or `None` behind the last.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot fail and be asked again"
    )]
    pub fn next(&mut self) -> Result<Option<Fragment>, ReadError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        if self.left == 0 {
            return Ok(None);
        }
        self.start()?;
        while let Some(fragment) = self.next_shown()? {
            let ends_value = u64::from(fragment.ends_value);
            if self.skip > 0 {
                self.skip -= ends_value;
                continue;
            }
            self.left -= ends_value;
            return Ok(Some(fragment));
        }
        self.left = 0;
        Ok(None)
    }

    /// The next fragments, together at most `budget_bytes` of text; at least one unless at the end, so one that is larger comes alone: a
    /// batch has to fit into one message, as each text does.
    pub fn next_batch(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, ReadError> {
        if self.left > 0 {
            self.start()?;
        }
        if let Some(rest) = self.take_rest(budget_bytes) {
            return Ok(rest);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < budget_bytes.max(1) {
            let Some(fragment) = self.next()? else {
                break;
            };
            bytes += cost_of(&fragment);
            if bytes > budget_bytes && !batch.is_empty() {
                self.held = Some(fragment);
                break;
            }
            batch.push(fragment);
        }
        Ok(batch)
    }

    /// All that is left, as it lies there, if that is within the budget and all of it is asked for.
    fn take_rest(&mut self, budget_bytes: usize) -> Option<Vec<Fragment>> {
        let State::Plain(fragments) = &mut self.state else {
            return None;
        };
        let all = fragments.as_slice();
        // There are no more values than fragments.
        let fits = self.held.is_none()
            && self.skip == 0
            && all.len() as u64 <= self.left
            && all.iter().map(cost_of).sum::<usize>() <= budget_bytes;
        if !fits {
            return None;
        }
        self.left = 0;
        Some(std::mem::take(fragments).collect())
    }

    /// How many values the whole list has.
    pub fn count(mut self) -> Result<u64, ReadError> {
        self.start()?;
        let (visibility, ops) = match &mut self.state {
            State::New | State::OutOfReach | State::NotPlain | State::MayBeSpread => return Ok(0),
            State::Spread(values) => return Ok(values.values()),
            State::Plain(fragments) => {
                return Ok(fragments.filter(|fragment| fragment.ends_value).count() as u64);
            }
            State::Folded(visibility, ops) => (visibility, ops),
        };
        let mut count = 0;
        while let Some(op) = ops.next()? {
            count += u64::from(matches!(op.body, Body::Value(_)) && visibility.shows(&op));
        }
        Ok(count)
    }
}

/// A fragment costs memory even when its text is empty.
fn cost_of(fragment: &Fragment) -> usize {
    fragment.text.len() + size_of::<Fragment>()
}

/// What a write has to know of the past of its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPast {
    /// What was done under the request id already.
    pub taken: Option<Body>,
    /// Bytes of the parts that no value has finished yet; `None` if that was not asked.
    pub open_parts_bytes: Option<u64>,
}

/// What was done under the request id, by one of the source's segments. Reads few blocks of a long list (see `OpCursor::next_of_request`).
pub fn taken(source: &KeySource, request_id: RequestId) -> Result<Option<Body>, ReadError> {
    let tag = request_tag(KeyHash::of(&source.user, &source.key), request_id);
    for segment in &source.segments {
        let mut ops = segment.ops_of(source.slot, source.user.as_str(), source.key.as_str());
        if let Some(op) = ops.next_of_request(tag, request_id)? {
            return Ok(Some(op.body));
        }
    }
    Ok(None)
}

/// Looks a key's past up.
pub fn past(source: &KeySource, request_id: Option<RequestId>) -> Result<KeyPast, ReadError> {
    let visibility = survey(source)?.visibility;
    let mut past = KeyPast::default();
    let mut open_parts_bytes = 0;
    let mut ops = source.ops();
    while let Some(op) = ops.next()? {
        let open = visibility.end().is_none_or(|end| op.stamp() > end) && visibility.stands(&op);
        if let (Body::Part(text), true) = (&op.body, open) {
            open_parts_bytes += text.len() as u64;
        }
        // The first one counts.
        if request_id.is_some() && op.request_id == request_id && past.taken.is_none() {
            past.taken = Some(op.body);
        }
    }
    past.open_parts_bytes = Some(open_parts_bytes);
    Ok(past)
}

#[cfg(test)]
mod tests;
