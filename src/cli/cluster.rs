//! `kv cluster`: the nodes of a cluster, and the key that they share.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanBytes;

use crate::api::{ClusterStatus, Member, MemberState, STATUS_OK};
use crate::client::entropy;

use super::add::print_status;
use super::connection::{CommonArgs, Connection, ConnectionArgs};
use super::exit::{CliError, usage};
use super::output::output;
use super::secret;

const NODE_ID_DIGITS: usize = 16;
/// Of randomness, in the key of a cluster.
const KEY_BYTES: usize = 32;
/// How often, and between two looks how long, `kv cluster replace` waits until a node that was just started is seen.
const NEW_LOOKS: usize = 10;
const NEW_LOOK_PAUSE: Duration = Duration::from_millis(500);

const STATUS_HELP: &str = "\
STATE is what the list of members says, and ALIVE whether the node answers; a removed one keeps its row. BEHIND: what the node lacked when it last \
compared with another one, and lacks still (- nothing). UNSYNCED: slots of its own on which its word does not count yet. STREAM: what comes in \
from other replicas. CLOCK: how far its clock is ahead of the clock of the node that is asked. QUARANTINED: damaged files that it set aside. NO \
QUORUM: requests that it refused for want of replicas. ? is what cannot be known of a node that does not answer.";

#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Print each node with its state and how far it is behind
    #[command(after_help = STATUS_HELP)]
    Status(CommonArgs),
    /// Print the nodes and their addresses
    Members(MembersArgs),
    /// Take a node out of the cluster, for good; only while the cluster holds no data of users
    Remove(RemoveArgs),
    /// Give the place of a lost node to an empty one, which was started with --join; it gets the data from the others
    Replace(ReplaceArgs),
    /// Make the key that all nodes of a cluster share
    Keygen(KeygenArgs),
}

#[derive(Debug, clap::Args)]
pub struct MembersArgs {
    /// Print the members of the API's answer to cluster/status
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// The node: its id, the beginning of it, or one of its addresses
    pub node: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub struct ReplaceArgs {
    /// The node that is lost (refused while it is there): its id, the beginning of it, or one of its addresses
    pub old: String,
    /// The empty node that takes its place, likewise
    pub new: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub struct KeygenArgs {
    /// File to write, which must not exist [default: standard output]
    pub file: Option<PathBuf>,
}

impl ClusterCommand {
    /// None when it asks no node.
    pub fn connection(&mut self) -> Option<&mut ConnectionArgs> {
        match self {
            Self::Status(args) => Some(&mut args.connection),
            Self::Members(args) => Some(&mut args.connection),
            Self::Remove(args) => Some(&mut args.common.connection),
            Self::Replace(args) => Some(&mut args.common.connection),
            Self::Keygen(_) => None,
        }
    }
}

pub async fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Status(args) => {
            let status = status(&Connection::new(&args.connection)?).await?;
            let text = if args.json {
                line_of(&status)?
            } else {
                status_text(&status)
            };
            print(&text)
        }
        ClusterCommand::Members(args) => {
            let members = status(&Connection::new(&args.connection)?).await?.members;
            let text = if args.json {
                line_of(&serde_json::json!({ "members": members }))?
            } else {
                members_text(&members)
            };
            print(&text)
        }
        ClusterCommand::Remove(args) => {
            let connection = Connection::new(&args.common.connection)?;
            let node = find(&status(&connection).await?, &args.node)?;
            let removed = connection.client.cluster_remove(&node).await;
            removed.map_err(|error| connection.explain(error.into()))?;
            print_status(STATUS_OK, args.common.json)
        }
        ClusterCommand::Replace(args) => {
            let connection = Connection::new(&args.common.connection)?;
            let members = status(&connection).await?;
            let old = find(&members, &args.old)?;
            let new = await_new(&connection, members, &args.new, &old).await?;
            let replaced = connection.client.cluster_replace(&old, &new).await;
            replaced.map_err(|error| connection.explain(error.into()))?;
            print_status(STATUS_OK, args.common.json)
        }
        ClusterCommand::Keygen(args) => match args.file {
            Some(path) => write_new_key(&path),
            None => print(&new_key()),
        },
    }
}

/// The key's file: one line.
pub fn new_key() -> String {
    format!("{}\n", entropy::hex::<KEY_BYTES>())
}

fn write_new_key(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Err(usage(format!(
            "{} exists; nodes that have this key would not know those that have a new one",
            path.display()
        )));
    }
    secret::write_private(path, &new_key()).map_err(|error| usage(format!("{error:#}")))
}

async fn status(connection: &Connection) -> anyhow::Result<ClusterStatus> {
    let status = connection.client.cluster_status().await;
    status.map_err(|error| connection.explain(error.into()))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = output();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn line_of(answer: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(answer)? + "\n")
}

fn refused(text: String) -> anyhow::Error {
    CliError::RefusedInput(text).into()
}

/// The id of the new node, waiting for it a while: an address that was used before says nothing until whoever has it now is seen.
async fn await_new(connection: &Connection, first: ClusterStatus, text: &str, old: &str) -> anyhow::Result<String> {
    let mut members = first;
    for _ in 0..NEW_LOOKS {
        if let Some(new) = find_new(&members, text, old)? {
            return Ok(new);
        }
        tokio::time::sleep(NEW_LOOK_PAUSE).await;
        members = status(connection).await?;
    }
    find_new(&members, text, old)?.ok_or_else(|| {
        refused(format!(
            "no new node is seen at {text} yet, only one that was there before: start it with --join and an empty data folder, and try again in a second"
        ))
    })
}

/// Likewise; `None` while only those are known at this address that cannot be meant: who is replaced, and who was removed.
fn find_new(status: &ClusterStatus, text: &str, old: &str) -> anyhow::Result<Option<String>> {
    let is_former = |member: &Member| member.node == old || member.state == MemberState::Removed;
    let mut at_address = status
        .members
        .iter()
        .filter(|member| has_address(member, text))
        .peekable();
    if at_address.peek().is_some() && at_address.all(is_former) {
        return Ok(None);
    }
    let mut others = status.clone();
    // An id says who is meant, whatever became of it.
    others
        .members
        .retain(|member| !has_address(member, text) || !is_former(member));
    find(&others, text).map(Some)
}

fn has_address(member: &Member, text: &str) -> bool {
    [&member.peer, &member.http].into_iter().any(|address| address == text)
}

/// The id of the one node that `text` means.
fn find(status: &ClusterStatus, text: &str) -> anyhow::Result<String> {
    let by_id = |member: &&Member| !text.is_empty() && member.node.starts_with(&text.to_lowercase());
    let by_address = |member: &&Member| has_address(member, text);
    let is_removed = |member: &&Member| member.state == MemberState::Removed;
    let members = || status.members.iter();
    let meant = |member: &&Member| by_id(member) || by_address(member) && !is_removed(member);
    let mut meant: Vec<&Member> = members().filter(meant).collect();
    if meant.is_empty() {
        // One that was removed may have had the address of the one that took its place; if nobody has it, it is meant: this was done before.
        meant = members().filter(by_address).collect();
    }
    let mut meant = meant.into_iter();
    match (meant.next(), meant.next()) {
        (Some(member), None) => Ok(member.node.clone()),
        (Some(_), Some(_)) => Err(refused(format!("{text:?} may be several nodes; give more of the id"))),
        // The node that answers may not have heard of it yet.
        (None, _) if text.len() == NODE_ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(text.to_lowercase())
        }
        (None, _) => Err(refused(format!(
            "there is no node {text:?}; `kv cluster members` lists them"
        ))),
    }
}

fn status_text(status: &ClusterStatus) -> String {
    let heads = [
        "NODE",
        "STATE",
        "ALIVE",
        "HTTP",
        "ZONE",
        "WEIGHT",
        "SLOTS",
        "BEHIND",
        "UNSYNCED",
        "STREAM",
        "CLOCK",
        "QUARANTINED",
        "NO QUORUM",
    ];
    let row = |member: &Member| {
        [
            member.node.clone(),
            member.state.name().to_owned(),
            yes_or_no(member.alive),
            member.http.clone(),
            member.zone.clone(),
            member.weight.to_string(),
            member.slots.to_string(),
            behind(member),
            known(member.unsynced_slots, |slots| slots.to_string()),
            known(member.stream_ops_per_s, |rate| format!("{rate:.0} ops/s")),
            known(member.clock_skew_ms, |skew| format!("{skew:+} ms")),
            known(member.quarantined_segments, |files| files.to_string()),
            known(member.quorum_failures, |failures| failures.to_string()),
        ]
    };
    let rows: Vec<_> = status.members.iter().map(row).collect();
    format!(
        "cluster {}, replication {}, as node {} sees it\n{}",
        status.cluster,
        status.replication,
        status.node,
        table(&heads, &rows)
    )
}

fn members_text(members: &[Member]) -> String {
    let row = |member: &Member| {
        [
            member.node.clone(),
            member.state.name().to_owned(),
            yes_or_no(member.alive),
            member.http.clone(),
            member.peer.clone(),
            member.zone.clone(),
        ]
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    table(&["NODE", "STATE", "ALIVE", "HTTP", "PEER", "ZONE"], &rows)
}

fn yes_or_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

fn known<T>(figure: Option<T>, text: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| "?".to_owned(), text)
}

pub fn behind(member: &Member) -> String {
    let parts = match member.lag_ops {
        None => return "?".to_owned(),
        Some(0) => return "-".to_owned(),
        Some(ops) => [
            Some(format!("{ops} ops")),
            member.lag_bytes.map(|bytes| HumanBytes(bytes).to_string()),
            member.lag_seconds.map(|seconds| format!("{seconds:.1} s")),
        ],
    };
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Columns as wide as they need to be, two spaces apart.
pub fn table<const N: usize>(heads: &[&str; N], rows: &[[String; N]]) -> String {
    let mut text = String::new();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    });
    let heads = heads.map(str::to_owned);
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::cli::exit::{Exit, exit_of};
    use crate::types::NodeId;

    fn member(node: u64, port: u16) -> Member {
        Member {
            node: NodeId(node).to_string(),
            peer: format!("127.0.0.1:{}", port + 100),
            http: format!("127.0.0.1:{port}"),
            zone: "default".to_owned(),
            weight: 100,
            state: MemberState::Up,
            alive: true,
            slots: 1024,
            lag_ops: Some(0),
            lag_bytes: Some(0),
            lag_seconds: Some(0.0),
            unsynced_slots: Some(0),
            clock_skew_ms: Some(0),
            quarantined_segments: Some(0),
            quorum_failures: Some(3),
            stream_ops_per_s: Some(12.4),
            stream_bytes_per_s: Some(900.0),
        }
    }

    fn cluster() -> ClusterStatus {
        let late = Member {
            lag_ops: Some(7),
            lag_bytes: Some(2048),
            lag_seconds: Some(1.25),
            clock_skew_ms: Some(-3),
            ..member(0xab00_0000_0000_0001, 8001)
        };
        let silent = Member {
            state: MemberState::Joining,
            alive: false,
            lag_ops: None,
            unsynced_slots: None,
            clock_skew_ms: None,
            quarantined_segments: None,
            quorum_failures: None,
            stream_ops_per_s: None,
            ..member(0xac00_0000_0000_0001, 8002)
        };
        ClusterStatus {
            cluster: "kv".to_owned(),
            node: NodeId(1).to_string(),
            replication: 3,
            members: vec![member(1, 8000), late, silent],
        }
    }

    #[test]
    fn the_status_is_a_table() {
        assert_eq!(
            status_text(&cluster()),
            "\
cluster kv, replication 3, as node 0000000000000001 sees it
NODE              STATE    ALIVE  HTTP            ZONE     WEIGHT  SLOTS  BEHIND                  UNSYNCED  STREAM    CLOCK  QUARANTINED  NO QUORUM
0000000000000001  up       yes    127.0.0.1:8000  default  100     1024   -                       0         12 ops/s  +0 ms  0            3
ab00000000000001  up       yes    127.0.0.1:8001  default  100     1024   7 ops, 2.00 KiB, 1.2 s  0         12 ops/s  -3 ms  0            3
ac00000000000001  joining  no     127.0.0.1:8002  default  100     1024   ?                       ?         ?         ?      ?            ?
"
        );
        assert!(members_text(&cluster().members).contains("127.0.0.1:8101  default\n"));
    }

    #[test]
    fn a_node_is_meant_by_the_beginning_of_its_id_or_an_address() {
        let id = |text: &str| find(&cluster(), text);
        for text in ["ab", "AB00000000000001", "127.0.0.1:8001", "127.0.0.1:8101"] {
            assert_eq!(id(text).unwrap(), "ab00000000000001", "{text}");
        }
        assert_eq!(id("00ff00ff00ff00ff").unwrap(), "00ff00ff00ff00ff");
        for text in ["", "c", "127.0.0.1", "+000000000000001", "127.0.0.1:9"] {
            // As when the node that answers knows of none.
            assert_eq!(exit_of(&id(text).unwrap_err()), Exit::Refused, "{text:?}");
        }
        let mut two = cluster();
        two.members.push(member(0xac << 56, 8002));
        assert!(find(&two, "a").unwrap_err().to_string().contains("several"));
        let address = "127.0.0.1:8002";
        assert!(find(&two, address).unwrap_err().to_string().contains("several"));
        two.members[3].state = MemberState::Removed;
        two.members[3].peer = "127.0.0.1:9102".to_owned();
        let seat_lost = two.members[3].peer.clone();
        assert_eq!(
            find(&two, &seat_lost).unwrap(),
            two.members[3].node,
            "nobody else has it: it is meant"
        );
        assert_eq!(find(&two, address).unwrap(), "ac00000000000001");
        assert_eq!(find(&two, "ac00000000000000").unwrap(), "ac00000000000000");
    }

    #[test]
    fn who_was_removed_or_is_replaced_is_not_the_new_node_at_an_address_of_before() {
        let mut cluster = cluster();
        let address = "127.0.0.1:8003";
        for node in [0xd1, 0xd2] {
            cluster.members.push(Member {
                state: MemberState::Removed,
                ..member(node, 8003)
            });
        }
        let old = NodeId(0xd3).to_string();
        let new = |cluster: &ClusterStatus, text: &str| find_new(cluster, text, &old);
        assert_eq!(new(&cluster, address).unwrap(), None, "nobody is seen there yet");
        cluster.members.push(member(0xd3, 8003));
        assert_eq!(new(&cluster, address).unwrap(), None, "only the lost one");
        cluster.members.push(member(0xd4, 8003));
        assert_eq!(new(&cluster, address).unwrap(), Some(NodeId(0xd4).to_string()));
        // An id says who is meant, and the nodes say what they think of that.
        let removed = NodeId(0xd1).to_string();
        assert_eq!(new(&cluster, &removed).unwrap(), Some(removed));
        assert_eq!(exit_of(&new(&cluster, "127.0.0.1:9").unwrap_err()), Exit::Refused);
    }

    #[test]
    fn a_key_is_written_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_new_key(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 2 * KEY_BYTES);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(write_new_key(&path).unwrap_err().to_string().contains("exists"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
