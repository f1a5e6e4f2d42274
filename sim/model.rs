//! What a key may hold, as far as its clients know.
//!
//! An operation whose outcome is unknown leaves two possible worlds; every answer rules some out. The store is wrong when none is
//! left. So an unacknowledged op may be there or not, but only as a whole; and once a read has seen it, it stays.
//!
//! Invariant: `possible` is never empty.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kv_storage::node::Added;
use kv_storage::types::WallMs;

/// How long a request id is remembered at least after its op was cleared.
const REMEMBERED_MS: u64 = 60 * 60 * 1000;

/// One operation, as a client sends it.
#[derive(Clone)]
pub enum Operation {
    Add {
        text: Arc<str>,
        finish: bool,
        request: Option<u64>,
    },
    Clear,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Add { text, finish, request } = self else {
            return write!(f, "clear");
        };
        let kind = if *finish { "value" } else { "part" };
        write!(f, "{kind} {:?} ({} bytes)", format!("{text:.12}"), text.len())?;
        match request {
            Some(request) => write!(f, " request {request}"),
            None => Ok(()),
        }
    }
}

/// What an operation's outcome depends on, besides the key.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    pub now: WallMs,
    /// The latest time that the store was ever told.
    pub latest: WallMs,
    pub value_bytes_max: u64,
}

/// One possible world of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    values: Vec<Arc<str>>,
    /// The parts that no value has finished yet.
    open: String,
    /// Request ids of the ops in the key.
    taken: BTreeSet<u64>,
    /// Request ids of cleared ops, with the time of the clear.
    spent: BTreeMap<u64, WallMs>,
}

impl State {
    fn appended(&self, text: &Arc<str>, finish: bool, request: Option<u64>) -> Self {
        let mut state = self.clone();
        if let Some(request) = request {
            state.spent.remove(&request);
            state.taken.insert(request);
        }
        match (finish, state.open.is_empty()) {
            (false, _) => state.open.push_str(text),
            (true, true) => state.values.push(Arc::clone(text)),
            (true, false) => {
                let value = std::mem::take(&mut state.open) + text;
                state.values.push(value.into());
            }
        }
        state
    }

    fn cleared(&self, now: WallMs) -> Self {
        let mut spent = self.spent.clone();
        spent.extend(self.taken.iter().map(|request| (*request, now)));
        Self {
            spent,
            ..Self::default()
        }
    }

    /// Every world that the operation can lead to, with the answer that belongs to it.
    fn after(&self, operation: &Operation, circumstances: Circumstances) -> Vec<(Added, Self)> {
        let (text, finish, request) = match operation {
            Operation::Clear => return vec![(Added::Appended, self.cleared(circumstances.now))],
            Operation::Add { text, finish, request } => (text, *finish, *request),
        };
        let fits = (self.open.len() + text.len()) as u64 <= circumstances.value_bytes_max;
        let spent_at = request.and_then(|request| self.spent.get(&request));
        let taken = request.is_some_and(|request| self.taken.contains(&request));
        let may_be_known = taken || spent_at.is_some();
        let may_be_new = !taken && spent_at.is_none_or(|at| circumstances.latest.0 >= at.0 + REMEMBERED_MS);
        let mut worlds = Vec::new();
        if may_be_known {
            worlds.push((Added::Repeated, self.clone()));
        }
        if may_be_new && fits {
            worlds.push((Added::Appended, self.appended(text, finish, request)));
        }
        worlds
    }
}

/// Everything that one key may hold.
#[derive(Debug, Clone)]
pub struct KeyModel {
    possible: BTreeSet<State>,
}

impl Default for KeyModel {
    fn default() -> Self {
        Self {
            possible: BTreeSet::from([State::default()]),
        }
    }
}

/// The store's answer fits none of the possible worlds.
#[derive(Debug)]
pub struct Violation(pub String);

impl KeyModel {
    /// The operation was acknowledged with this answer.
    pub fn acknowledged(
        &mut self,
        operation: &Operation,
        answer: Added,
        circumstances: Circumstances,
    ) -> Result<(), Violation> {
        let after = self
            .possible
            .iter()
            .flat_map(|state| state.after(operation, circumstances));
        let left: BTreeSet<State> = after
            .filter(|(given, _)| *given == answer)
            .map(|(_, state)| state)
            .collect();
        self.narrow(left, || format!("{operation:?} was answered with {answer:?}"))
    }

    /// The operation was refused because the value would have grown too long.
    pub fn refused_as_too_long(
        &mut self,
        operation: &Operation,
        circumstances: Circumstances,
    ) -> Result<(), Violation> {
        let no_limit = Circumstances {
            value_bytes_max: u64::MAX,
            ..circumstances
        };
        let appends = |state: &State, circumstances| {
            let after = state.after(operation, circumstances);
            after.iter().any(|(answer, _)| *answer == Added::Appended)
        };
        let too_long = |state: &&State| !appends(state, circumstances) && appends(state, no_limit);
        let left: BTreeSet<State> = self.possible.iter().filter(too_long).cloned().collect();
        self.narrow(left, || format!("{operation:?} was refused as too long"))
    }

    /// Whether the operation took effect is unknown.
    pub fn unknown(&mut self, operation: &Operation, circumstances: Circumstances) {
        let after = self
            .possible
            .iter()
            .flat_map(|state| state.after(operation, circumstances));
        let after: Vec<State> = after.map(|(_, state)| state).collect();
        self.possible.extend(after);
    }

    /// A read gave these values.
    pub fn observed(&mut self, values: &[String]) -> Result<(), Violation> {
        let fits = |state: &&State| {
            state
                .values
                .iter()
                .map(|value| &**value)
                .eq(values.iter().map(String::as_str))
        };
        let left: BTreeSet<State> = self.possible.iter().filter(fits).cloned().collect();
        self.narrow(left, || format!("a read gave {}", brief(values)))
    }

    /// A listing of keys named this one, or did not.
    pub fn listed(&mut self, named: bool) -> Result<(), Violation> {
        let fits = |state: &&State| state.values.is_empty() != named;
        let left: BTreeSet<State> = self.possible.iter().filter(fits).cloned().collect();
        self.narrow(left, || format!("a listing said that it has values: {named}"))
    }

    /// How many worlds are left.
    pub fn worlds(&self) -> usize {
        self.possible.len()
    }

    fn narrow(&mut self, left: BTreeSet<State>, what: impl FnOnce() -> String) -> Result<(), Violation> {
        if left.is_empty() {
            let worlds: Vec<String> = self
                .possible
                .iter()
                .take(4)
                .map(|state| format!("{state:.60?}"))
                .map(cut)
                .collect();
            return Err(Violation(format!("{}, but it can only be {worlds:#?}", what())));
        }
        self.possible = left;
        Ok(())
    }
}

const BRIEF_BYTES: usize = 2000;

fn cut(mut text: String) -> String {
    if text.len() > BRIEF_BYTES {
        text.truncate(text.floor_char_boundary(BRIEF_BYTES));
        text.push('…');
    }
    text
}

fn brief(values: &[String]) -> String {
    cut(format!(
        "{:?}",
        values.iter().map(|value| format!("{value:.30}")).collect::<Vec<_>>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Circumstances = at(1_000);

    const fn at(now_ms: u64) -> Circumstances {
        Circumstances {
            now: WallMs(now_ms),
            latest: WallMs(now_ms),
            value_bytes_max: 12,
        }
    }

    fn add(text: &str, request: u64) -> Operation {
        Operation::Add {
            text: text.into(),
            finish: true,
            request: Some(request),
        }
    }

    fn values(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.into()).collect()
    }

    #[test]
    fn an_unknown_add_may_be_there_or_not_until_it_is_seen() {
        let mut key = KeyModel::default();
        key.unknown(&add("a", 1), NOW);
        key.acknowledged(&add("b", 2), Added::Appended, NOW).unwrap();
        let (mut with, mut without) = (key.clone(), key);
        with.observed(&values(&["a", "b"])).unwrap();
        assert!(with.observed(&values(&["b"])).is_err());
        without.observed(&values(&["b"])).unwrap();
        assert!(without.observed(&values(&["a", "b"])).is_err());
    }

    #[test]
    fn the_answer_to_a_retry_says_whether_the_first_try_took_effect() {
        let mut key = KeyModel::default();
        key.unknown(&add("a", 1), NOW);
        key.acknowledged(&add("a", 1), Added::Repeated, NOW).unwrap();
        assert!(key.observed(&[]).is_err());
        key.observed(&values(&["a"])).unwrap();
        assert!(key.acknowledged(&add("a", 1), Added::Appended, NOW).is_err());
    }

    #[test]
    fn a_request_is_remembered_for_an_hour_after_its_clear_and_may_be_forgotten_then() {
        let mut key = KeyModel::default();
        key.acknowledged(&add("a", 1), Added::Appended, NOW).unwrap();
        key.acknowledged(&Operation::Clear, Added::Appended, NOW).unwrap();
        let soon = at(NOW.now.0 + REMEMBERED_MS - 1);
        assert!(key.clone().acknowledged(&add("a", 1), Added::Appended, soon).is_err());
        let late = at(NOW.now.0 + REMEMBERED_MS);
        key.clone().acknowledged(&add("a", 1), Added::Appended, late).unwrap();
        key.acknowledged(&add("a", 1), Added::Repeated, late).unwrap();
        assert!(key.observed(&values(&["a"])).is_err());
    }

    #[test]
    fn parts_are_finished_by_the_next_value() {
        let mut key = KeyModel::default();
        let part = Operation::Add {
            text: "half ".into(),
            finish: false,
            request: None,
        };
        key.acknowledged(&part, Added::Appended, NOW).unwrap();
        key.observed(&[]).unwrap();
        key.acknowledged(&add("whole", 1), Added::Appended, NOW).unwrap();
        key.observed(&values(&["half whole"])).unwrap();
    }

    #[test]
    fn a_value_is_refused_as_too_long_exactly_when_it_is() {
        let mut key = KeyModel::default();
        let part = Operation::Add {
            text: "ten bytes.".into(),
            finish: false,
            request: None,
        };
        assert!(key.refused_as_too_long(&part, NOW).is_err());
        key.acknowledged(&part, Added::Appended, NOW).unwrap();
        assert!(key.clone().acknowledged(&add("abc", 1), Added::Appended, NOW).is_err());
        key.refused_as_too_long(&add("abc", 1), NOW).unwrap();
        key.acknowledged(&add("ab", 1), Added::Appended, NOW).unwrap();
        key.observed(&values(&["ten bytes.ab"])).unwrap();
    }
}
