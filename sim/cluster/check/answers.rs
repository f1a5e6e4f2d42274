//! No request waits for ever, and requests are carried out.

use std::collections::BTreeSet;

use super::{Judged, name};
use crate::cluster::client::NO_ANSWER;
use crate::cluster::history::{ANY_NODE, Call, History, Level, Outcome, Trouble, What};
use crate::cluster::workload::guests::FIRST_GUEST;

/// By then every request is answered, if only by a refusal, unless its node or its way there had trouble.
pub const ANSWER_US_MAX: u64 = 8_000_000;
/// Where nothing is in the way, so many of a hundred calls are carried out, by clients who have so much patience.
const ANSWERED_PERCENT_MIN: usize = 95;
const PATIENCE_MS_MIN: u64 = 5_000;
/// How long a node lets a wrong password wait for its answer, at most.
const LOGIN_DELAY_US_MAX: u64 = 5_000_000;
/// Of fewer calls, one says too much.
const CALLS_MIN: usize = 20;

/// No call goes without an answer for that long, or for as long as a client with some patience waits for any, unless there is trouble; and in a run without
/// any, with the usual room for requests and time for each, nearly all calls are carried out: a store that refuses everything at once is none.
pub fn answers_come_in_time(judged: &Judged) -> Result<(), String> {
    let history = judged.history;
    for call in history.calls.iter().filter(|call| is_late(history, call)) {
        if !is_excused(history, call) {
            return Err(format!("{} was not answered: {:?}", name(call), call.outcome));
        }
    }
    let patient = history.timeout_ms >= PATIENCE_MS_MIN && !history.in_haste;
    let is_calm = history.troubles.is_empty() && !history.bounds.are_tight && patient;
    // Users who are being removed are refused.
    let calls = || history.calls.iter().filter(|call| call.place.user < FIRST_GUEST);
    let all = calls().count();
    let answered = calls().filter(|call| call.answer().is_some()).count();
    if is_calm && all >= CALLS_MIN && answered * 100 < all * ANSWERED_PERCENT_MIN {
        return Err(format!(
            "nothing was in the way, and of {all} calls only {answered} were carried out"
        ));
    }
    Ok(())
}

/// Whether its node or its way there had trouble; for the product's client, which goes on with the next one, more nodes than a quorum can do without.
fn is_excused(history: &History, call: &Call) -> bool {
    match call.node {
        ANY_NODE => too_many_are_down(history, call),
        asked => troubles_during(history, call).any(|trouble| trouble.node.is_none_or(|node| node == asked)),
    }
}

fn troubles_during<'a>(history: &'a History, call: &'a Call) -> impl Iterator<Item = &'a Trouble> {
    let troubles = history.troubles.iter();
    troubles.filter(|trouble| trouble.from_us < call.ended_us && trouble.to_us > call.began_us)
}

/// Whether more nodes had trouble than a quorum can do without: whom to answer, a node may have to ask one.
fn too_many_are_down(history: &History, call: &Call) -> bool {
    let can_spare = history.replicas - call.level.max(Level::Quorum).needed(history.replicas);
    let nodes: BTreeSet<Option<u8>> = troubles_during(history, call).map(|trouble| trouble.node).collect();
    nodes.contains(&None) || nodes.len() > can_spare
}

/// From when on its node could have known how the call ends: where too many others are down, each of them may have been the one that was
/// waited for, until it fell silent and that was noticed.
fn could_be_known_us(history: &History, call: &Call) -> u64 {
    if !too_many_are_down(history, call) {
        return call.began_us;
    }
    let fell_silent = troubles_during(history, call).map(|trouble| trouble.from_us).max();
    fell_silent.unwrap_or_default().max(call.began_us)
}

fn is_late(history: &History, call: &Call) -> bool {
    let is_given_up = match &call.outcome {
        Outcome::Answered(_) => return false,
        Outcome::Refused(why) | Outcome::Unknown(why) => why == NO_ANSWER,
    };
    // Wrong passwords are slowed, and after some of them right ones that were never seen.
    let slowed_us = if matches!(call.what, What::Forged(_)) || call.place.user >= FIRST_GUEST {
        LOGIN_DELAY_US_MAX
    } else {
        0
    };
    let waited_us = call.ended_us - could_be_known_us(history, call);
    waited_us > ANSWER_US_MAX + slowed_us || (is_given_up && waited_us >= PATIENCE_MS_MIN * 1000 + slowed_us)
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn a_request_that_hangs_without_a_reason_is_found() {
        let check = answers_come_in_time;
        let long = ANSWER_US_MAX + 2;
        sample().add(1, 0, long).unanswered().fails(check);
        sample().add(1, 0, 9).unanswered().passes(check);
        sample().add(1, 0, long).unanswered().trouble(0, 5, 6).passes(check);
        sample().add(1, 0, long).unanswered().trouble(1, 5, 6).fails(check);
    }

    #[test]
    fn a_client_that_can_ask_others_is_excused_only_by_more_trouble_than_one_node_has() {
        let check = answers_come_in_time;
        let long = ANSWER_US_MAX + 2;
        let asked = || sample().add(1, 0, long).unanswered().with(|call| call.node = ANY_NODE);
        asked().fails(check);
        asked().trouble(0, 5, 6).fails(check);
        asked().trouble(0, 5, 6).trouble(0, 7, 8).fails(check);
        asked().trouble(0, 5, 6).trouble(1, 7, 8).passes(check);
        asked().at(Level::All).trouble(0, 5, 6).passes(check);
    }

    #[test]
    fn who_waits_for_nodes_that_fail_one_after_the_other_is_answered_soon_after_the_last() {
        let check = answers_come_in_time;
        let long = ANSWER_US_MAX + 2;
        let asked = || sample().add(1, 0, long).unanswered();
        asked().trouble(1, 0, long).trouble(2, 5, long).passes(check);
        asked().trouble(1, 0, long).trouble(2, 1, long).fails(check);
        asked().trouble(1, 0, long).trouble(1, 5, long).fails(check);
        asked().at(Level::All).trouble(1, 5, long).passes(check);
    }

    #[test]
    fn a_client_that_waited_in_vain_is_found_if_it_had_some_patience() {
        let check = answers_come_in_time;
        let given_up = |after_ms: u64| {
            let waited = sample().add(1, 0, after_ms * 1000);
            waited.with(|call| call.outcome = Outcome::Unknown(NO_ANSWER.into()))
        };
        given_up(PATIENCE_MS_MIN).fails(check);
        given_up(PATIENCE_MS_MIN).trouble(0, 5, 6).passes(check);
        given_up(PATIENCE_MS_MIN - 1).passes(check);
    }

    #[test]
    fn a_store_that_refuses_what_it_could_do_is_found() {
        let check = answers_come_in_time;
        let refusals = |of_ten: u64| {
            let mut sample = sample();
            for at in 0..100 {
                sample = sample.add(at, at, at + 1);
                if at % 10 < of_ten {
                    sample = sample.refused();
                }
            }
            sample.history.timeout_ms = PATIENCE_MS_MIN;
            sample
        };
        refusals(0).passes(check);
        refusals(1).fails(check);
        refusals(1).trouble(0, 500, 501).passes(check);
        let mut tight = refusals(1);
        tight.history.bounds.are_tight = true;
        tight.passes(check);
        let mut impatient = refusals(1);
        impatient.history.timeout_ms = PATIENCE_MS_MIN - 1;
        impatient.passes(check);
        let mut hasty = refusals(1);
        hasty.history.in_haste = true;
        hasty.passes(check);
    }
}
