//! The nodes that a client knows: which to ask first, and which to leave alone for a while.

use std::borrow::Cow;
use std::time::Duration;

use hyper::Uri;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::ClientError;

/// How long a node that failed, or was slow, is asked only after all others.
const AVOIDED_FOR: Duration = Duration::from_secs(5);

pub(super) struct Nodes {
    /// Without a slash at the end; never empty.
    urls: Vec<String>,
    state: Mutex<State>,
}

struct State {
    /// The one that answered last.
    preferred: usize,
    avoided_until: Vec<Option<Instant>>,
    last_answers: Vec<Option<Instant>>,
}

impl Nodes {
    pub fn new(urls: &[String]) -> Result<Self, ClientError> {
        let mut normal: Vec<String> = Vec::with_capacity(urls.len());
        for url in urls {
            let url = normal_url(url)?;
            if !normal.contains(&url) {
                normal.push(url);
            }
        }
        if normal.is_empty() {
            return Err(ClientError::Setup("no address of a node was given".to_owned()));
        }
        let state = State {
            preferred: 0,
            avoided_until: vec![None; normal.len()],
            last_answers: vec![None; normal.len()],
        };
        Ok(Self {
            urls: normal,
            state: Mutex::new(state),
        })
    }

    pub fn count(&self) -> usize {
        self.urls.len()
    }

    pub fn url(&self, node: usize) -> &str {
        self.urls.get(node).map_or("", String::as_str)
    }

    /// All of them, the one to ask first last: from the preferred one on in their order, those to be avoided after the others.
    pub fn order(&self) -> Vec<usize> {
        let state = self.state.lock();
        let now = Instant::now();
        let count = self.urls.len();
        let avoided = |node: &usize| state.avoided_until.get(*node).is_some_and(|until| *until > Some(now));
        let all = (0..count).map(|index| (state.preferred + index) % count);
        let (late, early): (Vec<usize>, Vec<usize>) = all.partition(avoided);
        early.into_iter().chain(late).rev().collect()
    }

    pub fn avoid(&self, node: usize) {
        if let Some(until) = self.state.lock().avoided_until.get_mut(node) {
            *until = Some(Instant::now() + AVOIDED_FOR);
        }
    }

    /// It gave the answer that counted.
    pub fn prefer(&self, node: usize) {
        let mut state = self.state.lock();
        state.preferred = node;
        if let Some(until) = state.avoided_until.get_mut(node) {
            *until = None;
        }
    }

    /// It answered something, whatever that was.
    pub fn heard(&self, node: usize) {
        if let Some(last) = self.state.lock().last_answers.get_mut(node) {
            *last = Some(Instant::now());
        }
    }

    /// Whether any of them ever answered.
    pub fn heard_any(&self) -> bool {
        self.state.lock().last_answers.iter().any(Option::is_some)
    }

    pub fn last_answer(&self, node: usize) -> Option<Instant> {
        self.state.lock().last_answers.get(node).copied().flatten()
    }

    #[cfg(test)]
    pub fn preferred(&self) -> usize {
        self.state.lock().preferred
    }
}

/// `http://host:port`, perhaps with a path before those of the API, and without a slash at the end.
fn normal_url(text: &str) -> Result<String, ClientError> {
    let refuse = |why: &str| {
        let shown = without_password(text);
        Err(ClientError::Setup(format!(
            "{shown:?} is not the address of a node: {why}"
        )))
    };
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = match with_scheme.parse() {
        Ok(uri) => uri,
        Err(_) => return refuse("write it as http://HOST:PORT"),
    };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return refuse("nodes speak plain http; put a proxy that ends TLS beside the client, or a tunnel");
        }
        _ => return refuse("it must begin with http://"),
    }
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return refuse("there is no host in it");
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return refuse("user and password do not belong into it");
    }
    if uri.query().is_some() {
        return refuse("there is a ? in it");
    }
    if with_scheme.contains('#') {
        return refuse("there is a # in it");
    }
    if !has_good_port(&uri) {
        return refuse("its port is no number from 1 to 65535");
    }
    Ok(with_scheme.trim_end_matches('/').to_owned())
}

/// Or none. A port that is no number would count as none, and who listens at the usual one would get the credentials.
fn has_good_port(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // The colons of an address of IPv6 are within brackets.
    let behind_host = authority.rsplit(']').next().unwrap_or_default();
    match behind_host.rsplit_once(':') {
        Some(_) => uri.port_u16().is_some_and(|port| port > 0),
        None => true,
    }
}

/// For a message, which may end in a log.
fn without_password(text: &str) -> Cow<'_, str> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    // What is no address may have its @ anywhere.
    match rest.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("{scheme}…@{host}")),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_scheme_and_end_in_a_slash() {
        assert_eq!(normal_url("127.0.0.1:8000").unwrap(), "http://127.0.0.1:8000");
        assert_eq!(normal_url("http://[::1]:8000/").unwrap(), "http://[::1]:8000");
        assert_eq!(normal_url("http://host/kv/").unwrap(), "http://host/kv");
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_told() {
        for text in [
            "http://a:s3cret@host",
            "a:s3cret@host:1",
            "https://a:s3c@ret@host",
            "http://a:s3 cret@host",
        ] {
            let error = normal_url(text).unwrap_err().to_string();
            assert!(error.contains("@host") && !error.contains("s3c"), "{error}");
        }
    }

    #[test]
    fn an_unusable_address_is_refused_by_name() {
        for text in [
            "https://host:1",
            "ftp://host",
            "http://",
            "",
            "http://h/?x",
            "http://h/#x",
            "http://h:99999",
            "http://h:0",
            "http://[::1]:65536",
            "h:",
        ] {
            let error = normal_url(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    fn three() -> Nodes {
        Nodes::new(&["a:1", "b:1", "c:1", "http://a:1/"].map(str::to_owned)).unwrap()
    }

    fn asked_in_turn(nodes: &Nodes) -> Vec<usize> {
        nodes.order().into_iter().rev().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_failed_is_asked_last_for_a_while() {
        let nodes = three();
        assert_eq!(asked_in_turn(&nodes), [0, 1, 2], "an address given twice is one node");
        nodes.prefer(1);
        assert_eq!(asked_in_turn(&nodes), [1, 2, 0]);
        nodes.avoid(1);
        nodes.avoid(2);
        assert_eq!(asked_in_turn(&nodes), [0, 1, 2]);
        nodes.prefer(2);
        assert_eq!(asked_in_turn(&nodes), [2, 0, 1]);
        tokio::time::advance(AVOIDED_FOR + Duration::from_millis(1)).await;
        nodes.prefer(1);
        assert_eq!(asked_in_turn(&nodes), [1, 2, 0]);
    }
}
