//! Members are removed and replaced as an operator asks, and not otherwise.

use std::collections::BTreeSet;

use super::Judged;
use crate::cluster::history::{Change, Table};

/// What must be refused is not answered by OK; no node ever knows of more members than there are nodes, as each has one seat; and in the end all know the same ones: as many
/// as there are nodes, among them the one that says so, and nobody who was removed or replaced.
pub fn members_are_who_they_should_be(judged: &Judged) -> Result<(), String> {
    let history = judged.history;
    if let Some(wrong) = history.changes.iter().find(|change| change.is_wrong && change.is_done) {
        let Change {
            at_us, node, gone, new, ..
        } = wrong;
        return Err(format!(
            "node {node} answered OK at {at_us} µs, where it had to refuse: {gone} was to go, and {new:?} to take its place"
        ));
    }
    if let Some(table) = history.tables.iter().find(|table| table.up.len() > history.nodes) {
        return Err(format!("{}, of {} nodes", name(table), history.nodes));
    }
    let done = history.changes.iter().filter(|change| change.is_done);
    let gone: BTreeSet<&String> = done.map(|Change { gone, .. }| gone).collect();
    let last: Vec<&Table> = history.tables.iter().filter(|table| table.is_last).collect();
    for table in &last {
        let is_whole = table.up.len() == history.nodes && table.up.contains(&table.own) && table.up == last[0].up;
        if !is_whole || table.up.iter().any(|node| gone.contains(node)) {
            return Err(format!(
                "in the end, when {gone:?} are gone, {}, and {}",
                name(table),
                name(last[0])
            ));
        }
    }
    Ok(())
}

fn name(table: &Table) -> String {
    let Table {
        at_us, node, own, up, ..
    } = table;
    format!("node {node}, which is {own}, has the members {up:?} at {at_us} µs")
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, sample};
    use super::*;

    fn with(up: &[&str], own: &str, is_last: bool) -> Sample {
        let mut sample = sample();
        sample.history.nodes = 2;
        sample.history.tables.push(Table {
            at_us: 1,
            node: 0,
            own: own.to_owned(),
            up: up.iter().map(|node| (*node).to_owned()).collect(),
            is_last,
        });
        sample
    }

    fn changed(mut sample: Sample, gone: &str, is_wrong: bool, is_done: bool) -> Sample {
        sample.history.changes.push(Change {
            at_us: 0,
            node: 0,
            gone: gone.to_owned(),
            new: None,
            is_wrong,
            is_done,
        });
        sample
    }

    #[test]
    fn a_mistake_that_is_carried_out_is_found() {
        let check = members_are_who_they_should_be;
        changed(sample(), "a", true, true).fails(check);
        changed(sample(), "a", true, false).passes(check);
        changed(sample(), "a", false, true).passes(check);
    }

    #[test]
    fn too_many_members_are_found_and_in_the_end_too_few_and_one_that_is_gone() {
        let check = members_are_who_they_should_be;
        with(&["a", "b"], "a", true).passes(check);
        with(&["a"], "a", false).passes(check);
        with(&["a"], "a", true).fails(check);
        with(&["a", "b", "c"], "a", false).fails(check);
        with(&["a", "b"], "c", true).fails(check);
        changed(with(&["a", "b"], "a", true), "b", false, true).fails(check);
        changed(with(&["a", "b"], "a", true), "c", false, true).passes(check);
        let mut two = with(&["a", "b"], "a", true);
        two.history.tables.extend(with(&["a", "c"], "a", true).history.tables);
        two.fails(check);
    }
}
