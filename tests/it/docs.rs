//! Checks that the documentation agrees with the program, wherever this can be checked.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clap::error::ErrorKind;
use object_store::{aws::AmazonS3ConfigKey, azure::AzureConfigKey};
use signpost::{
    cli,
    config::schema,
    core::{entra::errors::ERRORS, verification},
};

use crate::ground_truth;
use crate::support::{components::variable, http_client::Request, port::Port, signpost::Signpost};

mod answers;
mod lists;
mod markdown;
mod shell;

use markdown::{page, pages, quoted, root, table};

#[test]
fn every_call_of_signpost_is_one_that_it_understands() {
    let mut seen = 0;
    for page in pages() {
        let name = page.path.display();
        for call in shell::pasted(&page) {
            seen += 1;
            if let Err(error) = cli::command().try_get_matches_from(&call) {
                panic!("{name}: `{}`: {error}", call.join(" "));
            }
        }
        for call in shell::mentioned(&page) {
            seen += 1;
            // Running text may mention a command without all its required arguments.
            let incomplete = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::MissingSubcommand,
                ErrorKind::DisplayHelp,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                ErrorKind::DisplayVersion,
            ];
            match cli::command().try_get_matches_from(&call) {
                Err(error) if !incomplete.contains(&error.kind()) => {
                    panic!("{name}: `{}`: {error}", call.join(" "))
                }
                _ => {}
            }
        }
    }
    assert!(seen > 20, "only {seen} calls were found");
}

#[test]
fn every_link_into_the_repository_leads_somewhere() {
    for page in pages() {
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.path.clone(),
                _ => page.path.parent().expect("a page has a folder").join(path),
            };
            let name = page.path.display();
            assert!(root().join(&target).exists(), "{name}: `{link}` leads nowhere");
            if !anchor.is_empty() {
                let anchors = markdown::page(normal(&target)).anchors;
                assert!(anchors.iter().any(|known| known == anchor), "{name}: `{link}` names no heading");
            }
        }
    }
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, component| {
        if component.as_os_str() == ".." {
            normal.pop();
        } else {
            normal.push(component);
        }
        normal
    })
}

#[test]
fn every_target_of_make_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("it is there");
    let known: BTreeSet<_> = makefile.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    for page in pages() {
        let blocks = page.blocks.iter().flat_map(|block| block.text.lines()).map(str::to_owned);
        let calls = blocks.chain(page.inline_code.iter().cloned());
        for call in calls.filter_map(|call| Some(call.trim().strip_prefix("make ")?.to_owned())) {
            let target = call.split_whitespace().next().expect("a word");
            assert!(known.contains(target), "{}: there is no `make {target}`", page.path.display());
        }
    }
}

#[test]
fn every_configuration_that_is_shown_is_accepted() {
    let mut seen = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "yaml" && is_config(&block.text)) {
            seen += 1;
            let folder = tempfile::tempdir().expect("a temporary folder");
            let file = folder.path().join("config.yaml");
            fs::write(&file, &block.text).expect("the folder can be written");
            let file = file.to_str().expect("a name of this test");
            let checked =
                Signpost::new(["config", "check", "--config", file]).finish(Duration::from_secs(30));
            assert_eq!(checked.code, Some(0), "{}: {}", page.path.display(), checked.stderr);
        }
    }
    assert!(seen > 0, "no configuration is shown");
}

fn is_config(yaml: &str) -> bool {
    yaml.lines().any(|line| line == "issuers:")
}

#[test]
fn the_reference_of_the_configuration_is_fresh() {
    let head = "# Configuration\n\nWritten by `make reference` from the structs of `src/config`; `signpost config schema` prints the \
                same as a JSON Schema.\n\n";
    let fresh = format!("{head}{}", schema::reference());
    is_fresh("docs/configuration.md", &fresh);
}

/// Writes the page instead, on request.
#[track_caller]
pub(crate) fn is_fresh(page: &str, fresh: &str) {
    let path = root().join(page);
    if variable("SIGNPOST_WRITE_REFERENCE").is_some() {
        fs::write(&path, fresh).expect("it can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "{page} is not fresh: run `make reference`");
}

#[test]
fn the_reference_of_the_checks_is_fresh() {
    let head = "# Checks\n\nWritten by `make reference` from `src/core/verification/checks/`. What the columns mean: \
                [verify.md](verify.md).\n\n";
    is_fresh("docs/checks.md", &format!("{head}{}", verification::reference()));
}

#[test]
fn the_schema_of_an_exchange_is_fresh() {
    is_fresh("docs/exchange.schema.json", &signpost::cli::exchange::json::schema());
}

#[test]
fn every_check_that_is_named_exists() {
    let known: BTreeSet<_> = verification::checks().map(|check| check.id).collect();
    let families: BTreeSet<_> = known.iter().filter_map(|id| Some(id.split_once('-')?.0)).collect();
    for page in pages() {
        let blocks = page.blocks.iter().map(|block| &block.text);
        let text = blocks.chain(&page.inline_code);
        let words = text.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
        for word in words.filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '-' || c == '8'))
        {
            let is_id = word.split_once('-').is_some_and(|(family, _)| families.contains(family));
            assert!(!is_id || known.contains(word), "{}: there is no check `{word}`", page.path.display());
        }
    }
}

/// Codes that can occur when a cluster's token is exchanged for one of Entra, whether an external check
/// predicts them or not: from the pages and user reports that the checks are based on.
const CODES: [u32; 70] = [
    // The request, the tenant, the client.
    900_023, 90_002, 5_000_224, 50_049, 900_382, 900_432, 900_439, 700_016, 700_011, 7_000_112, 50_020,
    900_144, 9_002_313, 7_000_218, 7_000_215, 7_000_222, 70_011, 1_002_012, 500_011, 70_003,
    // The assertion.
    50_027, 5_002_723, 5_002_727, 5_002_738, 90_014, 700_021, 700_027, 70_023,
    // The federated credential.
    70_025, 70_021, 700_211, 700_212, 7_002_121, 700_213, 7_002_137, 7_002_138, 700_223, 700_238, 7_002_381,
    70_052, 700_222, 700_226, 700_227, 700_229, 700_236, // Documents, key, signature, time.
    90_061, 50_166, 501_661, 900_612, 7_000_272, 7_000_274, 700_024, 50_013, 500_133,
    // Afterwards.
    65_001, 650_057, 65_005, 82_001, 82_002, 7_000_113, 7_000_114, 700_082, 70_008, 70_043, 50_173, 53_003,
    530_032, 50_076, 50_005, 50_196,
];

/// Each leads to a remedy: those of the flow, those that a check predicts, those that somebody has met.
#[test]
fn every_code_has_a_row_of_its_own() {
    let known: BTreeSet<_> = ERRORS.iter().map(|row| row.code).collect();
    let predicted = verification::checks().flat_map(|check| check.codes).copied();
    let met = ground_truth::witnesses().into_keys();
    let without: BTreeSet<_> =
        CODES.into_iter().chain(predicted).chain(met).filter(|code| !known.contains(code)).collect();
    assert!(without.is_empty(), "{without:?}");
}

/// At most two commands, which `every_call_of_signpost_is_one_that_it_understands` tries.
#[test]
fn two_commands_lead_from_any_code_to_its_cure() {
    let commands = &page("docs/entra.md").blocks[0].text;
    assert!(commands.lines().count() == 2 && commands.starts_with("signpost verify "), "{commands}");
}

#[test]
fn the_answers_of_entra_are_fresh() {
    const FROM: &str = "do not edit from here -->\n";
    const TO: &str = "<!-- to here -->";
    let text = page("docs/entra.md").text;
    let (before, rest) = text.split_once(FROM).expect("the mark is there");
    let (_, after) = rest.split_once(TO).expect("the mark is there");
    is_fresh("docs/entra.md", &format!("{before}{FROM}\n{}\n{TO}{after}", answers::tables()));
}

fn files_below(folder: &str) -> Vec<PathBuf> {
    let (mut files, mut unread) = (Vec::new(), vec![root().join(folder)]);
    while let Some(path) = unread.pop() {
        if path.is_dir() {
            unread
                .extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_test_that_proves_a_promise_exists() {
    let tests = ["src", "tests/it"].into_iter().flat_map(files_below);
    let code: String = tests.map(|path| fs::read_to_string(path).expect("UTF-8")).collect();
    let rows = table(&page("docs/architecture.md"), "| promise | in this version | proved by |");
    assert_eq!(rows.len(), 7);
    for test in rows.iter().flat_map(|row| quoted(&row[2])) {
        assert!(code.contains(&format!("fn {test}(")), "there is no test `{test}`");
    }
}

#[test]
fn every_decision_that_is_named_exists_and_is_listed() {
    let decisions: Vec<_> = fs::read_dir(root().join("docs/decisions"))
        .expect("they are there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    let index = page("docs/decisions/README.md");
    for decision in decisions.iter().filter(|name| *name != "README.md") {
        assert!(index.links.contains(decision), "docs/decisions/README.md does not list {decision}");
    }
    let manifests = ["Cargo.toml", "clippy.toml", "deny.toml"].map(|name| root().join(name));
    for path in manifests.into_iter().chain(files_below("src")) {
        let text = fs::read_to_string(&path).expect("UTF-8");
        for rest in text.split("docs/decisions/").skip(1) {
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let known = number.len() == 4 && decisions.iter().any(|name| name.starts_with(&number));
            assert!(known, "{}: no decision `{number}`", path.display());
        }
    }
}

#[test]
fn every_variable_of_the_environment_is_read() {
    /// One of `az`; one that is read under a name of `object_store`; and two that are documented as ignored.
    const OF_OTHERS: [&str; 4] =
        ["AZURE_CONFIG_DIR", "AZURE_STORAGE_KEY", "AWS_PROFILE", "AZURE_STORAGE_CONNECTION_STRING"];
    let mut read = BTreeSet::new();
    let mut commands = vec![cli::command()];
    while let Some(command) = commands.pop() {
        let variables = command.get_arguments().filter_map(|argument| argument.get_env());
        read.extend(variables.map(|variable| variable.to_string_lossy().into_owned()));
        commands.extend(command.get_subcommands().cloned());
    }
    let manifests = files_below("deploy").into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("UTF-8");
        (path, text)
    });
    for (path, text) in pages().into_iter().map(|page| (page.path, page.text)).chain(manifests) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.contains('_')) {
            let key = word.to_ascii_lowercase();
            let known = match word.split('_').next() {
                _ if OF_OTHERS.contains(&word) => true,
                Some("AZURE") => key.parse::<AzureConfigKey>().is_ok(),
                Some("AWS") => key.parse::<AmazonS3ConfigKey>().is_ok(),
                Some("SIGNPOST") => read.contains(word) || word == "SIGNPOST_TEST_CACHE",
                _ => true,
            };
            assert!(known, "{}: nothing reads `{word}`", path.display());
        }
    }
}

/// The location of the clone in the README.
const CLONE: &str = "/home/ada/signpost";

#[test]
fn a_newcomer_sees_what_the_readme_shows_and_what_is_printed_works_when_pasted() {
    let readme = page("README.md");
    let shown = |begin: &str| {
        let blocks = readme.blocks.iter().filter(|block| block.language == "text");
        let found = blocks.map(|block| &block.text).find(|text| text.starts_with(begin));
        found.unwrap_or_else(|| panic!("the README shows no `{begin}`"))
    };
    let clone = tempfile::tempdir().expect("a temporary folder");
    let (public, admin) = (Port::free().address(), Port::free().address());
    let mut running = Signpost::new(["run", "--listen", &public, "--admin-listen", &admin])
        .current_dir(clone.path())
        .start();
    running.wait_for_output("Stop it with Ctrl-C");
    running.wait_for_output("documents=\"jwks discovery\"");
    let said = running.stderr();
    let program = env!("CARGO_BIN_EXE_signpost");
    let as_in_readme = |text: &str| {
        text.replace(program, &format!("{CLONE}/target/debug/signpost"))
            .replace(clone.path().to_str().expect("a name of this test"), CLONE)
            .replace(&public, "127.0.0.1:8080")
            .replace(&admin, "127.0.0.1:9090")
    };
    let welcome = shown("Signpost signs and publishes by itself");
    assert!(as_in_readme(&said).contains(welcome.as_str()), "{said}");

    let pasted = said.lines().filter_map(|line| line.strip_prefix("  "));
    let (read, run): (Vec<_>, Vec<_>) = pasted
        .filter(|line| line.starts_with("curl -s ") || line.starts_with(program))
        .partition(|line| line.starts_with("curl"));
    assert_eq!((read.len(), run.len()), (2, 3), "{said}");
    for line in read {
        Request::get(line.trim_start_matches("curl -s ")).answer().expect_status(200).json();
    }
    let outputs: Vec<_> = run
        .iter()
        .map(|line| {
            let done = Command::new("sh").args(["-c", line]).output().expect("there is a shell");
            let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
            assert!(done.status.success(), "`{line}`: {out}{error}");
            as_in_readme(&out)
        })
        .collect();
    assert_eq!(&outputs[0], shown("accepted: a local"));

    running.terminate();
    running.finish(Duration::from_secs(30)).expect_code(0);
}

#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = page("CHANGELOG.md");
    let newest = changelog.text.lines().find(|line| line.starts_with("## [")).expect("a version");
    assert!(newest.starts_with(concat!("## [", env!("CARGO_PKG_VERSION"), "]")), "{newest}");
}
