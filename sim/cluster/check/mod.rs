//! The checks: each a function of the history alone, with the rule that it checks.
//!
//! Words: a write is *acknowledged* when some attempt at it was answered well at quorum or all. It is *known* from its
//! acknowledgement on, or from the end of the first quorum read that returned it. A clear *may have covered* an add if it could still
//! happen when the add began; it *covered* it if it began after the add was known and was acknowledged. All moments are those of the
//! clients, so what overlaps in time is in no order.

mod acknowledged;
mod alike;
mod answers;
mod clocks;
mod convergence;
mod dots;
mod durable;
mod false_success;
mod limits;
mod members;
mod once;
mod order;
mod pages;
mod parts;
mod reads;
mod remembered;
mod sample;
mod shape;
mod space;
mod tries;

use std::collections::BTreeMap;

use super::history::{ANY_NODE, Answer, Call, History, Place, TextId, What, Write};

pub type Check = fn(&Judged) -> Result<(), String>;

/// By the names that a failure shows.
pub const CHECKS: [(&str, Check); 22] = [
    ("G9, and nothing is invented", shape::nothing_is_invented),
    ("G6 exactly once", shape::nothing_counts_twice),
    ("G5 order", order::order),
    ("G7 parts", parts::parts),
    ("G4 reads", reads::what_is_acknowledged_is_seen),
    ("G8 no resurrection", reads::what_was_cleared_stays_cleared),
    ("G2 nothing acknowledged is lost", durable::nothing_acknowledged_is_lost),
    ("G3 convergence", convergence::replicas_are_alike),
    ("answers in time", answers::answers_come_in_time),
    ("G1 durable", acknowledged::what_is_acknowledged_is_durable),
    ("a dot names one op", dots::a_dot_names_one_op),
    ("clocks only grow", clocks::clocks_only_grow),
    ("G10 no false success", false_success::no_failed_sync_is_retried),
    ("limits", limits::nothing_grows_beyond_its_limit),
    ("idle", limits::nothing_waits_when_nobody_asks),
    ("space", space::cleared_space_is_reclaimed),
    ("a crash is no damage", clocks::nothing_looks_damaged_that_is_not),
    ("pages, counts and listings", pages::all_ways_to_read_agree),
    ("a request is one op", once::a_request_is_one_op),
    ("a request is remembered", remembered::a_request_is_remembered),
    ("replicas hold the same", alike::replicas_hold_the_same),
    ("members", members::members_are_who_they_should_be),
];

/// Every rule that the history breaks.
pub fn judge(history: &History) -> Vec<String> {
    let judged = Judged::new(history);
    let broken = |(name, check): &(&str, Check)| Some(format!("{name}: {}", check(&judged).err()?));
    CHECKS.iter().filter_map(broken).collect()
}

/// How many adds were acknowledged at quorum, and how many of these no clear may have covered to the end: these alone are held to G1, G2, G4
/// and G7 throughout.
pub fn acknowledged_and_safe(history: &History) -> (u64, u64) {
    let judged = Judged::new(history);
    let adds = judged.places.values().flat_map(|case| &case.adds);
    let acknowledged = adds.filter(|add| add.write.acked_at_quorum_us().is_some());
    acknowledged.fold((0, 0), |(all, safe), add| {
        (all + 1, safe + u64::from(add.is_safe_at(u64::MAX)))
    })
}

/// A history with what follows from it.
pub struct Judged<'a> {
    pub history: &'a History,
    pub places: BTreeMap<Place, Case<'a>>,
    /// Of every text that was ever sent.
    pub texts: BTreeMap<TextId, Place>,
}

/// One key's part of the history.
#[derive(Default)]
pub struct Case<'a> {
    pub adds: Vec<Add>,
    pub by_text: BTreeMap<TextId, usize>,
    pub clears: Vec<Write>,
    /// Answered reads of the whole list.
    pub reads: Vec<&'a Call>,
    /// And of a part of it.
    pub pages: Vec<&'a Call>,
}

/// An add, and what is certain about it.
pub struct Add {
    pub write: Write,
    pub text: TextId,
    /// It was acknowledged at quorum before anybody can have tried it again.
    pub is_one_try: bool,
    /// From here on it is on a quorum.
    pub known_us: Option<u64>,
    /// From here on it is on some disk: a read at whatever level showed it, and only what is durable is shown.
    pub shown_us: Option<u64>,
    /// From here on it may be gone, as some clear may have covered it.
    pub may_be_gone_us: Option<u64>,
    /// From here on it must be gone.
    pub gone_us: Option<u64>,
}

impl Add {
    /// Whether no clear that began before this moment can have covered it.
    pub fn is_safe_at(&self, us: u64) -> bool {
        self.may_be_gone_us.is_none_or(|gone| gone >= us)
    }

    pub fn acked_at_quorum_before(&self, us: u64) -> bool {
        self.write.acked_at_quorum_us().is_some_and(|acked| acked < us)
    }
}

impl<'a> Judged<'a> {
    pub fn new(history: &'a History) -> Self {
        let mut places: BTreeMap<Place, Case> = BTreeMap::new();
        for (place, writes) in history.writes() {
            let case = places.entry(place).or_default();
            for write in writes {
                match write.text {
                    None => case.clears.push(write),
                    Some(text) => {
                        case.by_text.insert(text, case.adds.len());
                        case.adds.push(Add {
                            is_one_try: tries::is_one_try(history, &write),
                            write,
                            text,
                            known_us: None,
                            shown_us: None,
                            may_be_gone_us: None,
                            gone_us: None,
                        });
                    }
                }
            }
        }
        for call in &history.calls {
            let Some(Answer::Values(_)) = call.answer() else {
                continue;
            };
            let case = places.entry(call.place).or_default();
            match call.what {
                What::Get => case.reads.push(call),
                What::Page { .. } => case.pages.push(call),
                _ => {}
            }
        }
        let mut texts = BTreeMap::new();
        for (place, case) in &mut places {
            case.conclude();
            texts.extend(case.adds.iter().map(|add| (add.text, *place)));
        }
        Self { history, places, texts }
    }

    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        let cases = self.places.values();
        cases.flat_map(|case| case.adds.iter().map(|add| &add.write).chain(&case.clears))
    }

    /// Answered reads of lists.
    pub fn reads(&self) -> impl Iterator<Item = (&Case<'a>, &'a Call)> {
        self.places
            .values()
            .flat_map(|case| case.reads.iter().map(move |call| (case, *call)))
    }

    /// Answered reads of lists and of parts of them.
    pub fn reads_and_pages(&self) -> impl Iterator<Item = (&Case<'a>, &'a Call)> {
        self.places
            .values()
            .flat_map(|case| case.reads_and_pages().map(move |call| (case, call)))
    }
}

impl<'a> Case<'a> {
    /// A page is one piece of a list, so what holds of all that is next to each other in a list holds of it.
    fn reads_and_pages(&self) -> impl Iterator<Item = &'a Call> {
        self.reads.iter().chain(&self.pages).copied()
    }

    fn conclude(&mut self) {
        for add in &mut self.adds {
            add.known_us = add.write.acked_at_quorum_us();
        }
        for read in self.reads.iter().chain(&self.pages) {
            let earlier = |us: Option<u64>| Some(us.map_or(read.ended_us, |us| us.min(read.ended_us)));
            for text in texts_of(read) {
                if let Some(add) = self.by_text.get(&text).and_then(|at| self.adds.get_mut(*at)) {
                    add.shown_us = earlier(add.shown_us);
                    if read.is_quorum() {
                        add.known_us = earlier(add.known_us);
                    }
                }
            }
        }
        for add in &mut self.adds {
            if add.write.is_forgotten {
                (add.known_us, add.shown_us) = (None, None);
            }
            let may_cover = |clear: &&Write| clear.possible && clear.over_us > add.write.began_us;
            add.may_be_gone_us = self.clears.iter().filter(may_cover).map(|clear| clear.began_us).min();
            let known_us = add.known_us;
            let covers = |clear: &&Write| known_us.is_some_and(|known| clear.began_us > known);
            let covering = self.clears.iter().filter(covers);
            add.gone_us = covering.filter_map(Write::acked_at_quorum_us).min();
        }
    }

    pub fn add(&self, text: TextId) -> Option<&Add> {
        self.by_text.get(&text).map(|at| &self.adds[*at])
    }
}

/// The texts of a list or a part of it, in its order.
pub fn texts_of(read: &Call) -> impl Iterator<Item = TextId> {
    read.values().iter().flatten().copied()
}

/// How a failure names a call.
pub fn name(call: &Call) -> String {
    let what = match &call.what {
        What::Add { text, .. } => format!("add of {text}"),
        other => format!("{other:?}"),
    };
    let node = match call.node {
        ANY_NODE => "any node".to_owned(),
        node => format!("node {node}"),
    };
    format!(
        "{what} on {:?} by client {} at {} of {node} ({:.3} s to {:.3} s)",
        call.place,
        call.client,
        call.level.name(),
        call.began_us as f64 / 1e6,
        call.ended_us as f64 / 1e6
    )
}
