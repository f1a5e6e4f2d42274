//! G10: a failed sync is never retried.

use super::Judged;

/// After a sync of an open file failed, nobody syncs that open file again: the kernel tells of a lost write once, and whatever it says
/// later is no proof.
pub fn no_failed_sync_is_retried(judged: &Judged) -> Result<(), String> {
    match judged.history.retried_syncs.first() {
        Some((node, path)) => Err(format!(
            "node {node} synced {} again after a sync of it failed",
            path.display()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn a_retried_sync_is_found() {
        let mut sample = sample();
        sample.passes(no_failed_sync_is_retried);
        sample.history.retried_syncs.push((0, "log".into()));
        sample.fails(no_failed_sync_is_retried);
    }
}
