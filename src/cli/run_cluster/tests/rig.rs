//! A folder for a cluster, and a shell script that plays its nodes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

/// From here on, SIGTERM stops the node in good order. Before it says that it is ready: the signal may come right after.
pub(super) const OBEYS: &str = "trap 'echo stopped >&2; exit 0' TERM\n";
pub(super) const SERVES: &str = "echo serving >&2; while :; do sleep 0.05; done\n";

/// What the nodes answer when they are asked whether they are ready.
pub struct FakeProbes {
    pub(super) addresses: Vec<SocketAddr>,
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
                    let answer = match refused.lock().get(&number) {
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
        self.refused.lock().insert(number, why.to_owned());
    }

    pub fn accept_all(&self) {
        self.refused.lock().clear();
    }
}

pub(super) struct World {
    pub(super) root: tempfile::TempDir,
    pub(super) args: RunClusterArgs,
    pub(super) probes: FakeProbes,
}

impl World {
    pub(super) fn new() -> Self {
        Self::of(1)
    }

    /// So many nodes are asked for.
    pub(super) fn of(nodes: u16) -> Self {
        let root = tempfile::tempdir().unwrap();
        let args = RunClusterArgs {
            nodes: Some(nodes),
            dir: root.path().join("cluster"),
            listen: "127.0.0.1:0".parse().unwrap(),
        };
        let probes = FakeProbes::start(3);
        Self { root, args, probes }
    }

    /// What a node of number N says when it serves: its address is that of the Nth probe.
    pub(super) fn ready(&self) -> String {
        let [first, second, third] = [0, 1, 2].map(|index| self.probes.addresses[index]);
        format!(
            "case $3 in *-3) at={third};; *-2) at={second};; *) at={first};; esac\n\
             echo \"kv-storage ready: listening on http://$at, data in d\"\n"
        )
    }

    /// The script of nodes that serve until they are told to stop.
    pub(super) fn serving(&self) -> String {
        format!("{OBEYS}{}{SERVES}", self.ready())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.args.dir.join(name)
    }

    /// Runs `script` as the nodes; `signals` signals come once the profile is there.
    pub(super) async fn run(&self, script: &str, signals: usize) -> anyhow::Result<()> {
        self.run_until(script, signals, &self.path(PROFILE_FILE)).await
    }

    /// The same, but that the signals come once `sign` is there.
    pub(super) async fn run_until(&self, script: &str, signals: usize, sign: &Path) -> anyhow::Result<()> {
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
