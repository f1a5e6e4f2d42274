//! Which source wins, and what is said when something is missing.

use std::fs;
use std::path::Path;

use super::*;
use crate::client::fake_node::{FakeNode, Fault, PASSWORD, USER};

struct World {
    root: tempfile::TempDir,
    variables: Vec<(&'static str, &'static str)>,
    args: ConnectionArgs,
    level: Option<Consistency>,
    owners: [u32; 2],
}

impl World {
    fn new(profile: &str, variables: &[(&'static str, &'static str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("kv-cluster")).unwrap();
        fs::write(root.path().join("kv-cluster/profile.toml"), profile).unwrap();
        fs::write(root.path().join("kv-cluster/demo-password"), "of the profile\n").unwrap();
        fs::write(root.path().join("password"), "of the flag\n").unwrap();
        Self {
            root,
            variables: variables.to_vec(),
            args: ConnectionArgs::default(),
            level: None,
            owners: [rustix::process::geteuid().as_raw(); 2],
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn resolve(&self) -> anyhow::Result<Target> {
        let folders = Folders {
            working: self.root.path().to_path_buf(),
            config: None,
            owners: self.owners,
        };
        resolve(&self.args, self.level, |name| self.variable(name), &folders)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let of_name = |(variable, _): &&(&str, &str)| *variable == name;
        self.variables.iter().find(of_name).map(|(_, text)| (*text).to_owned())
    }
}

const PROFILE: &str = "url = 'http://profile'\nuser = 'demo'\npassword_file = 'demo-password'";

#[test]
fn a_profile_alone_is_enough_and_its_password_file_lies_beside_it() {
    let target = World::new(PROFILE, &[]).resolve().unwrap();
    assert_eq!(target.urls.value, ["http://profile"]);
    assert_eq!(target.user.value, "demo");
    assert_eq!(target.password.value, "of the profile");
    assert!(target.user.from.ends_with("kv-cluster/profile.toml"));
    assert!(target.password.from.ends_with("kv-cluster/demo-password"));
}

#[test]
fn the_environment_wins_over_the_profile() {
    let variables = [
        ("KV_URL", "http://a,http://b"),
        ("KV_USER", "eve"),
        ("KV_PASSWORD", "p"),
    ];
    let target = World::new(PROFILE, &variables).resolve().unwrap();
    assert_eq!(
        target.urls,
        sourced(vec!["http://a".to_owned(), "http://b".to_owned()], "KV_URL")
    );
    assert_eq!(target.user, sourced("eve".to_owned(), "KV_USER"));
    assert_eq!(target.password, sourced("p".to_owned(), "KV_PASSWORD"));
}

#[test]
fn what_somebody_else_left_in_the_working_folder_gets_nobody_s_credentials() {
    let mut world = World::new("url = 'http://theirs'", &[("KV_USER", "eve"), ("KV_PASSWORD", "p")]);
    world.owners = [u32::MAX - 7; 2];
    let target = world.resolve().unwrap();
    assert_eq!(target.urls, sourced(vec![URL_DEFAULT.to_owned()], "the default"));
    // Nothing of it is needed where all is set: then it does not even have to be a profile.
    fs::write(world.path("kv-cluster/profile.toml"), "no profile").unwrap();
    world.args.url = vec!["http://flag".to_owned()];
    assert_eq!(world.resolve().unwrap().urls.value, ["http://flag"]);
}

#[test]
fn what_was_passed_over_is_said_where_a_setting_could_have_come_from_it() {
    let search = Search {
        found: None,
        passed_over: vec!["a file".to_owned()],
    };
    let all = [("KV_URL", "http://a"), ("KV_USER", "eve"), ("KV_PASSWORD", "p")];
    let said = |variables: &[(&'static str, &'static str)]| {
        let world = World::new("", variables);
        worth_saying(&search, &world.args, &|name| world.variable(name)).len()
    };
    assert_eq!(said(&all), 0);
    for missing in 0..all.len() {
        let mut variables = all.to_vec();
        variables.remove(missing);
        assert_eq!(said(&variables), 1, "{missing}");
    }
}

#[test]
fn flags_win_over_the_environment() {
    let mut world = World::new(
        PROFILE,
        &[("KV_URL", "http://a"), ("KV_USER", "eve"), ("KV_PASSWORD", "p")],
    );
    world.args.url = vec!["http://flag".to_owned()];
    world.args.user = Some("me".to_owned());
    world.args.password_file = Some(world.path("password"));
    let target = world.resolve().unwrap();
    assert_eq!(target.urls, sourced(vec!["http://flag".to_owned()], "--url"));
    assert_eq!(target.user.value, "me");
    assert_eq!(target.password.value, "of the flag");
}

#[test]
fn the_password_of_a_profile_is_not_used_for_another_user() {
    let error = World::new(PROFILE, &[("KV_USER", "eve")])
        .resolve()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no password") && error.contains("\"eve\" (from KV_USER)"),
        "{error}"
    );
}

#[test]
fn without_a_user_the_error_says_how_to_set_one() {
    let error = World::new("", &[]).resolve().unwrap_err();
    assert_eq!(crate::cli::exit::exit_of(&error) as u8, 2);
    let error = error.to_string();
    assert!(
        error.contains("--user") && error.contains("KV_USER") && error.contains("run-cluster"),
        "{error}"
    );
}

#[test]
fn while_the_nodes_of_a_new_cluster_start_the_error_does_not_say_to_start_another_one() {
    let world = World::new("", &[]);
    let said = || world.resolve().unwrap_err().to_string();
    fs::write(world.path("kv-cluster/lock"), "").unwrap();
    assert!(!said().contains("still starting"), "a profile is there: {}", said());
    fs::remove_file(world.path("kv-cluster/profile.toml")).unwrap();
    assert!(said().contains("kv-cluster has no profile yet") && said().contains("still starting"));
    fs::remove_file(world.path("kv-cluster/lock")).unwrap();
    assert!(!said().contains("still starting"), "{}", said());
}

#[test]
fn a_time_that_is_none_is_told_with_those_that_are() {
    for (flag, text) in [("--deadline", "from 0.001 to 86400"), ("--timeout", "from 1 to 86400")] {
        for wrong in ["-1", "0", "x", "86401"] {
            let line = ["kv", "get_value", "k", flag, wrong];
            let error = <crate::cli::Cli as clap::Parser>::try_parse_from(line)
                .unwrap_err()
                .to_string();
            assert!(error.contains(text), "{flag} {wrong}: {error}");
        }
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let target = World::new(PROFILE, &[("KV_USER", ""), ("KV_URL", "")])
        .resolve()
        .unwrap();
    assert_eq!(target.user.value, "demo");
}

#[test]
fn without_any_address_it_is_the_default_one() {
    let world = World::new("user = 'demo'\npassword = 'x'", &[]);
    let target = world.resolve().unwrap();
    assert_eq!(target.urls, sourced(vec![URL_DEFAULT.to_owned()], "the default"));
}

#[test]
fn a_missing_password_file_is_named() {
    let mut world = World::new(PROFILE, &[]);
    world.args.password_file = Some(Path::new("/nowhere/secret").to_path_buf());
    let error = format!("{:#}", world.resolve().unwrap_err());
    assert!(error.contains("/nowhere/secret"), "{error}");
}

#[test]
fn advice_says_where_the_settings_came_from() {
    let target = World::new(PROFILE, &[("KV_URL", "http://a")]).resolve().unwrap();
    let refused = ClientError::Credentials {
        detail: "Invalid user_id or password".to_owned(),
    };
    let text = advice(&refused, &target).unwrap();
    assert!(text.contains("\"demo\"") && text.contains("demo-password"), "{text}");
    let text = advice(&ClientError::Unreachable { tried: Vec::new() }, &target).unwrap();
    assert!(text.contains("KV_URL") && text.contains("kv run-cluster"), "{text}");
    let unknown = |url: &str| ClientError::NoSuchCall {
        url: url.to_owned(),
        path: "/get_value".to_owned(),
        status: 404,
    };
    let text = advice(&unknown("http://a/some"), &target).unwrap();
    assert!(text.contains("KV_URL") && text.contains("has a path"), "{text}");
    assert!(!advice(&unknown("http://a"), &target).unwrap().contains("path"));
    let silent = ClientError::Broken {
        url: "http://a".to_owned(),
        reason: "r".to_owned(),
        silent: true,
    };
    assert!(!advice(&silent, &target).unwrap().contains("http://a"));
    let several = World::new(PROFILE, &[("KV_URL", "http://a,http://b")])
        .resolve()
        .unwrap();
    let text = advice(&silent, &several).unwrap();
    assert!(
        text.contains("http://a") && text.contains("another address first"),
        "{text}"
    );
}

#[test]
fn a_change_that_may_have_been_done_is_not_asked_for_again_without_a_look() {
    let target = World::new(PROFILE, &[("KV_URL", "http://a")]).resolve().unwrap();
    let builder = Client::builder().urls(&target.urls.value).user("demo").password("p");
    let connection = Connection {
        client: builder.build().unwrap(),
        target,
    };
    let hint = |error: ClientError| {
        let error = connection.explain_change(error, "look");
        error.downcast_ref::<Advice>().unwrap().to_string()
    };
    let silent = ClientError::Broken {
        url: "http://a".to_owned(),
        reason: "r".to_owned(),
        silent: true,
    };
    assert_eq!(hint(silent), "it may have been done: look");
    let refused = |detail: &str| ClientError::Unavailable {
        detail: detail.to_owned(),
        code: None,
        retry_after: None,
    };
    let in_doubt = "2 replicas are needed and 1 answered; this request may have taken effect";
    assert_eq!(hint(refused(in_doubt)), "it may have been done: look");
    assert_eq!(hint(refused("not ready")), "try again in a moment");
}

#[test]
fn the_consistency_comes_from_the_flag_or_the_environment_or_the_profile() {
    let profile = format!("{PROFILE}\nconsistency = 'one'");
    let mut world = World::new(&profile, &[("KV_CONSISTENCY", "all")]);
    assert_eq!(world.resolve().unwrap().consistency, Some(Consistency::All));
    world.level = Some(Consistency::Quorum);
    assert_eq!(world.resolve().unwrap().consistency, Some(Consistency::Quorum));
    assert_eq!(
        World::new(&profile, &[]).resolve().unwrap().consistency,
        Some(Consistency::One)
    );
    assert_eq!(World::new(PROFILE, &[]).resolve().unwrap().consistency, None);
    let error = World::new(PROFILE, &[("KV_CONSISTENCY", "most")])
        .resolve()
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("KV_CONSISTENCY") && error.contains("one, quorum or all"),
        "{error}"
    );
}

#[test]
fn what_a_command_waits_for_is_said_once_with_how_long_it_goes_on() {
    let said = parking_lot::Mutex::new(Vec::new());
    let say = say_once(|text| said.lock().push(text.to_owned()));
    for _ in 0..2 {
        say(&Waiting {
            why: "1 of 2".to_owned(),
            deadline: Duration::from_secs(60),
        });
    }
    assert_eq!(
        *said.lock(),
        ["1 of 2; waiting and trying again until the --deadline, 60 s"]
    );
}

#[test]
fn a_profile_may_name_several_nodes() {
    for urls in [
        "urls = ['http://a', 'http://b']",
        "url = 'http://a, http://b'",
        "url = ['http://a', 'http://b']",
    ] {
        let profile = format!("{urls}\nuser = 'demo'\npassword = 'x'");
        let target = World::new(&profile, &[]).resolve().unwrap();
        assert_eq!(target.urls.value, ["http://a", "http://b"]);
    }
}

#[tokio::test]
async fn what_fails_for_now_is_tried_again_for_as_long_as_the_deadline_lets_it() {
    let node = FakeNode::start();
    (0..5).for_each(|_| node.fail_next(Fault::Overloaded));
    let target = Target {
        urls: sourced(vec![node.url.clone()], "a test"),
        user: sourced(USER.to_owned(), "a test"),
        password: sourced(PASSWORD.to_owned(), "a test"),
        consistency: None,
    };
    let args = ConnectionArgs {
        timeout: 30,
        ..ConnectionArgs::default()
    };
    let client = builder(&target, &args).build().unwrap();
    client.add_value("key", "x").await.unwrap();
    assert_eq!(node.list("key"), ["x"]);
    // A wrong address is not waited for so long.
    let target = Target {
        urls: sourced(vec!["127.0.0.1:9".to_owned()], "a test"),
        ..target
    };
    let client = builder(&target, &args).build().unwrap();
    let error = client.add_value("key", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}
