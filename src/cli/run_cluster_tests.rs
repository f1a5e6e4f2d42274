//! The cluster's folder and the life of its nodes, played by a shell script.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::profile::{Profile, Urls};
use super::folder::{KEY_FILE, PASSWORD_BYTES};
use super::*;

/// From here on, SIGTERM stops the node in good order. Before it says that it is ready: the signal may come right after.
const OBEYS: &str = "trap 'echo stopped >&2; exit 0' TERM\n";
const SERVES: &str = "echo serving >&2; while :; do sleep 0.05; done\n";

/// What the nodes answer when they are asked whether they are ready.
pub struct FakeProbes {
    addresses: Vec<SocketAddr>,
    refused: Arc<Mutex<BTreeMap<usize, String>>>,
}

impl FakeProbes {
    pub fn start(count: usize) -> Self {
        let refused = Arc::new(Mutex::new(BTreeMap::<usize, String>::new()));
        let start = |number: usize| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let refused = Arc::clone(&refused);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut request = BufReader::new(&stream).lines();
                    while request
                        .next()
                        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                    {}
                    let answer = match refused.lock().unwrap().get(&number) {
                        None => "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"OK\"}".to_owned(),
                        Some(why) => format!("HTTP/1.1 503 No\r\n\r\n{{\"detail\":\"{why}\"}}"),
                    };
                    // Whoever asked may not wait for it.
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
            address
        };
        let addresses = (1..=count).map(start).collect();
        Self { addresses, refused }
    }

    pub fn urls(&self) -> Vec<String> {
        self.addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect()
    }

    /// From now on, the node of this number is not ready.
    pub fn refuse(&self, number: usize, why: &str) {
        self.refused.lock().unwrap().insert(number, why.to_owned());
    }

    pub fn accept_all(&self) {
        self.refused.lock().unwrap().clear();
    }
}

struct World {
    root: tempfile::TempDir,
    args: RunClusterArgs,
    probes: FakeProbes,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let args = RunClusterArgs {
            nodes: Some(1),
            dir: root.path().join("cluster"),
            listen: "127.0.0.1:0".parse().unwrap(),
        };
        let probes = FakeProbes::start(3);
        Self { root, args, probes }
    }

    /// What a node of number N says when it serves: its address is that of the Nth probe.
    fn ready(&self) -> String {
        let [first, second, third] = [0, 1, 2].map(|index| self.probes.addresses[index]);
        format!(
            "case $3 in *-3) at={third};; *-2) at={second};; *) at={first};; esac\n\
             echo \"kv-storage ready: listening on http://$at, data in d\"\n"
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.args.dir.join(name)
    }

    /// Runs `script` as the nodes; `signals` signals come once the profile is there.
    async fn run(&self, script: &str, signals: usize) -> anyhow::Result<()> {
        self.run_until(script, signals, &self.path(PROFILE_FILE)).await
    }

    /// The same, but that the signals come once `sign` is there.
    async fn run_until(&self, script: &str, signals: usize, sign: &Path) -> anyhow::Result<()> {
        let path = self.root.path().join("node.sh");
        fs::write(&path, script).unwrap();
        let program = Program {
            path: "/bin/sh".into(),
            first_args: vec![path.display().to_string()],
        };
        let mut left = signals;
        let mut next_signal = async || {
            if left == 0 {
                return std::future::pending().await;
            }
            while !sign.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            left -= 1;
        };
        run_until(&self.args, &program, &mut next_signal).await
    }
}

#[tokio::test]
async fn it_makes_a_password_and_a_profile_and_stops_the_node_in_good_order() {
    let world = World::new();
    let ready = world.ready();
    let script = format!("echo \"$@\" >&2\n{OBEYS}{ready}{SERVES}");
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
    let ready = world.ready();
    let script = format!("{OBEYS}{ready}{SERVES}");
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

fn joins_of(command: &str) -> Vec<String> {
    let joins = command.split("--join ").skip(1);
    joins
        .map(|rest| rest.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn several_nodes_share_a_key_and_the_others_join_the_first() {
    let mut world = World::new();
    let ready = world.ready();
    world.args.nodes = Some(3);
    let script = format!("echo \"$@\" >&2\nmkdir -p $3\n{OBEYS}{ready}{SERVES}");
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
    let mut world = World::new();
    let ready = world.ready();
    world.args.nodes = Some(2);
    let script = format!("{OBEYS}case $3 in *-2) exit 3;; esac\n{ready}{SERVES}");
    let error = world.run(&script, 0).await.unwrap_err().to_string();
    assert!(error.contains("node 2 stopped by itself"), "{error}");
    let log = fs::read_to_string(world.path("node-1.log")).unwrap();
    assert!(!log.contains("serving") || log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn when_one_of_several_nodes_is_given_up_the_others_go_on() {
    let mut world = World::new();
    let ready = world.ready();
    world.args.nodes = Some(2);
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
async fn a_node_that_does_not_stop_is_killed_on_the_second_signal() {
    let world = World::new();
    let ready = world.ready();
    let script = format!("trap '' TERM\n{ready}while :; do sleep 0.05; done\n");
    let error = world.run(&script, 2).await.unwrap_err().to_string();
    assert!(error.contains("killed"), "{error}");
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

#[tokio::test]
async fn a_run_that_fails_before_any_node_is_started_leaves_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let run_at = async |dir: &str| {
        let mut world = World::new();
        world.args.listen = taken.local_addr().unwrap();
        world.args.dir = world.root.path().join(dir);
        if dir == "there" {
            fs::create_dir(&world.args.dir).unwrap();
            fs::write(world.path("notes"), "x").unwrap();
        }
        world.run("exit 0", 0).await.unwrap_err();
        let mut left = Vec::new();
        let mut folders = vec![world.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                left.push(path.strip_prefix(world.root.path()).unwrap().display().to_string());
                folders.extend(path.is_dir().then_some(path));
            }
        }
        left.sort();
        left
    };
    assert_eq!(run_at("far/down/here").await, ["node.sh"]);
    assert_eq!(run_at("there").await, ["node.sh", "there", "there/notes"]);
}

#[test]
fn what_a_failed_run_made_does_not_take_what_others_made_with_it() {
    let world = World::new();
    let folder = Folder::prepare(&world.args.dir).unwrap();
    fs::write(world.path("notes"), "x").unwrap();
    drop(folder);
    let left: Vec<_> = fs::read_dir(&world.args.dir).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let in_a_file = Folder::prepare(&world.path("notes/below")).err().unwrap();
    assert!(format!("{in_a_file:#}").contains("not a directory"), "{in_a_file:#}");
    assert!(world.path("notes").is_file());
    // The lock belongs to whoever holds it.
    let holder = Folder::prepare(&world.args.dir).unwrap();
    assert!(Folder::prepare(&world.args.dir).is_err());
    assert!(world.path("lock").exists() && world.path(PASSWORD_FILE).exists());
    drop(holder);
}

#[tokio::test]
async fn a_folder_keeps_its_number_of_nodes() {
    let world = World::new();
    fs::create_dir_all(world.path("node-1")).unwrap();
    fs::write(world.path(PASSWORD_FILE), "x").unwrap();
    let nodes = |asked| Folder::prepare(&world.args.dir).unwrap().nodes(asked);
    assert_eq!((nodes(None).unwrap(), nodes(Some(1)).unwrap()), (1, 1));
    let error = nodes(Some(3)).unwrap_err();
    assert!(error.to_string().contains("a single node"), "{error}");
    assert_eq!(crate::cli::exit::exit_of(&error), Exit::Usage);
    fs::create_dir_all(world.path("node-3")).unwrap();
    assert_eq!((nodes(None).unwrap(), nodes(Some(3)).unwrap()), (3, 3));
    for (asked, said) in [(2, "holds 3 nodes"), (4, "was made for 3 nodes")] {
        let error = nodes(Some(asked)).unwrap_err();
        assert_eq!(crate::cli::exit::exit_of(&error), Exit::Usage);
        let error = error.to_string();
        assert!(
            error.contains(&format!("--nodes {asked}")) && error.contains(said),
            "{error}"
        );
    }
    assert!(!world.path("node-4").exists() && !world.path("node-4.log").exists());
}

#[tokio::test]
async fn a_node_whose_data_is_gone_is_one_of_the_folders_all_the_same() {
    let mut world = World::new();
    world.args.nodes = Some(3);
    let script = format!("mkdir -p $3\n{OBEYS}{}{SERVES}", world.ready());
    world.run(&script, 1).await.unwrap();
    let look = || {
        let folder = Folder::prepare(&world.args.dir).unwrap();
        (folder.nodes(None).unwrap(), folder.was_whole(), folder.lost())
    };
    assert_eq!(look(), (3, true, Vec::new()));
    fs::remove_dir(world.path("node-3")).unwrap();
    assert_eq!(look(), (3, true, vec![3]));
    // Before they all served for the first time there is no profile, and nothing to lose.
    fs::remove_file(world.path(PROFILE_FILE)).unwrap();
    assert_eq!(look(), (3, false, Vec::new()));
    // Without any data it begins anew.
    fs::write(world.path(PROFILE_FILE), "url = ['http://a', 'http://b']").unwrap();
    for number in [1, 2] {
        fs::remove_dir(world.path(&format!("node-{number}"))).unwrap();
    }
    assert_eq!(look(), (NODES_DEFAULT, false, Vec::new()));
    assert!(!world.path(PROFILE_FILE).exists());
}

#[tokio::test]
async fn a_new_cluster_is_told_of_when_all_of_its_nodes_are_members() {
    let mut world = World::new();
    world.args.nodes = Some(3);
    world.probes.refuse(3, "not let in");
    let script = format!("{OBEYS}{}{SERVES}", world.ready());
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
    let mut world = World::new();
    world.args.nodes = Some(3);
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

#[test]
fn a_new_folder_has_the_usual_number_of_nodes() {
    let world = World::new();
    assert_eq!(
        Folder::prepare(&world.args.dir).unwrap().nodes(None).unwrap(),
        NODES_DEFAULT
    );
}

#[tokio::test]
async fn data_without_its_password_is_not_given_a_new_one() {
    let world = World::new();
    fs::create_dir_all(world.path("node-1")).unwrap();
    let error = world.run("exit 0", 0).await.unwrap_err().to_string();
    assert!(error.contains(PASSWORD_FILE) && error.contains("begin anew"), "{error}");
}

#[tokio::test]
async fn a_folder_is_run_by_one_process_at_a_time() {
    let world = World::new();
    let folder = Folder::prepare(&world.args.dir).unwrap();
    let error = world.run("exit 0", 0).await.unwrap_err().to_string();
    assert!(error.contains("another `kv run-cluster`"), "{error}");
    drop(folder);
    Folder::prepare(&world.args.dir).unwrap();
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
    let starts = plan(&mut folder, "127.0.0.1:0".parse().unwrap(), 1).unwrap();
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
