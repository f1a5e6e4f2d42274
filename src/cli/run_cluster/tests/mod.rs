//! The cluster's folder and the life of its nodes, played by a shell script.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::folder::{KEY_FILE, PASSWORD_BYTES};
use super::*;
use crate::cli::connection::profile::{Profile, Urls};

mod folders;
mod rig;
mod several;

pub use rig::FakeProbes;
use rig::*;

#[tokio::test]
async fn it_makes_a_password_and_a_profile_and_stops_the_node_in_good_order() {
    let world = World::new();
    let script = format!("echo \"$@\" >&2\n{}", world.serving());
    world.run(&script, 1).await.unwrap();
    let password = fs::read_to_string(world.path(PASSWORD_FILE)).unwrap();
    assert_eq!(password.trim().len(), 2 * PASSWORD_BYTES);
    assert_eq!(fs::metadata(world.path(PASSWORD_FILE)).unwrap().mode() & 0o777, 0o600);
    let profile: Profile = toml::from_str(&fs::read_to_string(world.path(PROFILE_FILE)).unwrap()).unwrap();
    assert_eq!(profile.url, Some(Urls::One(world.probes.urls()[0].clone())));
    assert_eq!(profile.user.as_deref(), Some("demo"));
    let log = fs::read_to_string(world.path("node-1.log")).unwrap();
    assert!(
        log.contains("serve --data") && log.contains("--user demo --password-file"),
        "{log}"
    );
    assert!(log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn a_second_start_keeps_the_password() {
    let world = World::new();
    let script = world.serving();
    world.run(&script, 1).await.unwrap();
    let password = fs::read_to_string(world.path(PASSWORD_FILE)).unwrap();
    world.run(&script, 1).await.unwrap();
    assert_eq!(fs::read_to_string(world.path(PASSWORD_FILE)).unwrap(), password);
    assert!(world.path("node-1.log.old").exists());
}

#[tokio::test]
async fn a_node_that_dies_before_it_serves_is_reported_with_the_end_of_its_log() {
    let world = World::new();
    let long = "i=0; while [ $i -lt 50 ]; do echo line $i >&2; i=$((i+1)); done\n";
    let error = world.run(&format!("{long}exit 3\n"), 0).await.unwrap_err().to_string();
    assert!(
        error.contains("node 1 stopped by itself") && error.contains("exit status: 3"),
        "{error}"
    );
    assert!(
        error.contains("line 49") && error.contains("line 30") && !error.contains("line 29"),
        "{error}"
    );
    assert!(error.contains("node-1.log"), "{error}");
}

#[tokio::test]
async fn a_node_that_died_is_started_again_at_its_address() {
    let world = World::new();
    let ready = world.ready();
    let mark = world.root.path().join("died");
    let die_once = format!(
        "echo \"$@\" >&2\n{OBEYS}{ready}[ -e {0} ] || {{ touch {0}; exit 7; }}\n",
        mark.display()
    );
    // The signal comes when it serves again.
    let second = "touch $(dirname $0)/again\n";
    let signal_at = world.root.path().join("again");
    let script = format!("{die_once}{second}{SERVES}");
    world.run_until(&script, 1, &signal_at).await.unwrap();
    let log = fs::read_to_string(world.path("node-1.log")).unwrap();
    let starts: Vec<&str> = log.lines().filter(|line| line.contains("serve --data")).collect();
    assert_eq!(starts.len(), 2, "{log}");
    assert!(
        starts[0].contains("--listen 127.0.0.1:0")
            && starts[1].contains(&format!("--listen {}", world.probes.addresses[0])),
        "{log}"
    );
}

#[tokio::test]
async fn a_node_that_dies_at_once_every_time_is_given_up() {
    let world = World::new();
    let ready = world.ready();
    let script = format!("echo \"$@\" >&2\n{ready}exit 3\n");
    let error = format!("{:#}", world.run(&script, 0).await.unwrap_err());
    assert!(
        error.contains("not started again") && error.contains("exit status: 3"),
        "{error}"
    );
    let log = fs::read_to_string(world.path("node-1.log")).unwrap();
    assert_eq!(log.matches("serve --data").count(), 3);
}

#[tokio::test]
async fn a_node_that_does_not_stop_is_killed_on_the_second_signal() {
    let world = World::new();
    let ready = world.ready();
    let script = format!("trap '' TERM\n{ready}while :; do sleep 0.05; done\n");
    let error = world.run(&script, 2).await.unwrap_err().to_string();
    assert!(error.contains("node 1 was killed"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_said_before_anything_is_started() {
    let mut world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.args.listen = taken.local_addr().unwrap();
    let error = world.run("exit 0", 0).await.unwrap_err().to_string();
    assert!(error.contains("is in use") && error.contains("--listen"), "{error}");
    assert!(!world.path("node-1.log").exists());
}

#[test]
fn a_folder_of_somebody_else_is_run_only_when_it_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let (folder, link) = (root.path().join("kv-cluster"), root.path().join("link"));
    let own = [fs::metadata(root.path()).unwrap().uid()];
    folder::check_owner(&folder, &[]).unwrap();
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    for path in [&folder, &link] {
        folder::check_owner(path, &own).unwrap();
        let error = folder::check_owner(path, &[u32::MAX - 7]).unwrap_err();
        assert_eq!(crate::cli::exit::exit_of(&error), Exit::Usage);
        assert!(error.to_string().contains("another user"), "{error}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let log = root.path().join("node-1.log");
    fs::write(&log, "").unwrap();
    fs::create_dir_all(root.path().join("node-1.log.old/in the way")).unwrap();
    let error = format!("{:#}", folder::new_log(&log).unwrap_err());
    assert!(error.contains("node-1.log"), "{error}");
}

#[test]
fn the_next_steps_name_the_profile_of_another_folder() {
    assert!(!what_next(Path::new("kv-cluster"), 1).contains("KV_PROFILE"));
    assert!(what_next(Path::new("/tmp/x"), 3).contains("KV_PROFILE=/tmp/x/profile.toml\n"));
    let here = std::env::current_dir().unwrap();
    let text = what_next(Path::new("it's here"), 3);
    let profile = format!("{}/it'\\''s here/profile.toml", here.display());
    assert!(text.contains(&format!("KV_PROFILE='{profile}'\n")), "{text}");
}

#[test]
fn what_the_environment_says_of_one_node_is_kept_from_those_here() {
    let world = World::new();
    let mut folder = Folder::prepare(&world.args.dir).unwrap();
    let program = Program {
        path: "kv".into(),
        first_args: Vec::new(),
    };
    let (starts, _) = plan(&mut folder, "127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let command = starts[0].command(&program);
    let kept_away: Vec<String> = command
        .as_std()
        .get_envs()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect();
    for name in [
        "KV_CONFIG",
        "KV_JOIN",
        "KV_ADMIN_USER",
        "KV_ZONE",
        "KV_CLUSTER_TLS",
        "KV_ADVERTISE",
    ] {
        assert!(kept_away.iter().any(|kept| kept == name), "{name} in {kept_away:?}");
    }
    for name in ["KV_SHARDS", "KV_LOG_FORMAT"] {
        assert!(!kept_away.iter().any(|kept| kept == name), "{name} in {kept_away:?}");
    }
}
