//! Import and export against a node over real sockets.

mod again;

use crate::cli::connection::ConnectionArgs;
use crate::cli::exit::exit_of;
use crate::cli::export::{self, ExportArgs};
use crate::client::PART_BYTES_MAX;
use crate::client::fake_node::{FakeNode, Fault, PASSWORD, USER};

use super::*;

struct World {
    dir: tempfile::TempDir,
    node: FakeNode,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        crate::cli::secret::write_private(&dir.path().join("password"), PASSWORD).unwrap();
        let node = FakeNode::start();
        Self { dir, node }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn connection(&self) -> KeyConnectionArgs {
        let common = ConnectionArgs {
            url: vec![self.node.url.clone()],
            user: Some(USER.to_owned()),
            password_file: Some(self.path("password")),
            profile: None,
            timeout: 30,
            deadline: None,
        };
        KeyConnectionArgs {
            common,
            consistency: None,
        }
    }

    async fn import(&self, content: &str, again: bool) -> anyhow::Result<()> {
        fs::write(self.path("in.jsonl"), content).unwrap();
        let file = self.path("in.jsonl");
        let connection = self.connection();
        super::run(ImportArgs {
            file,
            again,
            connection,
        })
        .await
    }

    async fn export(&self, resume: bool) -> anyhow::Result<String> {
        let file = self.path("out.jsonl");
        let args = ExportArgs {
            file: file.clone(),
            resume,
            prefix: None,
            connection: self.connection(),
        };
        export::run(args).await?;
        Ok(fs::read_to_string(file)?)
    }

    fn progress(&self) -> Option<Progress> {
        progress_file::read(&self.path("in.jsonl.progress"))
    }
}

const FILE: &str = "{\"key\":\"a\",\"value\":[\"1\",\"2\"]}\n\
                    {\"key\":\"b\",\"value\":[\"\",\"x\\ny\"]}\n\
                    {\"key\":\"c\u{e9}\",\"value\":[\"\\ud83d\\ude00\"]}\n";

#[tokio::test]
async fn what_is_imported_is_what_is_exported() {
    let world = World::new();
    world.import(FILE, false).await.unwrap();
    assert_eq!(world.node.list("a"), ["1", "2"]);
    assert_eq!(world.node.list("b"), ["", "x\ny"]);
    let progress = world.progress().unwrap();
    assert_eq!((progress.lines, progress.done), (3, true));
    let exported = world.export(false).await.unwrap();
    assert_eq!(exported, FILE.replace("\\ud83d\\ude00", "\u{1f600}"));
}

#[test]
fn one_line_is_not_several() {
    let done = |values, lines| {
        let unfinished = None;
        let done = Done {
            lines,
            values,
            unfinished,
        };
        done.to_string()
    };
    assert_eq!(done(1, 1), "imported 1 value from 1 line");
    assert_eq!(done(0, 2), "imported 0 values from 2 lines");
}

#[tokio::test]
async fn equal_lines_of_one_file_and_of_two_files_are_values_of_their_own() {
    let world = World::new();
    let line = "{\"key\":\"a\",\"value\":[\"x\",\"x\"]}\n";
    world.import(&format!("{line}{line}"), false).await.unwrap();
    assert_eq!(world.node.list("a").len(), 4);
    world.import(line, false).await.unwrap();
    assert_eq!(world.node.list("a").len(), 6);
}

#[tokio::test]
async fn a_line_without_a_name_for_its_key_is_named_and_the_lines_before_it_are_stored() {
    let world = World::new();
    let nameless = FILE.replace("\"key\":\"b\"", "\"key\":\"\"");
    let error = world.import(&nameless, false).await.unwrap_err();
    assert_eq!(crate::cli::exit::exit_of(&error) as u8, 5);
    let text = format!("{error:#}");
    assert!(text.contains("line 2 ") && text.contains("is empty"), "{text}");
    assert_eq!(world.node.list("a"), ["1", "2"]);
}

#[tokio::test]
async fn what_a_node_could_not_take_is_sent_again_and_counts_once() {
    let world = World::new();
    world.node.fail_next(Fault::RefuseInBatch(4));
    world.node.fail_next(Fault::BreakAfter);
    world.import(FILE, false).await.unwrap();
    assert_eq!(world.node.list("a"), ["1", "2"]);
    assert_eq!(world.node.list("c\u{e9}"), ["\u{1f600}"]);
    assert_eq!(world.node.sent("path").len(), 3);
}

#[tokio::test]
async fn a_value_longer_than_one_request_goes_in_parts_and_comes_back_whole() {
    let world = World::new();
    let long = "\u{e9}\"\n".repeat(PART_BYTES_MAX);
    let before = "{\"key\":\"k\",\"value\":[\"first\"]}\n";
    let line = serde_json::json!({"key": "k", "value": [long, "last"]}).to_string();
    world.import(&format!("{before}{line}\n"), false).await.unwrap();
    assert_eq!(world.node.list("k"), ["first", long.as_str(), "last"]);
    let exported = world.export(false).await.unwrap();
    let exported: serde_json::Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(exported["value"][1].as_str(), Some(long.as_str()));
}

#[tokio::test]
async fn an_import_that_ends_in_the_middle_of_a_value_says_what_waits_where() {
    let world = World::new();
    // Longer than what is looked at before anything of it is sent.
    let long = "x".repeat(6 * PART_BYTES_MAX);
    let wrong = format!("{{\"key\":\"k\",\"value\":[\"{long}\\q\"]}}\n");
    let error = world.import(&wrong, false).await.unwrap_err();
    let advice = error.downcast_ref::<Advice>().unwrap().to_string();
    assert!(
        advice.contains("unfinished at the key \"k\"") && advice.contains("kv clear_key"),
        "{advice}"
    );
    assert_eq!(exit_of(&error) as u8, 5);
    assert!(world.node.list("k").is_empty());
    // Corrected where it was wrong, it goes on with them.
    let right = wrong.replace("\\q", "y");
    world.import(&right, false).await.unwrap();
    assert_eq!(world.node.list("k"), [format!("{long}y")]);
}

#[tokio::test]
async fn an_export_that_broke_off_goes_on_after_its_last_whole_line() {
    let world = World::new();
    world.import(FILE, false).await.unwrap();
    let whole = world.export(false).await.unwrap();
    for cut in [0, 5, 31, 40, whole.len()] {
        let head: Vec<u8> = whole.bytes().take(cut).collect();
        fs::write(world.path("out.jsonl"), head).unwrap();
        assert_eq!(world.export(true).await.unwrap(), whole, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_key_whose_answer_breaks_off_at_once_is_asked_for_again() {
    let world = World::new();
    world
        .import("{\"key\":\"a\",\"value\":[\"1\"]}\n", false)
        .await
        .unwrap();
    world.node.with(|state| state.faults.clear());
    let first = world.node.sent("path").len();
    // The listing comes first.
    let keys = serde_json::json!({"keys": ["a"]});
    world.node.fail_next(Fault::Answer(200, keys));
    world.node.fail_next(Fault::CutAnswer(3));
    assert_eq!(
        world.export(false).await.unwrap(),
        "{\"key\":\"a\",\"value\":[\"1\"]}\n"
    );
    assert_eq!(world.node.sent("path").len(), first + 3);
}

#[tokio::test]
async fn an_export_that_got_nothing_leaves_no_file_and_one_that_got_something_does() {
    let world = World::new();
    world.import(FILE, false).await.unwrap();
    let detail = serde_json::json!({"detail": "no"});
    for resume in [false, true] {
        world.node.fail_next(Fault::Answer(401, detail.clone()));
        let error = world.export(resume).await.unwrap_err();
        assert!(!format!("{error:#}").contains("--resume"), "{error:#}");
        assert!(!world.path("out.jsonl").exists());
    }
    let keys = serde_json::json!({"keys": ["a"], "after": "a"});
    world.node.fail_next(Fault::Answer(200, keys));
    world.node.fail_next(Fault::None);
    world.node.fail_next(Fault::Answer(401, detail));
    let error = world.export(false).await.unwrap_err();
    assert!(format!("{error:#}").contains("--resume"), "{error:#}");
    world.export(true).await.unwrap();
    assert_eq!(fs::read_to_string(world.path("out.jsonl")).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn an_import_with_a_refused_password_exits_with_its_code_and_advice() {
    let world = World::new();
    fs::write(world.path("password"), "wrong").unwrap();
    let error = world.import(FILE, false).await.unwrap_err();
    assert_eq!(crate::cli::exit::exit_of(&error) as u8, 4);
    assert!(format!("{error:#}").contains("--user"), "{error:#}");
}
