//! Worlds for the bugs that are planted in the nodes themselves (`kv_storage::planted`): each short, and such that the bug has its occasions.

use kv_storage::planted::Bug;

use super::env::Pace;
use super::plan::{Bounds, Fault, Load, Plan, SECOND_US, Topology};
use crate::rng::Rng;

/// Three nodes that hold everything, one hot key, quick clients.
fn three(rng: &mut Rng) -> Plan {
    let mut plan = Plan::five(rng);
    plan.topology = Topology::Cluster;
    plan.nodes = 3;
    plan.replication = 3;
    plan.lossy_nodes = 1;
    plan.shards = 1;
    plan.skews.truncate(3);
    plan.faults = Vec::new();
    plan.faults_end_us = 11 * SECOND_US;
    plan.clears_all = false;
    plan.converge_us = 10 * SECOND_US;
    plan.survey_us = 2 * SECOND_US;
    plan.link.delay_us = 300;
    plan.link.jitter_us = 2_000;
    plan.link.loss_percent = 0;
    plan.link.repeat_percent = 0;
    plan.link.bytes_per_ms = 125_000;
    // Small packets cost much and show nothing here.
    plan.streams.window_bytes = 256 << 10;
    plan.streams.segment_bytes = 64 << 10;
    plan.pace = Pace {
        slow_percent: 50,
        slow_ms_max: 5,
    };
    plan.load = Load {
        clients: 4,
        users: 1,
        keys: 2,
        think_ms_max: 100,
        timeout_ms: 2_000,
        attempts_max: 3,
        again_percent: 0,
        part_percent: 10,
        clear_percent: 0,
        batch_percent: 0,
        one_percent: 0,
        all_percent: 0,
        hasty_percent: 0,
        text_bytes_max: 200,
        long_percent: 10,
    };
    plan
}

/// The check that is there for this bug and has to find it, whatever others see as well.
pub fn found_by(bug: Bug) -> &'static str {
    match bug {
        Bug::AckBeforeSync
        | Bug::QuorumCountedTwice
        | Bug::ReadRepairDropped
        | Bug::VotesUnsynced
        | Bug::GivenInPart => "G1 durable",
        Bug::DotReused => "G2 nothing acknowledged is lost",
        Bug::CatchUpSkipsLast => "G3 convergence",
        Bug::StampNotAsked => "G5 order",
        Bug::RetryTakenAnew | Bug::PartTwice | Bug::AddUnnamed => "G6 exactly once",
        Bug::ClearByTime | Bug::ClearDroppedEarly | Bug::ReconcileSkipped | Bug::SetBackUnnoticed => {
            "G8 no resurrection"
        }
        Bug::PasswordForgotten | Bug::ClearUnasked | Bug::DoubtForgotten => "G9, and nothing is invented",
        Bug::SyncRetried => "G10 no false success",
        Bug::TornTailAccepted => "a dot names one op",
        Bug::PageOffsetForgotten | Bug::ListBoundForgotten => "pages, counts and listings",
        Bug::RetryTakenUnseen => "a request is one op",
        Bug::ClearTakenAnew => "G4 reads",
        Bug::CatchUpSkipsParts => "replicas hold the same",
        Bug::SpentForgotten => "a request is remembered",
        Bug::DroppedForgotten => "clocks only grow",
        Bug::ClearsKept | Bug::SpentKept => "space",
        Bug::PermitKept => "idle",
        Bug::DoorOpen => "limits",
        Bug::DoomedNotAsked => "G5 order",
        Bug::RequestOfAnyKey => "G9, and nothing is invented",
        Bug::NeverHealed => "idle",
        Bug::SpentByOp => "a request is remembered",
        Bug::PlaceUnfilled | Bug::RemovalSkipsLast | Bug::RenameIgnored => "G1 durable",
        Bug::PlaceGivenTwice | Bug::RemovedWithData => "members",
    }
}

/// A world in which this bug shows, and little else happens.
pub fn plan(bug: Bug, rng: &mut Rng) -> Plan {
    let mut plan = three(rng);
    plan.bug = Some(bug);
    let often = 2 * SECOND_US;
    match bug {
        Bug::AckBeforeSync | Bug::QuorumCountedTwice => {
            plan.pace.slow_percent = 100;
            plan.pace.slow_ms_max = 20;
            plan.faults = vec![(Fault::SlowDisk, often)];
        }
        Bug::ClearByTime => {
            plan.skews = vec![(0, 0), (60_000, 0), (0, 0)];
            plan.load.clear_percent = 4;
            plan.load.one_percent = 50;
            plan.faults_end_us = 15 * SECOND_US;
            plan.faults = vec![(Fault::Partition, SECOND_US)];
        }
        Bug::ClearDroppedEarly => {
            plan.shard.log_bytes = 68 << 10;
            plan.shard.fan_out = 2;
            plan.shard.idle_ms = 1_000;
            plan.load.keys = 4;
            plan.load.clear_percent = 10;
            plan.load.text_bytes_max = 4_000;
            plan.load.think_ms_max = 1_500;
            plan.faults = vec![(Fault::LongAbsence, 2 * often), (Fault::Partition, 2 * often)];
            plan.faults_end_us = 30 * SECOND_US;
        }
        Bug::DotReused => {
            plan.pace.slow_percent = 100;
            plan.pace.slow_ms_max = 20;
            plan.faults = vec![(Fault::PowerLoss, often), (Fault::CrashInWrite, often)];
        }
        Bug::RetryTakenAnew => {
            plan.load.timeout_ms = 1_000;
            plan.load.attempts_max = 8;
            plan.faults = vec![
                (Fault::ClientAway, often),
                (Fault::SlowDisk, often),
                (Fault::CutConnection, SECOND_US / 2),
            ];
        }
        Bug::ReadRepairDropped | Bug::GivenInPart => {
            if bug == Bug::GivenInPart {
                plan.bounds.node.pages.key_bytes = 200;
            }
            plan.survey_us = SECOND_US / 2;
            plan.load.keys = 1;
            plan.load.text_bytes_max = 4_000;
            plan.load.clear_percent = 5;
            plan.load.long_percent = 50;
            plan.shard.log_bytes = 68 << 10;
            plan.shard.fill_bytes = 4 << 10;
            // Full, they take nothing and answer all the same.
            plan.faults = vec![(Fault::FullDisk, SECOND_US)];
        }
        Bug::CatchUpSkipsLast => {
            plan.faults = vec![(Fault::PowerLoss, often), (Fault::Partition, often)];
        }
        Bug::StampNotAsked => {
            plan.skews = vec![(0, 0), (60_000, 0), (-60_000, 0)];
            plan.faults = vec![(Fault::SlowLink, often), (Fault::SlowDisk, often)];
        }
        Bug::SyncRetried => plan.faults = vec![(Fault::SyncError, often)],
        Bug::TornTailAccepted => {
            plan.load.text_bytes_max = 4_000;
            plan.load.long_percent = 100;
            plan.load.think_ms_max = 60;
            plan.load.keys = 6;
            plan.faults_end_us = 45 * SECOND_US;
            plan.faults = vec![(Fault::CrashInWrite, SECOND_US / 3)];
        }
        Bug::PartTwice => plan.load.part_percent = 50,
        Bug::PasswordForgotten => plan.load.users = 2,
        Bug::ClearUnasked => {
            plan.load.users = 2;
            plan.load.clear_percent = 20;
        }
        Bug::ReconcileSkipped => {
            plan.shard.log_bytes = 68 << 10;
            plan.shard.fan_out = 2;
            plan.shard.idle_ms = 1_000;
            plan.load.clear_percent = 10;
            plan.load.think_ms_max = 1_500;
            plan.faults = vec![(Fault::OldDisk, 2 * often)];
            plan.faults_end_us = 30 * SECOND_US;
        }
        Bug::VotesUnsynced => {
            // On such disks it takes its time to copy anything.
            plan.pace.slow_percent = 100;
            plan.pace.slow_ms_max = 20;
            plan.load.all_percent = 50;
            plan.survey_us = SECOND_US / 5;
            plan.faults = vec![(Fault::EmptyDisk, often)];
            plan.faults_end_us = 20 * SECOND_US;
        }
        Bug::SetBackUnnoticed => {
            plan.running_images = true;
            // What was missed takes its time to come, by narrow links and to slow disks.
            plan.link.bytes_per_ms = 200;
            plan.pace.slow_percent = 100;
            plan.pace.slow_ms_max = 20;
            plan.load.clients = 6;
            plan.load.keys = 6;
            plan.load.think_ms_max = 60;
            plan.load.clear_percent = 6;
            plan.load.text_bytes_max = 4_000;
            plan.load.long_percent = 100;
            // Full, one has not what the other two had, and answers all the same.
            plan.faults = vec![(Fault::OldDisk, SECOND_US), (Fault::FullDisk, 4 * SECOND_US)];
            plan.faults_end_us = 40 * SECOND_US;
        }
        Bug::PageOffsetForgotten | Bug::ListBoundForgotten => {
            plan.nodes = 5;
            plan.skews.resize(5, (0, 0));
            plan.load.keys = 12;
            plan.load.part_percent = 0;
            plan.faults_end_us = 5 * SECOND_US;
        }
        Bug::RetryTakenUnseen => {
            plan.load.again_percent = 30;
            plan.faults_end_us = 5 * SECOND_US;
        }
        Bug::ClearTakenAnew => {
            plan.topology = Topology::Separate;
            plan.nodes = 1;
            plan.skews.truncate(1);
            plan.load.clear_percent = 10;
            plan.load.again_percent = 30;
            plan.faults_end_us = 5 * SECOND_US;
        }
        Bug::CatchUpSkipsParts => {
            plan.load.part_percent = 60;
            plan.load.keys = 6;
            plan.faults = vec![(Fault::PowerLoss, often), (Fault::Partition, often)];
        }
        Bug::SpentForgotten | Bug::DroppedForgotten => {
            merge_often(&mut plan);
            plan.survey_us = SECOND_US;
        }
        Bug::ClearsKept | Bug::SpentKept => {
            merge_often(&mut plan);
            plan.clears_all = true;
            plan.forgets = bug == Bug::SpentKept;
            plan.faults_end_us = 5 * SECOND_US;
        }
        Bug::DoomedNotAsked => {
            plan.skews = vec![(0, 0), (60_000, 0), (-60_000, 0)];
            plan.load.attempts_max = 1;
            plan.faults = vec![(Fault::SlowLink, often), (Fault::SlowDisk, often)];
            plan.faults_end_us = 20 * SECOND_US;
        }
        Bug::RequestOfAnyKey => {
            plan.topology = Topology::Separate;
            plan.nodes = 1;
            plan.skews.truncate(1);
            plan.load.users = 2;
            plan.faults_end_us = 5 * SECOND_US;
        }
        Bug::NeverHealed => {
            plan.load.keys = 6;
            plan.load.text_bytes_max = 4_000;
            plan.load.long_percent = 100;
            plan.load.think_ms_max = 60;
            plan.faults = vec![(Fault::BadSector, SECOND_US / 2), (Fault::Kill, SECOND_US)];
        }
        Bug::SpentByOp => {
            merge_often(&mut plan);
            plan.nodes = 2;
            plan.replication = 2;
            plan.skews.truncate(2);
            plan.survey_us = SECOND_US;
            plan.faults = vec![(Fault::HourPasses, 8 * SECOND_US), (Fault::EmptyDisk, 3 * SECOND_US)];
            plan.faults_end_us = 40 * SECOND_US;
        }
        Bug::PermitKept => plan.faults_end_us = 5 * SECOND_US,
        Bug::PlaceUnfilled => {
            plan.pace.slow_percent = 100;
            plan.pace.slow_ms_max = 20;
            plan.load.all_percent = 50;
            plan.survey_us = SECOND_US / 5;
            plan.faults = vec![(Fault::MemberLost, 4 * SECOND_US)];
            plan.faults_end_us = 25 * SECOND_US;
        }
        Bug::PlaceGivenTwice => {
            plan.faults = vec![(Fault::MemberLost, 3 * SECOND_US)];
            plan.faults_end_us = 30 * SECOND_US;
        }
        Bug::RemovedWithData => {
            plan.faults = vec![(Fault::MemberLost, 8 * SECOND_US)];
            plan.faults_end_us = 20 * SECOND_US;
        }
        Bug::RemovalSkipsLast => {
            plan.has_guests = true;
            plan.survey_us = SECOND_US / 2;
        }
        Bug::RenameIgnored => {
            plan.topology = Topology::Separate;
            plan.nodes = 1;
            plan.skews.truncate(1);
            plan.shard.log_bytes = 68 << 10;
            plan.load.text_bytes_max = 4_000;
            plan.load.long_percent = 100;
            plan.load.think_ms_max = 60;
            plan.survey_us = SECOND_US;
            plan.faults = vec![(Fault::NameError, SECOND_US / 2)];
        }
        Bug::AddUnnamed => {
            plan.load.timeout_ms = 1_000;
            plan.only_product(rng);
            plan.faults = vec![
                (Fault::Pause, often),
                (Fault::SlowDisk, often),
                (Fault::CutConnection, SECOND_US / 2),
            ];
        }
        Bug::DoubtForgotten => {
            plan.load.timeout_ms = 1_000;
            plan.load.clients = 6;
            plan.only_product(rng);
            plan.product.retries = 0;
            plan.load.think_ms_max = 30;
            plan.load.part_percent = 0;
            // Each has room for one write, so that one whose connection was cut is refused by the others.
            plan.bounds.are_tight = true;
            plan.bounds.front.requests_in_flight_max = 1;
            plan.bounds.front.requests_at_work_max = 1;
            plan.pace.slow_percent = 100;
            plan.pace.slow_ms_max = 20;
            plan.faults = vec![(Fault::CutConnection, SECOND_US / 5)];
        }
        Bug::DoorOpen => {
            let mut crowded = Plan::crowded(rng);
            crowded.bounds = Bounds {
                are_tight: true,
                ..Bounds::default()
            };
            crowded.bounds.node.shard_requests = 1;
            crowded.bug = plan.bug;
            crowded.faults_end_us = 3 * SECOND_US;
            plan = crowded;
        }
    }
    plan
}

/// Small logs, soon sealed and merged, and much that is cleared.
fn merge_often(plan: &mut Plan) {
    plan.shard.log_bytes = 68 << 10;
    plan.shard.fan_out = 2;
    plan.shard.idle_ms = 1_000;
    plan.load.clear_percent = 10;
    plan.load.text_bytes_max = 4_000;
}
