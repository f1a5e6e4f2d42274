//! The direction of imports between the modules of `src`, and the size of its files, read from the source text.
//!
//! `types <- core <- store <- shard <- node <- http <- cli <- main`; `net <- node`; `api <- {http, client} <- cli`. An arrow points from what is
//! used to what may use it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines of a file without its tests: what can be read in one sitting.
const FILE_LINES_MAX: usize = 400;
/// The longest there is; a new one should fit a screen.
const FUNCTION_LINES_MAX: usize = 75;

/// For each module of `src`, the modules it uses, of those that stand before it in the code map.
const MAY_USE: [(&str, &[&str]); 20] = [
    ("types", &[]),
    ("planted", &[]),
    ("quota", &[]),
    ("core", &["types", "planted"]),
    ("store", &["types", "planted", "core"]),
    ("shard", &["types", "planted", "core", "store"]),
    ("env", &["types", "store"]),
    ("wire", &["types", "core"]),
    ("net", &["types", "env"]),
    (
        "node",
        &[
            "types", "quota", "planted", "core", "env", "store", "shard", "wire", "net",
        ],
    ),
    ("users", &["types", "quota", "planted", "core", "env", "node"]),
    ("api", &["types"]),
    (
        "http",
        &["types", "quota", "planted", "core", "env", "node", "users", "api"],
    ),
    ("server", &["types", "env", "node", "users", "http"]),
    ("os", &["types", "env", "store"]),
    ("client", &["types", "planted", "env", "api"]),
    ("bench", &["types", "api"]),
    ("config", &["types"]),
    (
        "cli",
        &[
            "types", "env", "net", "store", "shard", "node", "users", "api", "http", "client", "os", "server",
            "config", "bench",
        ],
    ),
    ("main", &["cli"]),
];

/// The parts of `node::cluster`, in the order of their imports: each uses only those that stand before it.
const CLUSTER_PARTS: [&str; 8] = [
    "calls",
    "members",
    "clocks",
    "lives",
    "coordinator",
    "catch_up",
    "serve",
    "status",
];

/// What only the edge to the operating system may name.
const ONLY_AT_THE_EDGE: [&str; 12] = [
    "std::fs",
    "tokio::fs",
    "spawn_blocking",
    "block_in_place",
    "SystemTime::now",
    "std::thread::spawn",
    "std::thread::sleep",
    "TcpListener::bind",
    "TcpStream::connect",
    "getrandom::",
    "thread_rng",
    "Instant::now",
];
const EDGE: [&str; 5] = ["os", "cli", "main", "client", "bench"];

struct Source {
    /// Relative to `src`.
    path: PathBuf,
    /// The first part of the path: the module it belongs to.
    module: String,
    /// Without the tests, which may use anything.
    code: String,
}

/// Cuts the test module off the end: it is the last item of its file by habit.
fn without_tests(text: &str) -> &str {
    let cut = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    &text[..cut]
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name == "tests" || name.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// Files whose `mod` line stands behind `#[cfg(test)]`, by name: they are tests too, whatever they are called.
fn test_modules(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().zip(text.lines().skip(1));
    let declared = lines.filter(|(first, _)| first.trim() == "#[cfg(test)]");
    declared.filter_map(|(_, second)| {
        second
            .trim()
            .trim_start_matches("pub ")
            .strip_prefix("mod ")?
            .strip_suffix(';')
    })
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = BTreeMap::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut tests = BTreeSet::new();
    for (path, text) in &texts {
        let folder = match path.file_name().unwrap().to_str().unwrap() {
            "mod.rs" | "lib.rs" | "main.rs" => path.parent().unwrap().to_owned(),
            _ => path.with_extension(""),
        };
        for name in test_modules(text) {
            tests.extend([folder.join(name).with_extension("rs"), folder.join(name).join("mod.rs")]);
            // With a `#[path]`, or a module beside its parent.
            tests.insert(path.with_file_name(format!("{name}.rs")));
        }
    }
    let files = texts.into_iter().filter(|(path, _)| !tests.contains(path));
    files
        .map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text))
        .filter(|(path, _)| path != Path::new("lib.rs") && !is_test_file(path))
        .map(|(path, text)| Source {
            module: path
                .iter()
                .next()
                .unwrap()
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned(),
            code: without_tests(&text).to_owned(),
            path,
        })
        .collect()
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The modules that a file names, as `crate::module` or (in `main`) `kv_storage::module`; braces are opened one level deep.
fn used_modules(code: &str) -> BTreeSet<String> {
    named_after(&["crate::", "kv_storage::"], code)
}

/// What stands behind one of these paths.
fn named_after(roots: &[&str], code: &str) -> BTreeSet<String> {
    let code: String = code.lines().map(without_comment).collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            let list = match rest.strip_prefix('{') {
                Some(group) => top_level_names(group),
                None => vec![rest],
            };
            for item in list {
                let name = item.trim_start();
                let end = name
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(name.len());
                used.insert(name[..end].to_owned());
            }
        }
    }
    used
}

/// The items of a brace group, up to its closing brace.
fn top_level_names(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn imports_point_one_way() {
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let modules: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(allowed) = may_use.get(source.module.as_str()) else {
            wrong.push(format!(
                "{}: module {} has no place in the order",
                source.path.display(),
                source.module
            ));
            continue;
        };
        for used in used_modules(&source.code) {
            if modules.contains(&used) && used != source.module && !allowed.contains(&used.as_str()) {
                wrong.push(format!(
                    "{}: {} may not use {used}",
                    source.path.display(),
                    source.module
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_of_the_parts_of_the_cluster_point_one_way() {
    let place = |name: &str| CLUSTER_PARTS.iter().position(|part| *part == name);
    let (mut wrong, mut met) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        let Ok(inside) = source.path.strip_prefix("node/cluster") else {
            continue;
        };
        // What lies beside the parts is for all of them.
        let part = inside.iter().next().unwrap_or_default().to_string_lossy().into_owned();
        let Some(own) = place(&part) else {
            assert!(inside.components().count() == 1, "{part} has no place in the order");
            continue;
        };
        met.insert(own);
        for used in named_after(&["crate::node::cluster::", "super::super::"], &source.code) {
            if place(&used).is_some_and(|used| used > own) {
                wrong.push(format!("{}: {part} may not use {used}", source.path.display()));
            }
        }
    }
    assert_eq!(met.len(), CLUSTER_PARTS.len(), "each part is there");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The modules in the order of the code map in `lib.rs`, and the program.
fn code_map() -> Vec<String> {
    let root = std::fs::read_to_string("src/lib.rs").unwrap();
    let rows = root.lines().filter(|line| line.starts_with("//! | [`"));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
    let mut names: Vec<String> = names
        .map(|name| name.trim().trim_matches(['[', ']', '`']).to_owned())
        .collect();
    names.push("main".to_owned());
    names
}

#[test]
fn what_may_be_used_stands_before_in_the_code_map() {
    let map = code_map();
    let place = |module: &str| map.iter().position(|name| name == module).unwrap();
    for (module, uses) in MAY_USE {
        for used in uses {
            assert!(place(used) < place(module), "{module} uses {used}");
        }
    }
}

#[test]
fn what_may_be_used_is_used() {
    let mut unused = BTreeSet::new();
    for (module, uses) in MAY_USE {
        unused.extend(uses.iter().map(|used| (module.to_owned(), (*used).to_owned())));
    }
    for source in sources() {
        for used in used_modules(&source.code) {
            unused.remove(&(source.module.clone(), used));
        }
    }
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn only_the_edge_asks_the_operating_system() {
    let mut wrong = Vec::new();
    for source in sources() {
        if EDGE.contains(&source.module.as_str()) {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            let line = without_comment(line).replace("tokio::time::Instant::now", "");
            let imported_timer = source.code.contains("use tokio::time::Instant") || source.code.contains("time::{");
            for word in ONLY_AT_THE_EDGE {
                let tokio_instant = word == "Instant::now" && imported_timer && !line.contains("std::time");
                if line.contains(word) && !tokio_instant {
                    wrong.push(format!("{}:{}: {word}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_membership_names_chitchat() {
    let named = |source: &Source| {
        source
            .code
            .lines()
            .any(|line| without_comment(line).contains("chitchat::"))
    };
    let wrong: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|source| named(source) && !source.path.starts_with("node/membership"))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_file_can_be_read_in_one_sitting() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.code.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|source| !source.code.trim_start().starts_with("//!") && !source.code.trim().is_empty())
        .map(|source| source.path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no module header: {silent:?}");
}

#[test]
fn the_code_map_has_a_row_for_every_module() {
    let (map, root) = (code_map(), std::fs::read_to_string("src/lib.rs").unwrap());
    let modules = root
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let missing: Vec<&str> = modules.filter(|module| !map.iter().any(|row| row == module)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The functions of a file: how many lines each has, from `fn` to the brace that closes it, and its first line.
fn functions(source: &Source) -> Vec<(usize, String)> {
    let lines: Vec<&str> = source.code.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_function = |line: &str| {
        let words = without_comment(line).trim_start();
        let before = words.split_once("fn ").map(|(before, _)| before);
        before.is_some_and(|before| {
            let known = ["pub", "async", "const", "unsafe", "in", "crate"];
            let mut modifiers = before.split(|c: char| !c.is_alphanumeric() && c != '_');
            before.starts_with("pub") || modifiers.all(|word| word.is_empty() || known.contains(&word))
        })
    };
    let starts = (0..lines.len()).filter(|at| is_function(lines[*at]));
    starts
        .filter_map(|start| {
            let closes = |line: &str| line.trim_end() == format!("{}}}", " ".repeat(indent(lines[start])));
            let has_no_body = |line: &str| indent(line) == indent(lines[start]) && line.trim_end().ends_with(';');
            let rest = lines[start..].iter();
            let end = rest.clone().position(|line| closes(line) || has_no_body(line))?;
            Some((end + 1, lines[start].trim().to_owned()))
        })
        .collect()
}

#[test]
fn every_function_is_short() {
    let mut wrong = Vec::new();
    let mut longest = 0;
    for source in sources() {
        for (lines, name) in functions(&source) {
            longest = longest.max(lines);
            if lines > FUNCTION_LINES_MAX {
                wrong.push(format!("{}: {lines} lines: {name}", source.path.display()));
            }
        }
    }
    assert!(longest > FUNCTION_LINES_MAX / 2, "functions are found no more");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
