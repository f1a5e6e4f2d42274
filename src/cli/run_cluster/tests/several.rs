//! Several nodes, and what becomes of all when one of them fails or is not let in.

use super::*;

fn joins_of(command: &str) -> Vec<String> {
    let joins = command.split("--join ").skip(1);
    joins
        .map(|rest| rest.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn several_nodes_share_a_key_and_the_others_join_the_first() {
    let mut world = World::of(3);
    let script = format!("echo \"$@\" >&2\nmkdir -p $3\n{}", world.serving());
    world.run(&script, 1).await.unwrap();
    let key = world.path(KEY_FILE);
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    let first_key = fs::read_to_string(&key).unwrap();
    let profile: Profile = toml::from_str(&fs::read_to_string(world.path(PROFILE_FILE)).unwrap()).unwrap();
    assert_eq!(profile.url.unwrap().list(), world.probes.urls());
    let dir = world.args.dir.clone();
    let command = |number: usize| {
        let log = fs::read_to_string(dir.join(format!("node-{number}.log"))).unwrap();
        assert!(log.contains("stopped"), "{log}");
        log.lines().next().unwrap().to_owned()
    };
    let first = command(1);
    let own = first.split("--cluster-listen ").nth(1).unwrap();
    assert!(own.starts_with(&joins_of(&first)[0]), "{first}");
    for number in 1..=3 {
        let command = command(number);
        assert!(
            command.contains(&format!("--data {}", world.path(&format!("node-{number}")).display())),
            "{command}"
        );
        assert!(
            command.contains("--cluster-listen 127.0.0.1:") && command.contains("cluster-key"),
            "{command}"
        );
        // All have one list, and the first stands first in it.
        assert_eq!(joins_of(&command), joins_of(&first), "{command}");
        assert_eq!(joins_of(&command).len(), 3, "{command}");
        assert_eq!(command.contains("--user demo"), number == 1, "{command}");
    }
    // Again, with as many nodes as are there.
    world.args.nodes = None;
    fs::remove_file(world.path(PROFILE_FILE)).unwrap();
    world.run(&script, 1).await.unwrap();
    assert_eq!(fs::read_to_string(&key).unwrap(), first_key);
}

#[tokio::test]
async fn when_one_of_several_nodes_does_not_start_the_others_are_stopped() {
    let world = World::of(2);
    let ready = world.ready();
    let script = format!("{OBEYS}case $3 in *-2) exit 3;; esac\n{ready}{SERVES}");
    let error = world.run(&script, 0).await.unwrap_err().to_string();
    assert!(error.contains("node 2 stopped by itself"), "{error}");
    let log = fs::read_to_string(world.path("node-1.log")).unwrap();
    assert!(!log.contains("serving") || log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn when_one_of_several_nodes_is_given_up_the_others_go_on() {
    let world = World::of(2);
    let ready = world.ready();
    let (count, sign) = (world.root.path().join("count"), world.root.path().join("sign"));
    let second = format!("sleep 0.2; echo x >> {}; exit 3", count.display());
    let first = format!(
        "while [ ! -e {0} ] || [ $(wc -l < {0}) -lt 3 ]; do sleep 0.05; done; sleep 1.5; touch {1}",
        count.display(),
        sign.display()
    );
    let script = format!("{OBEYS}{ready}case $3 in *-2) {second};; *) {first};; esac\n{SERVES}");
    world.run_until(&script, 1, &sign).await.unwrap();
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_new_cluster_is_told_of_when_all_of_its_nodes_are_members() {
    let world = World::of(3);
    world.probes.refuse(3, "not let in");
    let script = world.serving();
    let profile = world.path(PROFILE_FILE);
    let let_in = async {
        let log = world.path("node-3.log");
        while !fs::read_to_string(&log).is_ok_and(|text| text.contains("serving")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!profile.exists());
        world.probes.accept_all();
    };
    let (outcome, ()) = tokio::join!(world.run(&script, 1), let_in);
    outcome.unwrap();
    assert!(profile.exists());
}

#[tokio::test]
async fn a_signal_stops_it_while_it_waits_for_a_node() {
    let world = World::of(3);
    world.probes.refuse(2, "not let in");
    let sign = world.root.path().join("sign");
    let script = format!(
        "{OBEYS}{}case $3 in *-2) sleep 0.3; touch {};; esac\n{SERVES}",
        world.ready(),
        sign.display()
    );
    world.run_until(&script, 1, &sign).await.unwrap();
    assert!(!world.path(PROFILE_FILE).exists());
}
