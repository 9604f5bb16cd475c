//! Which module may import which: the table of `docs/architecture.md`, enforced.
//!
//! Written twice on purpose: there for people, here for the build. Comment lines and string literals are not
//! checked: they may name anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What one module may import of the others, and what its code must not name.
struct Rule {
    module: &'static str,
    may_import: &'static [&'static str],
    must_not_name: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        module: "core",
        may_import: &[],
        must_not_name: &[
            "tokio",
            "async",
            "axum",
            "kube",
            "object_store",
            "reqwest",
            "std::fs",
            "std::env",
            "std::net",
            "Instant",
            "SystemTime",
            "Timestamp::now",
            "rand_bytes",
        ],
    },
    Rule { module: "clock", may_import: &[], must_not_name: &["tokio"] },
    Rule {
        module: "blocking",
        may_import: &["files"],
        must_not_name: &["axum", "kube", "object_store", "reqwest"],
    },
    Rule {
        module: "files",
        may_import: &["clock"],
        must_not_name: &["axum", "kube", "object_store", "reqwest", "tokio"],
    },
    Rule {
        module: "http_client",
        may_import: &["blocking", "core"],
        must_not_name: &["axum", "hyper", "kube", "object_store"],
    },
    Rule {
        module: "kubernetes",
        may_import: &["blocking", "core", "http_client"],
        must_not_name: &["axum", "object_store", "reqwest"],
    },
    Rule {
        module: "kubernetes/events",
        may_import: &["core"],
        must_not_name: &["axum", "object_store", "reqwest", "tokio"],
    },
    Rule {
        module: "kubernetes/workloads",
        may_import: &["core"],
        must_not_name: &["axum", "object_store", "reqwest", "tokio"],
    },
    Rule {
        module: "announcements",
        may_import: &["core"],
        must_not_name: &["axum", "kube", "object_store", "reqwest", "tokio"],
    },
    Rule {
        module: "source",
        may_import: &[
            "announcements",
            "blocking",
            "core",
            "clock",
            "files",
            "http_client",
            "kubernetes",
            "telemetry",
        ],
        must_not_name: &["axum", "object_store"],
    },
    Rule {
        module: "target",
        may_import: &["blocking", "core", "clock", "files", "http_client", "telemetry"],
        must_not_name: &["axum", "kube"],
    },
    Rule {
        module: "store",
        may_import: &["announcements", "blocking", "core", "clock", "files", "kubernetes", "telemetry"],
        must_not_name: &["axum", "object_store", "reqwest"],
    },
    Rule {
        module: "http",
        may_import: &["blocking", "core", "clock", "files", "telemetry"],
        must_not_name: &["kube", "object_store", "reqwest"],
    },
    Rule {
        module: "signer",
        may_import: &["announcements", "blocking", "core", "clock", "files", "telemetry"],
        must_not_name: &["axum", "kube", "object_store", "reqwest", "std::net"],
    },
    Rule {
        module: "signer/keyring",
        may_import: &["core", "files"],
        must_not_name: &["async", "axum", "kube", "object_store", "reqwest", "std::net", "tokio", "tonic"],
    },
    Rule {
        module: "relying_party",
        may_import: &["core", "clock", "http_client", "telemetry"],
        must_not_name: &["axum", "kube", "object_store"],
    },
    Rule {
        module: "token_endpoint",
        may_import: &["core", "http_client"],
        must_not_name: &["axum", "kube", "object_store"],
    },
    Rule {
        module: "azure",
        may_import: &["blocking", "core", "http_client", "token_endpoint"],
        must_not_name: &["axum", "kube", "object_store"],
    },
    Rule {
        module: "telemetry",
        may_import: &["core", "clock"],
        must_not_name: &["axum", "kube", "object_store", "reqwest"],
    },
    Rule {
        module: "reconcile",
        may_import: &[
            "blocking",
            "core",
            "clock",
            "telemetry",
            "source",
            "target",
            "store",
            "kubernetes",
            "signer",
            "relying_party",
            "token_endpoint",
        ],
        must_not_name: &[
            "axum",
            "kube",
            "kubernetes::Access",
            "kubernetes::workloads",
            "object_store",
            "reqwest",
            "std::fs",
            "std::net",
        ],
    },
    Rule {
        module: "control",
        may_import: &["blocking", "core", "files"],
        must_not_name: &["axum", "kube", "object_store", "reqwest"],
    },
    Rule {
        module: "config",
        may_import: &["core"],
        must_not_name: &["axum", "kube", "object_store", "reqwest", "std::fs", "std::env", "tokio"],
    },
    Rule {
        module: "app",
        may_import: &[
            "config",
            "control",
            "blocking",
            "core",
            "clock",
            "kubernetes",
            "telemetry",
            "reconcile",
            "source",
            "target",
            "store",
            "http",
            "http_client",
            "signer",
            "relying_party",
            "token_endpoint",
            "azure",
        ],
        must_not_name: &["axum", "kube", "object_store", "reqwest"],
    },
    Rule {
        module: "cli",
        may_import: &[
            "app",
            "config",
            "control",
            "blocking",
            "core",
            "clock",
            "files",
            "telemetry",
            "reconcile",
        ],
        must_not_name: &["axum", "kube", "object_store", "openssl", "reqwest"],
    },
    Rule { module: "main", may_import: &["cli"], must_not_name: &["tokio"] },
];

/// The rooms of `core`, in an order in which each imports only those before it: no two import each other.
const ROOMS_OF_CORE: &[&str] = &[
    "text",
    "time",
    "calendar",
    "freshness",
    "service_account",
    "tls_fault",
    "open_files",
    "workload",
    "control_plane",
    "jose",
    "entra",
    "location",
    "signer",
    "ledger",
    "api_server_flags",
    "rotation",
    "events",
    "target_plan",
    "verification",
    "federation",
    "sts",
];

#[test]
fn modules_import_only_what_the_table_allows() {
    let faults: Vec<_> = RULES
        .iter()
        .flat_map(|rule| {
            product_code(rule.module).into_iter().flat_map(|file| {
                imports(&file)
                    .into_iter()
                    .filter(|import| {
                        Some(import.as_str()) != rule.module.split('/').next()
                            && !rule.may_import.contains(&import.as_str())
                    })
                    .map(|import| format!("{} imports `{import}`", file.path.display()))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    assert!(faults.is_empty(), "see docs/architecture.md:\n{}", faults.join("\n"));
}

#[test]
fn modules_do_not_name_what_the_table_forbids() {
    let faults: Vec<_> = RULES
        .iter()
        .flat_map(|rule| {
            product_code(rule.module).into_iter().flat_map(|file| {
                let named = rule.must_not_name.iter().filter(|word| names(&file.code, word));
                named.map(|word| format!("{} names `{word}`", file.path.display())).collect::<Vec<_>>()
            })
        })
        .collect();
    assert!(faults.is_empty(), "move that part to an edge, see docs/architecture.md:\n{}", faults.join("\n"));
}

#[test]
fn every_module_has_a_rule() {
    let mut modules = modules_in("src");
    modules.remove("lib");
    // A part of a module may have a stricter rule of its own.
    let whole = RULES.iter().filter(|rule| !rule.module.contains('/'));
    let ruled: BTreeSet<_> = whole.map(|rule| rule.module.to_owned()).collect();
    assert_eq!(modules, ruled);
}

#[test]
fn people_and_the_build_read_the_same_table() {
    let text = architecture();
    let (_, section) = text.split_once("## Imports").expect("the section is there");
    let section = section.split("\n## ").next().expect("a section has text");
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let [module, may_import, must_not_name] = line
            .trim_matches('|')
            .split('|')
            .map(quoted)
            .collect::<Vec<_>>()
            .try_into()
            .expect("three cells");
        (module.first().expect("a module").clone(), (may_import, must_not_name))
    });
    let people: BTreeMap<_, _> = rows.collect();
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let build = RULES
        .iter()
        .map(|rule| (rule.module.to_owned(), (owned(rule.may_import), owned(rule.must_not_name))))
        .collect::<BTreeMap<_, _>>();
    assert_eq!(people, build);
}

#[test]
fn rooms_of_core_import_only_rooms_before_them() {
    let mut rooms = modules_in("src/core");
    rooms.remove("tests");
    assert_eq!(rooms, ROOMS_OF_CORE.iter().map(|room| (*room).to_owned()).collect::<BTreeSet<_>>());
    let mut faults = Vec::new();
    for (number, room) in ROOMS_OF_CORE.iter().enumerate() {
        for file in product_code(&format!("core/{room}")) {
            // As many steps up as lead to `core`.
            let core = "super::".repeat(file.path.components().count() - 2);
            let imports = after(&file.code, "crate::core::").chain(after(&file.code, &core));
            let later = imports.filter(|import| ROOMS_OF_CORE[number + 1..].contains(&import.as_str()));
            faults.extend(later.map(|import| format!("{} imports `{import}`", file.path.display())));
        }
    }
    assert!(faults.is_empty(), "see docs/architecture.md:\n{}", faults.join("\n"));

    let text = architecture();
    let (_, order) = text.split_once("each room imports only those before it:").expect("the order is there");
    let order = order.split("\n\n").next().expect("a paragraph has text");
    assert_eq!(order.split('`').skip(1).step_by(2).collect::<Vec<_>>(), ROOMS_OF_CORE);
}

/// A longer file has more than one subject.
#[test]
fn no_file_of_the_source_is_longer_than_500_lines() {
    let mut too_long = Vec::new();
    let mut unread = vec![root().join("src")];
    while let Some(path) = unread.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("readable");
            unread.extend(entries.map(|entry| entry.expect("readable").path()));
            continue;
        }
        let lines = fs::read_to_string(&path).expect("UTF-8").lines().count();
        if lines > 500 {
            too_long.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert!(too_long.is_empty(), "split them by subject:\n{}", too_long.join("\n"));
}

/// What the walks of the page name is where they say.
#[test]
fn walks_lead_through_files_and_functions_that_exist() {
    let text = architecture();
    let (_, section) = text.split_once("## Three walks").expect("the section is there");
    let section = section.split("\n## ").next().expect("a section has text");
    let mut seen = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let [_, file, functions] = cells[..] else { panic!("{row}: expected three cells") };
        for file in quoted(file) {
            let code = fs::read_to_string(root().join("src").join(&file))
                .unwrap_or_else(|error| panic!("cannot read src/{file}: {error}"));
            for function in quoted(functions) {
                seen += 1;
                let heads = [format!("fn {function}("), format!("fn {function}<")];
                assert!(
                    heads.iter().any(|head| code.contains(head)),
                    "src/{file} has no function `{function}`"
                );
            }
        }
    }
    assert!(seen > 30, "only {seen} functions were found");
}

#[test]
fn imports_are_found_in_every_form_they_are_written_in() {
    let found = |path: &str, code: &str| {
        let file = SourceFile { path: PathBuf::from(path), code: code.to_owned() };
        imports(&file).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(found("src/cli/run.rs", "use crate::core::kid::Kid;"), ["core"]);
    assert_eq!(
        found("src/cli/run.rs", "use crate::{\n  app::{self, tokens},\n  core::{a::{b}, c},\n clock};"),
        ["app", "clock", "core"]
    );
    assert_eq!(found("src/cli/run.rs", "let x = crate::target::Target;"), ["target"]);
    assert_eq!(found("src/main.rs", "use signpost::cli::{self, report};"), ["cli"]);
    assert_eq!(found("src/cli/run.rs", "use super::super::target;"), ["target"]);
    assert_eq!(found("src/cli.rs", "use super::target;"), ["target"]);
    assert_eq!(found("src/cli/run.rs", "use super::load; super::say(x)"), [""; 0]);
}

#[test]
fn words_are_found_in_groups_and_not_in_longer_words() {
    assert!(names("use std::{\n    env, fs::File,\n};", "std::fs"));
    assert!(names("std::fs::read(path)", "std::fs"));
    assert!(names("use tokio::select;", "tokio"));
    assert!(!names("use tokio_util::sync;", "tokio"));
    assert!(!names("use rustix::fs::flock;", "std::fs"));
    assert!(!names(&without_texts(r#"say("start kube \" kube"); a('"'); b()"#), "kube"));
    assert!(names(&without_texts(r#"a('"'); kube::b("")"#), "kube"));
}

/// The modules of a folder, by the names of their files and folders.
fn modules_in(folder: &str) -> BTreeSet<String> {
    fs::read_dir(root().join(folder))
        .expect("the source is here")
        .map(|entry| entry.expect("readable").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

fn architecture() -> String {
    fs::read_to_string(root().join("docs/architecture.md")).expect("it is there")
}

/// A file of the product without its comment lines and the contents of its strings.
struct SourceFile {
    /// From the root of the package.
    path: PathBuf,
    code: String,
}

/// The files of a module, its tests left out: those may make keys, files and servers.
fn product_code(module: &str) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut unread = vec![PathBuf::from(format!("src/{module}.rs")), PathBuf::from(format!("src/{module}"))];
    while let Some(path) = unread.pop() {
        let full = root().join(&path);
        let is_test = matches!(path.file_stem().and_then(|stem| stem.to_str()), Some("tests"));
        if is_test || !full.exists() {
            continue;
        }
        if full.is_dir() {
            let entries = fs::read_dir(&full).expect("readable");
            unread.extend(entries.map(|entry| path.join(entry.expect("readable").file_name())));
        } else {
            let text = fs::read_to_string(&full).expect("UTF-8");
            let code = text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//"));
            let code = without_texts(&code.collect::<String>());
            files.push(SourceFile { path, code });
        }
    }
    assert!(!files.is_empty(), "there is no module `{module}`");
    files
}

/// The code with empty strings: messages may name what they like.
fn without_texts(code: &str) -> String {
    let (mut kept, mut inside, mut before) = (String::new(), false, ' ');
    for c in code.chars() {
        // A quote as a character is none, and a backslash takes the meaning of what follows it.
        let quote = c == '"' && before != '\\' && before != '\'';
        inside ^= quote;
        if !inside || quote {
            kept.push(c);
        }
        before = if before == '\\' { ' ' } else { c };
    }
    kept
}

/// The modules of the crate's root that a file names.
fn imports(file: &SourceFile) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut roots = vec!["crate::".to_owned(), "signpost::".to_owned()];
    // As many steps up as the file is deep lead to the root of the crate as well.
    roots.push("super::".repeat(file.path.components().count() - 1));
    for root in roots {
        found.extend(after(&file.code, &root));
    }
    found
}

/// The segments that follow a path such as `crate::`, wherever it begins.
fn after<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    code.match_indices(path)
        .filter(|(start, _)| !code[..*start].ends_with(|c: char| is_word(c) || c == ':'))
        .flat_map(|(start, _)| first_segments(&code[start + path.len()..]))
}

/// The first segment of a path, or of each path of a group.
fn first_segments(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let mut segments = Vec::new();
    match rest.strip_prefix('{') {
        None => segments.push(word(rest)),
        Some(group) => {
            let mut depth = 1;
            segments.push(word(group.trim_start()));
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => segments.push(word(group[at + 1..].trim_start())),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

/// Whether the code has the word, and not as a part of a longer one; `a::b` also as `a::{b}`.
fn names(code: &str, word: &str) -> bool {
    let in_group = word
        .rsplit_once("::")
        .is_some_and(|(path, last)| after(code, &format!("{path}::")).any(|segment| segment == last));
    in_group
        || code.match_indices(word).any(|(start, _)| {
            let (before, after) = (&code[..start], &code[start + word.len()..]);
            !before.ends_with(is_word) && !after.starts_with(is_word)
        })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What stands between backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
