//! The nodes of a run before: one that was killed leaves them to stop by themselves, which they do as soon as they notice.
//!
//! Each holds its data folder, and mostly its ports too, until it has ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::node::folder::identity;
use crate::store::disk::Disk;

use super::WAIT_SILENT;
use super::keeper::STOP_TIMEOUT;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until nobody uses any of the data folders, but no longer than a node takes to stop; a folder that is in use even then has
/// another reason to be, which its new node reports. `say` is told what is waited for once it takes long.
pub async fn have_ended(disk: &dyn Disk, folders: &[PathBuf], say: impl Fn(&str)) {
    let until = Instant::now() + STOP_TIMEOUT;
    for folder in folders {
        if timeout(WAIT_SILENT, until_free(disk, folder)).await.is_ok() {
            continue;
        }
        let shown = folder.display();
        say(&format!(
            "{shown} is still in use, perhaps by a node of the run before that is stopping: waiting for it"
        ));
        if tokio::time::timeout_at(until, until_free(disk, folder)).await.is_err() {
            return;
        }
    }
}

async fn until_free(disk: &dyn Disk, folder: &Path) {
    while identity::is_in_use(disk, folder) {
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::os::RealDisk;

    #[tokio::test(start_paused = true)]
    async fn the_nodes_of_a_run_that_was_killed_are_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let folders: Vec<PathBuf> = (1..=3)
            .map(|number| root.path().join(format!("node-{number}")))
            .collect();
        // The third has none yet, which stays so.
        for folder in &folders[..2] {
            std::fs::create_dir(folder).unwrap();
        }
        let disk = RealDisk::default();
        let said = RefCell::new(Vec::new());
        let look = || have_ended(&disk, &folders, |text| said.borrow_mut().push(text.to_owned()));
        look().await;
        assert!(said.borrow().is_empty() && !folders[2].exists() && !folders[0].join("node.lock").exists());

        let held = disk.lock(&folders[1].join("node.lock")).unwrap();
        let mut looks = Box::pin(look());
        assert!(timeout(WAIT_SILENT * 2, &mut looks).await.is_err());
        assert!(
            said.borrow().len() == 1 && said.borrow()[0].contains("node-2 is still in use"),
            "{said:?}"
        );
        drop(held);
        assert!(timeout(LOOK_EVERY * 2, looks).await.is_ok());

        let held = disk.lock(&folders[0].join("node.lock")).unwrap();
        let began = Instant::now();
        look().await;
        assert_eq!(began.elapsed().as_secs(), STOP_TIMEOUT.as_secs());
        drop(held);
    }
}
