//! No request waits for ever.

use super::{Judged, name};
use crate::cluster::history::Outcome;

/// By then every request is answered, if only by a refusal, unless its node or its way there had trouble.
pub const ANSWER_US_MAX: u64 = 8_000_000;

pub fn answers_come_in_time(judged: &Judged) -> Result<(), String> {
    let history = judged.history;
    let late = history
        .calls
        .iter()
        .filter(|call| !matches!(call.outcome, Outcome::Answered(_)) && call.ended_us - call.began_us > ANSWER_US_MAX);
    for call in late {
        let excused = history.troubles.iter().any(|trouble| {
            trouble.node.is_none_or(|node| node == call.node)
                && trouble.from_us < call.ended_us
                && trouble.to_us > call.began_us
        });
        if !excused {
            return Err(format!("{} was not answered: {:?}", name(call), call.outcome));
        }
    }
    Ok(())
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
}
