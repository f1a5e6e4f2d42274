//! G2: nothing acknowledged is lost.

use std::collections::BTreeSet;

use super::{Add, Judged, name, texts_of};
use crate::cluster::history::Level;

/// In the lists that the replicas end with, every value stands whose last text was acknowledged at quorum and that no clear may
/// have covered; also one acknowledged by one replica, as long as no disk lost what was durable. Parts of it are a matter of G7.
pub fn nothing_acknowledged_is_lost(judged: &Judged) -> Result<(), String> {
    let any_lost = !judged.history.lost_disks.is_empty();
    let must_stay = |add: &&Add, read_us: u64| {
        let counts = add.write.level > Level::One || !any_lost;
        add.write.finish
            && add.write.acked_us.is_some_and(|acked_us| acked_us < read_us)
            && counts
            && add.is_safe_at(read_us)
    };
    for (case, read) in judged.reads().filter(|(_, read)| read.is_last) {
        let seen: BTreeSet<_> = texts_of(read).collect();
        if let Some(add) = case
            .adds
            .iter()
            .find(|add| must_stay(add, read.began_us) && !seen.contains(&add.text))
        {
            return Err(format!(
                "{} lacks {}, acknowledged at {:?} µs",
                name(read),
                add.text,
                add.write.acked_us
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
    fn an_acknowledged_value_is_there_at_the_end() {
        let check = nothing_acknowledged_is_lost;
        sample().add(1, 0, 1).get(&[&[1]], 2, 3).last_on(0).passes(check);
        sample().add(1, 0, 1).get(&[], 2, 3).last_on(0).fails(check);
        sample()
            .add(1, 0, 1)
            .unanswered()
            .get(&[], 2, 3)
            .last_on(0)
            .passes(check);
        sample().clear(0, 1).add(1, 2, 3).get(&[], 4, 5).last_on(0).fails(check);
        sample()
            .add(1, 0, 3)
            .clear(2, 3)
            .get(&[], 4, 5)
            .last_on(0)
            .passes(check);
    }

    #[test]
    fn one_replica_is_enough_while_no_disk_is_lost() {
        let check = nothing_acknowledged_is_lost;
        let mut one = sample().add(1, 0, 1).at(Level::One).get(&[], 2, 3).last_on(0);
        one.fails(check);
        one = one.lost_disk(2, 1);
        one.passes(check);
    }
}
