//! G3: when faults stop, all replicas of every slot give the same view in the same order.

use super::{Judged, name};

/// All reads that compare the replicas in the end give the same list, key by key.
pub fn replicas_are_alike(judged: &Judged) -> Result<(), String> {
    for case in judged.places.values() {
        let mut last = case.reads.iter().filter(|read| read.is_last);
        let Some(first) = last.next() else { continue };
        if let Some(other) = last.find(|read| read.list() != first.list()) {
            let (one, two) = (first.list().unwrap_or_default(), other.list().unwrap_or_default());
            return Err(format!(
                "{} gives {} values, {} gives {}; first difference at {:?}",
                name(first),
                one.len(),
                name(other),
                two.len(),
                one.iter().zip(two).position(|(a, b)| a != b)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn replicas_that_differ_in_content_or_order_are_found() {
        let check = replicas_are_alike;
        let two = || sample().add(1, 0, 9).add(2, 0, 9).get(&[&[1], &[2]], 10, 11).last_on(0);
        two().get(&[&[1], &[2]], 10, 11).last_on(1).passes(check);
        two().get(&[&[2], &[1]], 10, 11).last_on(1).fails(check);
        two().get(&[&[1]], 10, 11).last_on(1).fails(check);
        two().get(&[&[1]], 10, 11).passes(check);
    }
}
