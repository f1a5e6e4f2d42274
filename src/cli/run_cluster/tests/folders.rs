//! The folder: how many nodes are in it, and who may use it.

use super::*;

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
    let world = World::of(3);
    let script = format!("mkdir -p $3\n{}", world.serving());
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
