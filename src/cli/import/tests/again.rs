//! An import that is repeated, goes on where it stopped, or begins anew.

use super::*;

#[tokio::test]
async fn a_repeated_import_adds_nothing_twice_unless_asked_to() {
    let world = World::new();
    world.import(FILE, false).await.unwrap();
    world.import(FILE, false).await.unwrap();
    assert_eq!(world.node.list("a"), ["1", "2"]);
    world.import(FILE, true).await.unwrap();
    assert_eq!(world.node.list("a"), ["1", "2", "1", "2"]);
}

#[tokio::test]
async fn progress_that_stays_is_named() {
    let world = World::new();
    fs::write(world.path("in.jsonl"), FILE).unwrap();
    for again in [false, true] {
        let args = ImportArgs {
            file: world.path("in.jsonl"),
            again,
            connection: world.connection(),
        };
        let connection = Connection::to_keys(&args.connection).unwrap();
        let said = import_file(&connection, &args, watch::Sender::default()).await.unwrap();
        assert!(said.contains("in.jsonl.progress"), "{said}");
        assert_eq!(world.progress().unwrap().again, again);
        assert_eq!(said.contains("an earlier one"), !again, "{said}");
    }
    // Now nothing is added.
    let args = ImportArgs {
        file: world.path("in.jsonl"),
        again: false,
        connection: world.connection(),
    };
    let connection = Connection::to_keys(&args.connection).unwrap();
    let said = import_file(&connection, &args, watch::Sender::default()).await.unwrap();
    assert!(
        said.contains("an earlier one") && said.contains("in.jsonl.progress"),
        "{said}"
    );
}

#[tokio::test]
async fn after_a_wrong_line_was_corrected_the_import_goes_on_there() {
    let world = World::new();
    let wrong = FILE.replace("\"b\",\"value\"", "\"b\",\"values\"");
    let error = world.import(&wrong, false).await.unwrap_err();
    assert_eq!(crate::cli::exit::exit_of(&error) as u8, 5);
    let text = format!("{error:#}");
    assert!(text.contains("line 2") && text.contains("in.jsonl"), "{text}");
    assert_eq!(world.node.list("a"), ["1", "2"]);
    assert_eq!(world.progress().unwrap().lines, 1);
    let requests = world.node.sent("path").len();
    world.import(FILE, false).await.unwrap();
    assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (2, 2));
    // The last key is asked for first.
    assert_eq!(world.node.sent("path").len(), requests + 2);
    let sent = world.node.sent("operations").pop().unwrap();
    assert!(!sent.to_string().contains("\"key\":\"a\""), "{sent}");
}

#[tokio::test]
async fn an_emptied_store_gets_the_whole_file() {
    let world = World::new();
    let wrong = FILE.replace("\"b\",\"value\"", "\"b\",\"values\"");
    world.import(&wrong, false).await.unwrap_err();
    assert_eq!(world.progress().unwrap().last_key.as_deref(), Some("a"));
    world.node.empty();
    world.import(FILE, false).await.unwrap();
    assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (2, 2));
    // Done, and not of the name that its content gives it. One of its keys is there for another reason.
    let progress = world.progress().unwrap();
    assert!(progress.done);
    world.node.empty();
    let (last, other) = (progress.last_key.unwrap(), vec!["other".to_owned()]);
    world.node.with(|state| state.lists.insert(last, other));
    world.import(FILE, false).await.unwrap();
    assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (2, 2));
}

#[tokio::test]
async fn a_corrected_file_that_is_imported_again_adds_nothing_twice() {
    let world = World::new();
    let wrong = FILE.replace("\"b\",\"value\"", "\"b\",\"values\"");
    world.import(&wrong, false).await.unwrap_err();
    for _ in 0..3 {
        world.import(FILE, false).await.unwrap();
        assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (2, 2));
    }
    // The same store under another of its addresses.
    let mut progress = world.progress().unwrap();
    progress.target = "the same at another address".to_owned();
    progress_file::write(&world.path("in.jsonl.progress"), &progress).unwrap();
    world.import(FILE, false).await.unwrap();
    assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (2, 2));
    // What was written to its end since is new.
    let longer = format!("{FILE}{{\"key\":\"a\",\"value\":[\"3\"]}}\n");
    world.import(&longer, false).await.unwrap();
    assert_eq!(world.node.list("a"), ["1", "2", "3"]);
    assert_eq!(world.node.list("b").len(), 2);
}

#[tokio::test]
async fn of_a_file_that_grew_only_what_is_new_is_added() {
    let world = World::new();
    let line = |number: u32| format!("{{\"key\":\"a\",\"value\":[\"{number}\"]}}\n");
    let mut file = String::new();
    for number in 1..5 {
        file += &line(number);
        world.import(&file, false).await.unwrap();
        let expected: Vec<String> = (1..=number).map(|number| number.to_string()).collect();
        assert_eq!(world.node.list("a"), expected);
    }
    assert_eq!(world.progress().unwrap().lines, 4);
}

/// Two files that were empty once are not the same one.
#[tokio::test]
async fn of_an_import_that_stored_nothing_no_progress_stays() {
    let world = World::new();
    for empty in ["", "\n", "{\"key\":\"a\",\"value\":[]}\n"] {
        world.import(empty, false).await.unwrap();
        assert_eq!(world.progress(), None, "{empty:?}");
    }
}

#[tokio::test]
async fn a_progress_that_cannot_be_written_is_not_said_to_stay() {
    let world = World::new();
    fs::write(world.path("in.jsonl"), FILE).unwrap();
    // Where the file cannot be put.
    fs::create_dir(world.path("in.jsonl.progress")).unwrap();
    let args = ImportArgs {
        file: world.path("in.jsonl"),
        again: false,
        connection: world.connection(),
    };
    let connection = Connection::to_keys(&args.connection).unwrap();
    let said = import_file(&connection, &args, watch::Sender::default()).await.unwrap();
    assert!(!said.contains("in.jsonl.progress"), "{said}");
}

#[tokio::test]
async fn of_a_file_that_was_changed_before_where_its_import_stopped_it_is_said() {
    let world = World::new();
    let wrong = FILE.replace("\"b\",\"value\"", "\"b\",\"values\"");
    let target = format!("{USER} at {}", world.node.url);
    let warning = |content: &str, target: &str| {
        fs::write(world.path("in.jsonl"), content).unwrap();
        let mut file = fs::File::open(world.path("in.jsonl")).unwrap();
        let start = Start::find(&mut file, &world.path("in.jsonl.progress"), target, false);
        start.unwrap().warning()
    };
    assert_eq!(warning(FILE, &target), None);
    for (content, lines) in [(wrong.as_str(), "its first line"), (FILE, "its first 3 lines")] {
        let imported = world.import(content, false).await;
        assert_eq!(imported.is_err(), content == wrong);
        assert_eq!(warning(FILE, &target), None);
        assert_eq!(warning(&format!("{FILE}x"), &target), None);
        // A blank less.
        let said = warning(&FILE.replacen("[\"1\",", "[ \"1\",", 1), &target);
        assert!(said.as_ref().is_some_and(|said| said.contains(lines)), "{said:?}");
        assert!(warning("", &target).is_some());
        assert_eq!(warning("", "another store"), None);
    }
}

#[tokio::test]
async fn an_import_that_adds_anew_goes_on_when_it_is_repeated_and_is_one_until_it_is_done() {
    let world = World::new();
    let wrong = FILE.replace("\"b\",\"value\"", "\"b\",\"values\"");
    world.import(&wrong, true).await.unwrap_err();
    world.import(FILE, true).await.unwrap();
    assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (2, 2));
    world.import(FILE, false).await.unwrap();
    assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (2, 2));
    world.import(FILE, true).await.unwrap();
    assert_eq!((world.node.list("a").len(), world.node.list("b").len()), (4, 4));
}

#[tokio::test]
async fn progress_in_another_file_or_for_another_store_is_not_believed() {
    let world = World::new();
    let position = Position {
        lines: 1,
        offset_bytes: 5,
        digest: blake3::hash(b"other"),
    };
    let target = format!("{USER} at {}", world.node.url);
    for target in [target.as_str(), "someone else"] {
        progress_file::write(&world.path("in.jsonl.progress"), &Progress::at(position, target, "id")).unwrap();
        world.import(FILE, false).await.unwrap();
        assert_eq!(world.node.list("a"), ["1", "2"]);
    }
}

#[tokio::test]
async fn whoever_stops_an_import_is_promised_that_nothing_is_added_twice_only_where_that_is_so() {
    let world = World::new();
    let left = |file: &str, again: bool| {
        let args = ImportArgs {
            file: match file {
                "-" => file.into(),
                _ => world.path(file),
            },
            again,
            connection: world.connection(),
        };
        what_is_left(&Done::default(), Again::of(&args)).0
    };
    assert!(left("in.jsonl", false).contains("nothing is added twice"));
    assert!(left("-", false).contains("is added anew each time"));
    // What it would go on with cannot be written, is there, and is of an import that came to its end.
    assert!(left("in.jsonl", true).contains("all of the file once more"));
    let position = Position {
        lines: 1,
        offset_bytes: 5,
        digest: blake3::hash(b"begun"),
    };
    for (done, promised) in [(false, "nothing is added twice"), (true, "all of the file once more")] {
        let progress = Progress {
            again: true,
            done,
            ..Progress::at(position, "target", "id")
        };
        progress_file::write(&world.path("in.jsonl.progress"), &progress).unwrap();
        assert!(left("in.jsonl", true).contains(promised), "{done}");
    }
}
