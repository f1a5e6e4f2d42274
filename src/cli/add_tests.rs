//! Values from the command line, files and pipes, against a node over real sockets.

use std::time::Duration;

use serde_json::json;

use crate::cli::exit::{Exit, exit_of};
use crate::client::ClientError;
use crate::client::fake_node::{FakeNode, Fault};

use super::*;

const LONG_BYTES: usize = 9 * 1024 * 1024;

fn add<'a>(client: &'a Client, finish: bool) -> Add<'a> {
    Add {
        client,
        key: "key",
        finish,
        request_id: "id",
    }
}

fn long_text() -> String {
    "\u{20ac}1".repeat(LONG_BYTES / 4)
}

#[tokio::test]
async fn a_long_file_goes_in_parts_and_becomes_one_value() {
    let node = FakeNode::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    fs::write(&path, long_text()).unwrap();
    add(&node.client(), true).file(&path).await.unwrap();
    assert_eq!(node.list("key"), [long_text()]);
    let ids = node.sent("request_id");
    assert_eq!(ids.len(), LONG_BYTES / PART_BYTES_MAX);
    assert_eq!(ids[..2], [json!("id"), json!(part_request_id("id", 1))]);
}

#[tokio::test]
async fn a_long_part_stays_unfinished() {
    let node = FakeNode::start();
    add(&node.client(), false)
        .stream(Cursor::new(long_text()))
        .await
        .unwrap();
    assert!(node.list("key").is_empty());
    assert_eq!(node.with(|state| state.parts["key"].clone()), long_text());
}

/// A terminal: what comes after an end is another input.
struct Terminal(Vec<io::Result<&'static [u8]>>);

impl Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut next = self.0.pop().unwrap_or(Err(io::ErrorKind::Other.into()))?;
        next.read(buffer)
    }
}

#[tokio::test]
async fn what_ended_once_is_not_read_again() {
    let node = FakeNode::start();
    let typed = Terminal(vec![Ok(b""), Ok(b"typed")]);
    add(&node.client(), true).stream(typed).await.unwrap();
    assert_eq!(node.list("key"), ["typed"]);
}

#[tokio::test]
async fn an_empty_text_is_a_value() {
    let node = FakeNode::start();
    add(&node.client(), true).stream(&b""[..]).await.unwrap();
    assert_eq!(node.list("key"), [""]);
}

#[tokio::test]
async fn a_file_that_is_not_text_is_refused_before_anything_is_sent() {
    let node = FakeNode::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    let mut bytes = long_text().into_bytes();
    bytes.push(0xff);
    fs::write(&path, &bytes).unwrap();
    let error = add(&node.client(), true).file(&path).await.unwrap_err();
    assert_eq!(exit_of(&error), Exit::Refused);
    let text = format!("{error:#}");
    assert!(
        text.contains(&format!("byte {}", bytes.len() - 1)) && text.contains("nothing was sent"),
        "{text}"
    );
    assert!(node.sent("path").is_empty());
}

#[tokio::test]
async fn a_pipe_that_is_not_text_near_its_beginning_is_refused_before_anything_is_sent() {
    let node = FakeNode::start();
    let mut bytes = long_text().into_bytes();
    bytes[7_000_000] = 0xff;
    for pipe in [bytes, b"ab\xe2\x82".to_vec()] {
        let error = add(&node.client(), true).stream(Cursor::new(pipe)).await.unwrap_err();
        assert_eq!(exit_of(&error), Exit::Refused);
        assert!(format!("{error:#}").contains("nothing was sent"), "{error:#}");
    }
    assert!(node.sent("path").is_empty());
}

#[tokio::test]
async fn a_pipe_that_turns_out_not_to_be_text_later_says_what_was_stored_and_how_to_go_on() {
    let node = FakeNode::start();
    let mut bytes = long_text().into_bytes();
    let at = bytes.len() - 2;
    bytes[at] = 0xff;
    let client = node.client();
    let error = add(&client, true).stream(Cursor::new(bytes)).await.unwrap_err();
    assert_eq!(exit_of(&error), Exit::Refused);
    let text = format!("{error:#}");
    assert!(text.contains("--request-id id") && text.contains("clear_key"), "{text}");
    assert!(node.list("key").is_empty());
    // With the same request id, the corrected input is one value.
    add(&client, true).stream(Cursor::new(long_text())).await.unwrap();
    assert_eq!(node.list("key"), [long_text()]);
}

#[tokio::test]
async fn an_add_that_failed_in_the_middle_goes_on_under_its_request_id() {
    let node = FakeNode::start();
    let client = node.client();
    let text = long_text();
    for parts_before in [0, 2, LONG_BYTES / PART_BYTES_MAX - 1] {
        client.clear_key("key").await.unwrap();
        let request_id = format!("id{parts_before}");
        let add = Add {
            client: &client,
            key: "key",
            finish: true,
            request_id: &request_id,
        };
        for _ in 0..parts_before {
            node.fail_next(Fault::None);
        }
        node.fail_next(Fault::BreakAfter);
        node.fail_next(Fault::Answer(507, json!({"detail": "the disk is full"})));
        let error = add.stream(Cursor::new(text.clone())).await.unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(ClientError::DiskFull { .. })),
            "{error:#}"
        );
        // The try before that one did store it.
        assert!(
            format!("{error:#}").contains(&format!("--request-id {request_id}")),
            "{error:#}"
        );
        add.stream(Cursor::new(text.clone())).await.unwrap();
        assert_eq!(node.list("key"), [text.as_str()]);
    }
}

#[tokio::test]
async fn an_add_without_an_answer_can_be_repeated_under_its_request_id() {
    let node = FakeNode::start();
    node.fail_next(Fault::BreakAfter);
    let client = node.builder().retries(0).build().unwrap();
    let error = add(&client, true).text(b"x").await.unwrap_err();
    assert_eq!(exit_of(&error), Exit::Unreachable);
    assert!(format!("{error:#}").contains("--request-id id"), "{error:#}");
    add(&client, true).text(b"x").await.unwrap();
    assert_eq!(node.list("key"), ["x"]);
}

#[tokio::test]
async fn an_add_whose_outcome_the_node_does_not_know_can_be_repeated_under_its_request_id() {
    let quorum = "2 replicas are needed and 1 answered; this request may have taken effect: a retry with the same request_id is safe";
    let disk = "the disk failed; whether this request took effect is unknown";
    for (status, detail, exit) in [(503, quorum, Exit::Unavailable), (500, disk, Exit::Failure)] {
        let node = FakeNode::start();
        node.fail_next(Fault::Answer(status, json!({ "detail": detail })));
        let client = node.builder().retries(0).build().unwrap();
        let error = add(&client, true).text(b"x").await.unwrap_err();
        assert_eq!(exit_of(&error), exit);
        assert!(format!("{error:#}").contains("--request-id id"), "{error:#}");
        // To run the same command again would be another add.
        assert_eq!(is_explained(&error), status == 503);
    }
    let node = FakeNode::start();
    node.fail_next(Fault::Overloaded);
    let client = node.builder().retries(0).build().unwrap();
    let error = add(&client, true).text(b"x").await.unwrap_err();
    assert!(!format!("{error:#}").contains("--request-id"), "{error:#}");
    assert!(!is_explained(&error));
}

#[tokio::test]
async fn an_add_that_one_node_refused_while_another_one_did_it_can_be_repeated_under_its_request_id() {
    let (slow, refusing) = (FakeNode::start(), FakeNode::start());
    slow.fail_next(Fault::Held(std::sync::Arc::default()));
    refusing.fail_always(Fault::Answer(401, json!({"detail": "Invalid user_id or password"})));
    let builder = slow.builder().url(&refusing.url).deadline(Duration::from_secs(3));
    let error = add(&builder.build().unwrap(), true).text(b"x").await.unwrap_err();
    assert!(format!("{error:#}").contains("--request-id id"), "{error:#}");
    add(&slow.client(), true).text(b"x").await.unwrap();
    assert_eq!(slow.list("key"), ["x"]);
}

#[test]
fn a_value_beyond_the_limit_is_refused() {
    assert!(check_length(VALUE_BYTES_MAX).is_ok());
    let error = check_length(VALUE_BYTES_MAX + 1).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Refused);
}

#[test]
fn a_dash_behind_two_is_a_value() {
    let behind = |line: &str| ends_behind_dashes(line.split(' ').map(OsString::from));
    assert!(behind("kv add_value k -- -") && behind("kv add_value -- k -") && behind("kv add_value k --json -- -"));
    assert!(!behind("kv add_value k -") && !behind("kv add_value k - --json") && !behind("kv add_value k - --"));
}
