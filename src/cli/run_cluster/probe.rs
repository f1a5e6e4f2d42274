//! What the nodes say of themselves without a user: readiness and metrics, each over a connection of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::api::path;

/// A node that says nothing for so long does not answer.
pub const SILENCE_MAX: Duration = Duration::from_millis(500);
/// Far more than the metrics of a node.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Between two questions whether a node is ready.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The body of an answer; Err with that of any but a 200.
pub async fn get(address: &str, path: &str) -> io::Result<Result<String, String>> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(SILENCE_MAX, asked).await??;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    let body = body.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(if answer.starts_with("HTTP/1.1 200") {
        Ok(body)
    } else {
        Err(body)
    })
}

/// How long the start of a cluster waits for all of its nodes.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After so much, and then again after as much, those that are missed are named.
    pub silent: Duration,
    /// After so much, the others go on without them, if they are a quorum of all. None: all are needed.
    pub all: Option<Duration>,
}

/// Returns when all nodes are members that serve, or `patience` ends: the places in `urls` of those that are not. What it waits for, and
/// what it goes on without, goes to `say`.
pub async fn until_ready(urls: &[String], patience: Patience, say: impl Fn(&str)) -> BTreeSet<usize> {
    let began = Instant::now();
    let mut said = BTreeMap::new();
    let mut say_from = began + patience.silent;
    loop {
        let mut missed = BTreeMap::new();
        for (place, url) in urls.iter().enumerate() {
            if let Some(why) = why_not_ready(url).await {
                missed.insert(place, why);
            }
        }
        if missed.is_empty() {
            return BTreeSet::new();
        }
        // Of a cluster that is being made, the reasons change many times a second.
        if Instant::now() >= say_from {
            say_from += patience.silent;
            for (place, why) in missed.iter().filter(|(place, why)| said.get(*place) != Some(*why)) {
                say(&format!("waiting for node {}, which is not ready: {why}", place + 1));
            }
            said.clone_from(&missed);
        }
        // A node that is alone may serve most of its keys.
        let enough = urls.len() - missed.len() > urls.len() / 2 || urls.len() == 1;
        if enough && patience.all.is_some_and(|all| began.elapsed() >= all) {
            for (place, why) in &missed {
                say(&format!(
                    "going on without node {}, which is not ready: {why}",
                    place + 1
                ));
            }
            return missed.into_keys().collect();
        }
        sleep(ASK_EVERY).await;
    }
}

/// None when it is a member that serves.
async fn why_not_ready(url: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        detail: String,
    }
    match get(url.trim_start_matches("http://"), path::READYZ).await {
        Ok(Ok(_)) => None,
        Ok(Err(body)) => Some(serde_json::from_str(&body).map_or(body, |refusal: Refusal| refusal.detail)),
        Err(error) => Some(format!("it does not answer ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::tests::FakeProbes;
    use super::*;

    const SHORT: Patience = Patience {
        silent: Duration::ZERO,
        all: Some(Duration::from_millis(300)),
    };

    /// What was said, and which are missing in the end.
    async fn said(probes: &FakeProbes, patience: Patience) -> (Vec<String>, BTreeSet<usize>) {
        let said = RefCell::new(Vec::new());
        let missed = until_ready(&probes.urls(), patience, |text| said.borrow_mut().push(text.to_owned())).await;
        (said.into_inner(), missed)
    }

    #[tokio::test]
    async fn nothing_is_said_when_all_are_ready() {
        assert_eq!(said(&FakeProbes::start(3), SHORT).await, (Vec::new(), BTreeSet::new()));
    }

    #[tokio::test]
    async fn the_others_go_on_without_one_that_never_is_ready_and_say_why_once() {
        let probes = FakeProbes::start(3);
        probes.refuse(2, "not let in");
        let (said, missed) = said(&probes, SHORT).await;
        assert_eq!(
            said,
            [
                "waiting for node 2, which is not ready: not let in",
                "going on without node 2, which is not ready: not let in",
            ]
        );
        assert_eq!(missed, BTreeSet::from([1]));
    }

    #[tokio::test]
    async fn too_few_and_those_of_a_new_cluster_wait_until_all_are_ready() {
        let needs_all = Patience { all: None, ..SHORT };
        for (refused, patience) in [(&[1, 3][..], SHORT), (&[3][..], needs_all)] {
            let probes = FakeProbes::start(3);
            for number in refused {
                probes.refuse(*number, "not let in");
            }
            let wait = said(&probes, patience);
            let mut wait = std::pin::pin!(wait);
            assert!(timeout(Duration::from_millis(600), &mut wait).await.is_err());
            probes.accept_all();
            let (said, missed) = wait.await;
            // Of too few, one is enough for most, and the others may be asked right before they accept.
            assert!(missed.is_empty() || patience.all.is_some() && missed.len() == 1);
            let waits = |text: &String| text.starts_with("waiting for");
            assert!(
                said.iter().filter(|text| !waits(text)).count() == missed.len(),
                "{said:?}"
            );
        }
    }
}
