//! The cluster's folder and the life of its node, played by a shell script.

use std::os::unix::fs::MetadataExt;

use super::*;

const READY: &str = "echo 'kv-storage ready: listening on http://127.0.0.1:4711, data in d'\n";
/// From here on, SIGTERM stops the node in good order. Before it says that it is ready: the signal may come right after.
const OBEYS: &str = "trap 'echo stopped >&2; exit 0' TERM\n";
const SERVES: &str = "echo serving >&2; while :; do sleep 0.05; done\n";

struct World {
    root: tempfile::TempDir,
    args: RunClusterArgs,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let args = RunClusterArgs {
            nodes: 1,
            dir: root.path().join("cluster"),
            listen: "127.0.0.1:0".parse().unwrap(),
        };
        Self { root, args }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.args.dir.join(name)
    }

    /// Runs `script` as the node; `signals` signals come once the profile is there.
    async fn run(&self, script: &str, signals: usize) -> anyhow::Result<()> {
        let path = self.root.path().join("node.sh");
        fs::write(&path, script).unwrap();
        let program = Program {
            path: "/bin/sh".into(),
            first_args: vec![path.display().to_string()],
        };
        let profile = self.path(PROFILE_FILE);
        let mut left = signals;
        let mut next_signal = async || {
            if left == 0 {
                return std::future::pending().await;
            }
            while !profile.exists() {
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
    world
        .run(&format!("echo \"$@\" >&2\n{OBEYS}{READY}{SERVES}"), 1)
        .await
        .unwrap();
    let password = fs::read_to_string(world.path(PASSWORD_FILE)).unwrap();
    assert_eq!(password.trim().len(), 2 * PASSWORD_BYTES);
    assert_eq!(fs::metadata(world.path(PASSWORD_FILE)).unwrap().mode() & 0o777, 0o600);
    let profile: Profile = toml::from_str(&fs::read_to_string(world.path(PROFILE_FILE)).unwrap()).unwrap();
    assert_eq!(profile.url, Some(Urls::One("http://127.0.0.1:4711".to_owned())));
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
    let script = format!("{OBEYS}{READY}{SERVES}");
    world.run(&script, 1).await.unwrap();
    let password = fs::read_to_string(world.path(PASSWORD_FILE)).unwrap();
    world.run(&script, 1).await.unwrap();
    assert_eq!(fs::read_to_string(world.path(PASSWORD_FILE)).unwrap(), password);
    assert!(world.path("node-1.log.old").exists());
}

#[tokio::test]
async fn a_node_that_dies_is_reported_with_the_end_of_its_log() {
    let world = World::new();
    let long = "i=0; while [ $i -lt 50 ]; do echo line $i >&2; i=$((i+1)); done\n";
    for script in [format!("{long}exit 3\n"), format!("{READY}{long}exit 3\n")] {
        let error = world.run(&script, 0).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(
            error.contains("line 49") && error.contains("line 30") && !error.contains("line 29"),
            "{error}"
        );
        assert!(error.contains("node-1.log"), "{error}");
    }
}

#[tokio::test]
async fn a_node_that_does_not_stop_is_killed_on_the_second_signal() {
    let world = World::new();
    let script = format!("trap '' TERM\n{READY}while :; do sleep 0.05; done\n");
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
async fn more_than_one_node_is_refused() {
    let mut world = World::new();
    world.args.nodes = 3;
    let error = world.run("exit 0", 0).await.unwrap_err();
    assert!(error.to_string().contains("--nodes 3"), "{error}");
    assert_eq!(crate::cli::exit::exit_of(&error), Exit::Usage);
}

#[tokio::test]
async fn data_without_its_password_is_not_given_a_new_one() {
    let world = World::new();
    fs::create_dir_all(world.path(NODE)).unwrap();
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
    assert!(!what_next(Path::new("kv-cluster")).contains("KV_PROFILE"));
    assert!(what_next(Path::new("/tmp/x")).contains("KV_PROFILE=/tmp/x/profile.toml"));
}
