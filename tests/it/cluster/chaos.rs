//! One trouble after the other, each for one node, drawn by chance: `KV_CLUSTER_SEED` draws others, `KV_CLUSTER_LENGTH` more.

use super::disks::copy_folder;
use super::load::{Kind, Load};
use super::rig::{Cluster, number_from};
use crate::common::Chance;

const ROUNDS_DEFAULT: u64 = 3;

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Killed,
    Stopped,
    Frozen,
    /// Its disk is empty afterwards.
    Emptied,
    /// Its disk is what it was some time ago.
    SetBack,
    CutOff,
    Unheard,
    Deaf,
}

const ANYWHERE: [Trouble; 5] = [
    Trouble::Killed,
    Trouble::Stopped,
    Trouble::Frozen,
    Trouble::Emptied,
    Trouble::SetBack,
];
const BETWEEN_NAMESPACES: [Trouble; 3] = [Trouble::CutOff, Trouble::Unheard, Trouble::Deaf];

#[test]
fn whatever_happens_to_one_node_at_a_time_no_request_fails_and_all_are_alike() {
    let namespaces = Cluster::in_namespaces();
    let mut troubles = ANYWHERE.to_vec();
    if namespaces.is_some() {
        troubles.extend(BETWEEN_NAMESPACES);
    }
    let mut cluster = namespaces.unwrap_or_else(Cluster::new);
    let user = cluster.user("writer");
    let load = Load::start(&cluster, &user, Kind::default());
    let mut chance = Chance(number_from("KV_CLUSTER_SEED", 1));
    for _ in 0..ROUNDS_DEFAULT * number_from("KV_CLUSTER_LENGTH", 1) {
        let trouble = troubles[chance.below(troubles.len() as u64) as usize];
        let index = chance.below(3) as usize;
        println!("node {index}: {trouble:?}");
        load.wait_once(chance.below(60));
        befall(&mut cluster, &load, trouble, index, chance.below(100));
        cluster.wait_whole();
    }
    load.finish().check(&cluster, &user);
}

fn befall(cluster: &mut Cluster, load: &Load, trouble: Trouble, index: usize, done: u64) {
    let others = [(index + 1) % 3, (index + 2) % 3];
    match trouble {
        Trouble::Killed | Trouble::Emptied => {
            cluster.kill(index);
            if matches!(trouble, Trouble::Emptied) {
                std::fs::remove_dir_all(cluster.data(index)).unwrap();
            }
            load.wait_once(done);
            cluster.start(index);
        }
        Trouble::Stopped => {
            cluster.stop(index);
            load.wait_once(done);
            cluster.start(index);
        }
        Trouble::Frozen => {
            cluster.freeze(index);
            load.wait_once(done);
            cluster.thaw(index);
        }
        Trouble::SetBack => {
            let copy = cluster.home().join("copy");
            cluster.kill(index);
            copy_folder(cluster.data(index), &copy);
            cluster.start(index);
            cluster.wait_whole();
            load.wait_once(done);
            cluster.kill(index);
            std::fs::remove_dir_all(cluster.data(index)).unwrap();
            std::fs::rename(copy, cluster.data(index)).unwrap();
            cluster.start(index);
        }
        Trouble::CutOff | Trouble::Unheard | Trouble::Deaf => {
            for other in others {
                if !matches!(trouble, Trouble::Deaf) {
                    cluster.wires().cut(index, other);
                }
                if !matches!(trouble, Trouble::Unheard) {
                    cluster.wires().cut(other, index);
                }
            }
            load.wait_once(done);
            cluster.wires().heal();
        }
    }
}
