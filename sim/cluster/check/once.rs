//! G6, on the disks: a request that was carried out is not carried out again.

use std::collections::BTreeMap;

use kv_storage::core::op::Dot;
use kv_storage::types::RequestId;

use super::Judged;
use super::tries::is_one_try;
use crate::cluster::history::{Place, Write};

/// In all surveys of all nodes, a request is one op, however often it was sent again after its answer: what hides a second one from the readers may
/// not be needed. Where a second try was under way before the answer, of a client or of a node, there may be two: a node asks another one when the first
/// is slow, or its connection breaks.
pub fn a_request_is_one_op(judged: &Judged) -> Result<(), String> {
    let mut dots: BTreeMap<(Place, RequestId), Dot> = BTreeMap::new();
    let mut twice: BTreeMap<(Place, RequestId), [Dot; 2]> = BTreeMap::new();
    for op in judged.history.surveys.iter().flat_map(|survey| &survey.ops) {
        let (Some(place), Some(request)) = (op.place, op.request) else {
            continue;
        };
        let first = *dots.entry((place, request)).or_insert(op.dot);
        if first != op.dot {
            twice.insert((place, request), [first, op.dot]);
        }
    }
    let is_one = |write: &&Write| write.with_id && is_one_try(judged.history, write);
    for write in judged.writes().filter(is_one) {
        let request = RequestId::new(&judged.history.request_id(write.op)).ok();
        if let Some(dots) = request.and_then(|request| twice.get(&(write.place, request))) {
            return Err(format!(
                "request {} on {:?}, sent at {} µs and acknowledged at {:?} µs, is more than one op: {dots:?}",
                write.op, write.place, write.began_us, write.acked_us
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, sample};
    use super::super::tries::SECOND_TRY_US;
    use super::*;
    use crate::cluster::history::{History, Level, request_id};

    /// Sent, and sent again once it was acknowledged, `as_what`; what lies on the disks has one request id.
    fn sent_again(change: impl FnOnce(Sample) -> Sample, texts: &[u64]) -> Sample {
        let added = sample().add(1, 0, 10).with(|call| call.with_id = true);
        let again = added.add(1, 20, 30).again().with(|call| call.with_id = true);
        let request = RequestId::new(&request_id(1)).ok();
        let survey = |sample: Sample, texts| sample.survey(0, 40, texts).with_held(|op| op.request = request);
        survey(change(again), texts)
    }

    #[test]
    fn a_request_that_was_carried_out_twice_is_found_though_nobody_sees_it() {
        let check = a_request_is_one_op;
        let same = |sample| sample;
        sent_again(same, &[1]).passes(check);
        sent_again(same, &[1, 2]).fails(check);
        let apart = sent_again(same, &[1]).survey(1, 50, &[2]);
        let request = RequestId::new(&request_id(1)).ok();
        apart.with_held(|op| op.request = request).fails(check);
    }

    #[test]
    fn where_a_second_try_may_have_begun_before_the_answer_there_may_be_two() {
        let check = a_request_is_one_op;
        let changed = |change: fn(&mut History)| {
            let mut sample = sent_again(|sample| sample, &[1, 2]);
            change(&mut sample.history);
            sample
        };
        changed(|history| history.calls[0].ended_us += SECOND_TRY_US).passes(check);
        changed(|history| history.calls[1].began_us = 5).passes(check);
        changed(|history| history.calls[0].with_id = false).passes(check);
        changed(|history| history.cuts_us.push(10)).passes(check);
        changed(|history| history.cuts_us.push(11)).fails(check);
        sent_again(|sample| sample.trouble(0, 5, 6), &[1, 2]).passes(check);
        sent_again(|sample| sample.trouble(0, 11, 12), &[1, 2]).fails(check);
        changed(|history| history.calls[0].level = Level::One).passes(check);
    }
}
