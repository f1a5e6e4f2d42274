//! Which source wins, and what each error says.

use super::*;

fn from_file(text: &str) -> Result<ServeConfig, ConfigError> {
    let mut settings = Settings::default();
    settings.offer_file(Path::new("/etc/kv/node.toml"), text)?;
    settings.into_config()
}

fn from_flag(setting: Setting, text: &str) -> Result<ServeConfig, ConfigError> {
    let mut settings = Settings::default();
    settings.offer(setting, text, Source::Flag);
    settings.into_config()
}

#[test]
fn without_any_setting_the_defaults_hold() {
    let config = Settings::default().into_config().unwrap();
    assert_eq!(config.listen.to_string(), LISTEN_DEFAULT);
    assert_eq!(config.data, Path::new("data"));
    assert!((1..=SHARDS_DEFAULT_MAX).contains(&config.shards));
    assert_eq!(config.first_admin, None);
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mut settings = Settings::default();
    settings.offer(Setting::Listen, "127.0.0.1:1", Source::Flag);
    settings.offer_environment(|name| match name {
        "KV_LISTEN" => Some("127.0.0.1:2".to_owned()),
        "KV_SHARDS" => Some("2".to_owned()),
        _ => None,
    });
    let file = "listen = '127.0.0.1:3'\nshards = 3\nblock_cache_bytes = '3MiB'";
    settings.offer_file(Path::new("node.toml"), file).unwrap();
    let config = settings.into_config().unwrap();
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.shards, 2);
    assert_eq!(config.block_cache_bytes, 3 * MIB);
}

#[test]
fn paths_in_a_file_are_relative_to_its_folder() {
    let config = from_file("data = 'd'\nuser = 'root'\npassword_file = '/run/secret'").unwrap();
    assert_eq!(config.data, Path::new("/etc/kv/d"));
    let admin = config.first_admin.unwrap();
    assert_eq!(admin.password_file, Path::new("/run/secret"));
    assert_eq!(admin.user.as_str(), "root");
}

#[test]
fn an_unknown_key_in_the_file_is_an_error_that_names_it() {
    let error = from_file("lisen = '127.0.0.1:3'").unwrap_err().to_string();
    assert!(error.contains("\"lisen\"") && error.contains("listen"), "{error}");
}

#[test]
fn an_error_names_the_setting_and_where_it_came_from() {
    let error = from_flag(Setting::Shards, "0").unwrap_err().to_string();
    assert!(error.starts_with("--shards: \"0\""), "{error}");
    let error = from_file("log_format = 'xml'").unwrap_err().to_string();
    assert!(error.starts_with("log_format in /etc/kv/node.toml"), "{error}");
    let mut settings = Settings::default();
    settings.offer_environment(|name| (name == "KV_LISTEN").then(|| "8000".to_owned()));
    let error = settings.into_config().unwrap_err().to_string();
    assert!(
        error.contains("KV_LISTEN") && error.contains("127.0.0.1:8000"),
        "{error}"
    );
}

#[test]
fn every_setting_refuses_what_it_cannot_be() {
    for (setting, texts) in [
        (Setting::Data, &[""][..]),
        (Setting::Listen, &["", "8000", "host:8000", "1.2.3.4", "1.2.3.4:99999"]),
        (Setting::Shards, &["0", "1025", "-1", "many"]),
        (
            Setting::BlockCacheBytes,
            &["1", "x", "-5", "1.5MiB", "99999999999999GiB"],
        ),
        (Setting::ActiveSegmentBytes, &["1KiB", "1TiB", "9999GiB"]),
        (Setting::LogFormat, &["", "TEXT"]),
        (Setting::LogFilter, &["kv_storage=loud"]),
        (Setting::ClusterListen, &["", "7000", "host:7000", "127.0.0.1:0"]),
    ] {
        for text in texts {
            let error = from_flag(setting, text).expect_err(text).to_string();
            assert!(error.contains(&setting.flag()), "{error}");
        }
    }
    for (setting, texts) in [
        (Setting::Advertise, &["0.0.0.0:7000", "127.0.0.1:0", "host"][..]),
        (Setting::Join, &["127.0.0.1:7001,x", "127.0.0.1:0", "0.0.0.0:1"]),
        (Setting::Zone, &["", "a\nb", &"z".repeat(65)]),
        (Setting::ClusterName, &["", &"n".repeat(65)]),
        (Setting::Weight, &["0", "1001", "x"]),
        (Setting::Replication, &["0", "8", "-1"]),
        (Setting::ClusterKeyFile, &[""]),
        (Setting::ClusterTls, &[""]),
    ] {
        for text in texts {
            let error = in_cluster(&[(setting, text)]).expect_err(text).to_string();
            assert!(error.starts_with(&setting.flag()), "{error}");
        }
    }
}

/// With a key file and an address to listen on, unless they are given otherwise.
fn in_cluster(given: &[(Setting, &str)]) -> Result<ClusterSettings, ConfigError> {
    let usual = [
        (Setting::ClusterListen, "127.0.0.1:7000"),
        (Setting::ClusterKeyFile, "key"),
        (Setting::ClusterTls, "certificates"),
    ];
    let mut settings = Settings::default();
    for (setting, text) in given.iter().chain(&usual) {
        settings.offer(*setting, *text, Source::Flag);
    }
    settings.into_config().map(|config| config.cluster.expect("a cluster"))
}

#[test]
fn without_cluster_listen_a_node_is_its_own_and_no_setting_of_a_cluster_is_taken() {
    assert_eq!(Settings::default().into_config().unwrap().cluster, None);
    for setting in Setting::ALL
        .into_iter()
        .skip_while(|setting| *setting != Setting::Advertise)
    {
        let error = from_flag(setting, "127.0.0.1:7001").unwrap_err().to_string();
        assert!(
            error.starts_with(&setting.flag()) && error.contains("--cluster-listen"),
            "{error}"
        );
    }
}

#[test]
fn a_cluster_has_defaults_for_all_but_its_address_and_key() {
    let cluster = in_cluster(&[]).unwrap();
    assert_eq!((cluster.name.as_str(), cluster.zone.as_str()), ("kv", "default"));
    assert_eq!((cluster.weight, cluster.replication), (100, 3));
    assert_eq!(cluster.advertise, cluster.listen);
    assert!(cluster.join.is_empty());
    let error = from_flag(Setting::ClusterListen, "127.0.0.1:7000")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("--cluster-key-file") && error.contains("kv cluster keygen"),
        "{error}"
    );
}

#[test]
fn a_node_that_listens_everywhere_must_say_where_it_is_reached() {
    let everywhere = (Setting::ClusterListen, "[::]:7000");
    let error = in_cluster(&[everywhere]).unwrap_err().to_string();
    assert!(error.contains("--advertise") && error.contains("[::]:7000"), "{error}");
    let cluster = in_cluster(&[everywhere, (Setting::Advertise, "10.0.0.1:7000")]).unwrap();
    assert_eq!(cluster.advertise.to_string(), "10.0.0.1:7000");
}

#[test]
fn one_list_of_nodes_to_join_does_for_all_of_them() {
    let all = (
        Setting::Join,
        "127.0.0.1:7002, localhost:7000,127.0.0.1:7001,127.0.0.1:7001,",
    );
    let ports = |cluster: ClusterSettings| cluster.join.iter().map(SocketAddr::port).collect::<Vec<_>>();
    assert_eq!(ports(in_cluster(&[all]).unwrap()), [7002, 7001]);
    let cluster = "cluster_listen = '127.0.0.1:7000'\ncluster_key_file = 'key'\nweight = 7";
    let config = from_file(&format!("{cluster}\njoin = ['127.0.0.1:7003', '127.0.0.1:7004']")).unwrap();
    let cluster = config.cluster.unwrap();
    assert_eq!(
        (cluster.key_file.as_path(), cluster.weight),
        (Path::new("/etc/kv/key"), 7)
    );
    assert_eq!(ports(cluster), [7003, 7004]);
    let error = from_file("join = [1]").unwrap_err().to_string();
    assert!(error.contains("a list of texts"), "{error}");
}

#[test]
fn the_first_admin_needs_a_name_and_a_password_file() {
    for setting in [Setting::User, Setting::PasswordFile] {
        let error = from_flag(setting, "x").unwrap_err().to_string();
        assert!(error.contains("--user") && error.contains("--password-file"), "{error}");
    }
}

#[test]
fn a_file_that_is_not_toml_or_holds_other_types_is_an_error() {
    for text in ["data", "data = [1]", "shards = 1.5", "[listen]\nport = 1"] {
        let error = from_file(text).expect_err(text).to_string();
        assert!(error.contains("/etc/kv/node.toml"), "{error}");
    }
}

#[test]
fn what_is_no_plain_value_is_named_after_its_file() {
    let error = from_file("shards = 2.5").unwrap_err().to_string();
    assert_eq!(error, "/etc/kv/node.toml: shards must be a text or a whole number");
    let error = from_file("data = 1").unwrap_err().to_string();
    assert_eq!(error, "/etc/kv/node.toml: data must be a text");
}

#[test]
fn an_empty_variable_is_none() {
    let mut settings = Settings::default();
    settings.offer_environment(|_| Some(String::new()));
    assert_eq!(
        settings.into_config().unwrap(),
        Settings::default().into_config().unwrap()
    );
}

#[test]
fn localhost_may_be_written_for_the_loopback_address() {
    let config = from_flag(Setting::Listen, "localhost:9").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:9");
}

#[test]
fn the_name_of_a_setting_gives_its_flag_and_its_variable() {
    assert_eq!(Setting::BlockCacheBytes.flag(), "--block-cache-bytes");
    assert_eq!(Setting::BlockCacheBytes.variable(), "KV_BLOCK_CACHE_BYTES");
    assert_eq!(Setting::User.variable(), "KV_ADMIN_USER");
}

#[test]
fn clients_and_nodes_do_not_share_an_address() {
    let listening = |clients, nodes| in_cluster(&[(Setting::Listen, clients), (Setting::ClusterListen, nodes)]);
    for (clients, nodes) in [
        ("10.0.0.1:8000", "10.0.0.1:8000"),
        ("0.0.0.0:8000", "10.0.0.1:8000"),
        ("[::]:8000", "10.0.0.1:8000"),
    ] {
        let error = listening(clients, nodes).unwrap_err().to_string();
        assert!(
            error.contains("--cluster-listen") && error.contains("--listen"),
            "{error}"
        );
    }
    assert!(listening("10.0.0.2:8000", "10.0.0.1:8000").is_ok());
    assert!(listening("10.0.0.1:8001", "10.0.0.1:8000").is_ok());
}

#[test]
fn what_is_missing_beside_a_setting_of_the_file_or_the_environment_is_not_blamed_on_a_flag() {
    let admin = from_file("user = 'root'").unwrap_err().to_string();
    assert!(
        admin.starts_with("user in /etc/kv/node.toml is given, but password_file is not"),
        "{admin}"
    );
    let join = from_file("join = '127.0.0.1:7001'").unwrap_err().to_string();
    assert!(
        join.starts_with("join in /etc/kv/node.toml is given, but cluster_listen is not")
            && join.contains("leave join out"),
        "{join}"
    );
    let key = from_file("cluster_listen = '127.0.0.1:7000'").unwrap_err().to_string();
    assert!(
        key.starts_with("cluster_listen in /etc/kv/node.toml is given, but cluster_key_file is not"),
        "{key}"
    );
    let everywhere = from_file("cluster_listen = '0.0.0.0:7000'\ncluster_key_file = 'key'")
        .unwrap_err()
        .to_string();
    assert!(
        everywhere.starts_with("cluster_listen in /etc/kv/node.toml: 0.0.0.0:7000")
            && everywhere.ends_with("with advertise"),
        "{everywhere}"
    );
    let one = "cluster_listen = '127.0.0.1:7'\nlisten = '127.0.0.1:7'\ncluster_key_file = 'key'";
    let one = from_file(one).unwrap_err().to_string();
    for error in [&admin, &join, &key, &everywhere, &one] {
        assert!(!error.contains("--") && error.contains("/etc/kv/node.toml"), "{error}");
    }
    let mut settings = Settings::default();
    settings.offer_environment(|name| (name == "KV_JOIN").then(|| "127.0.0.1:7001".to_owned()));
    let error = settings.into_config().unwrap_err().to_string();
    assert!(
        error.starts_with("the environment variable KV_JOIN is given, but KV_CLUSTER_LISTEN is not"),
        "{error}"
    );
}
