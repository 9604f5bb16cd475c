//! Two processes, two ledgers, or manual edits on one target: no keys are lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::azurite::{self, Azurite};
use crate::support::http_client::Response;
use crate::support::installation::{
    DISCOVERY, DOCUMENTS, Installation, JWKS, Service, azure_target, directory_target, files, s3_target,
};
use crate::support::pki::KeyFiles;
use crate::support::port::Port;
use crate::support::s3::S3;

const ISSUER: &str = "https://oidc.example/shared";
/// Their names, in the order of [`Stores::settings`].
const TARGETS: [&str; 3] = ["azure", "s3", "directory"];

/// One target of each kind.
struct Stores {
    azurite: Azurite,
    s3: S3,
    folder: TempDir,
}

impl Stores {
    fn start() -> Self {
        let (azurite, s3) = thread::scope(|scope| {
            let azurite = scope.spawn(Azurite::start);
            let s3 = S3::start();
            (azurite.join().expect("Azurite starts"), s3)
        });
        azurite.create_public_container("oidc");
        s3.create_bucket("oidc");
        Self { azurite, s3, folder: TempDir::new().expect("a temporary folder") }
    }

    fn key(&self, name: &str) -> PathBuf {
        KeyFiles::rsa(self.folder.path(), name).public
    }

    fn public(&self) -> PathBuf {
        self.folder.path().join("public")
    }

    fn settings(&self, keys: &[&Path]) -> Value {
        let azure = self.azurite.url();
        json!({
            "sources": [files(keys)],
            "targets": [
                azure_target(azure.trim_end_matches(&format!("/{}", azurite::ACCOUNT)), "oidc/c1"),
                s3_target(&self.s3.url(), "oidc/c1"),
                directory_target(&self.public()),
            ],
        })
    }

    /// Everything in the three targets, including headers and modification times.
    fn everything(&self) -> Vec<String> {
        let told = |answer: Response| {
            if answer.status != 200 {
                return answer.status.to_string();
            }
            let kept = ["etag", "last-modified", "content-type", "cache-control"];
            let is_kept = |name: &str| kept.contains(&name) || name.contains("signpost");
            let mut headers: Vec<_> =
                answer.headers.iter().filter(|(name, _)| is_kept(name.as_str())).collect();
            headers.sort_by_key(|(name, _)| name.as_str());
            format!("{headers:?} {}", answer.text())
        };
        let mut everything = Vec::new();
        for document in DOCUMENTS {
            everything.push(told(self.azurite.get(&format!("oidc/c1/{document}"))));
            everything.push(told(self.s3.get(&format!("/oidc/c1/{document}"))));
            let file = self.public().join(document);
            let modified = fs::metadata(&file).and_then(|metadata| metadata.modified());
            everything.push(format!("{modified:?} {:?}", fs::read_to_string(file)));
        }
        everything.push(format!("{:?}", fs::read_to_string(self.public().join(".signpost.json"))));
        everything
    }

    /// The kids in each target.
    fn kids(&self) -> [Vec<String>; 3] {
        [
            kids(&self.azurite.get(&format!("oidc/c1/{JWKS}")).expect_status(200).text()),
            kids(&self.s3.get(&format!("/oidc/c1/{JWKS}")).expect_status(200).text()),
            kids(&fs::read_to_string(self.public().join(JWKS)).expect("it is there")),
        ]
    }
}

#[test]
fn another_ledger_is_refused_until_the_operator_says_that_it_takes_over() {
    let stores = Stores::start();
    let (old, both) = (stores.key("old"), stores.key("both"));
    let first = Installation::new(ISSUER, &stores.settings(&[&old, &both]));
    let second = Installation::new(ISSUER, &stores.settings(&[&both]));
    first.sync().expect_code(0);
    let before = stores.everything();
    let old_kid = kid(&first, &old);

    // Refused, each with the same message.
    let refused = second.sync().expect_code(2);
    let (theirs, ours) = (lineage(&first), lineage(&second));
    assert_ne!(theirs, ours);
    let expected = TARGETS.map(|target| {
        format!(
            "error: cannot publish to target `{target}`\n  \
             cause: it belongs to lineage `{theirs}`, this ledger has lineage `{ours}`\n  \
             hint: use the data directory that published before; if its ledger is lost, run `signpost sync --adopt`; if another publisher writes there, choose another target\n"
        )
    });
    assert_eq!(refused.stderr, expected.concat());
    second.finish(["sync", "--dry-run"]).expect_code(2);
    assert_eq!(stores.everything(), before);

    // A service serves its own ledger, and leaves the targets unchanged too.
    let mut service = second.run_until_ready();
    for target in TARGETS {
        service.until("it is refused", |service| service.target(target)["failures"].as_u64() >= Some(2));
        assert_eq!(service.metric("signpost_target_up", target), Some(0.0));
    }
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(stores.everything(), before);

    // The key that only the targets had survives the adoption.
    second.finish(["sync", "--adopt"]).expect_code(0);
    for kids in stores.kids() {
        assert_eq!(kids.len(), 2, "{kids:?}");
        assert!(kids.contains(&old_kid), "{kids:?}");
    }
    let shown = second.finish(["ledger", "show"]).expect_code(0).stdout;
    let row = shown.lines().find(|row| row.contains(&old_kid)).expect("the ledger knows it");
    assert!(row.contains("unlisted since"), "{shown}");
    assert!(shown.lines().any(|row| row.contains(&old_kid) && row.contains("adopted")), "{shown}");

    // From now on the first installation is no longer the owner.
    let after = stores.everything();
    let refused = first.sync().expect_code(2);
    let words = format!("it belongs to lineage `{ours}`, this ledger has lineage `{theirs}`");
    assert_eq!(refused.stderr.matches(&words).count(), 3, "{}", refused.stderr);
    assert_eq!(stores.everything(), after);
}

#[test]
fn the_documents_of_another_issuer_are_not_overwritten() {
    let stores = Stores::start();
    let key = stores.key("key");
    let installation = Installation::new(ISSUER, &stores.settings(&[&key]));
    let theirs = json!({
        "issuer": "https://somebody.example",
        "jwks_uri": "https://somebody.example/openid/v1/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
    .to_string();
    stores.azurite.put(&format!("oidc/c1/{DISCOVERY}"), "application/json", theirs.clone());
    stores.s3.put(&format!("/oidc/c1/{DISCOVERY}"), "application/json", theirs.as_bytes());
    fs::create_dir_all(stores.public().join(".well-known")).expect("the folder can be written");
    fs::write(stores.public().join(DISCOVERY), &theirs).expect("the folder can be written");
    let before = stores.everything();

    let refused = installation.sync().expect_code(2);
    for target in TARGETS {
        let words = format!(
            "error: cannot publish to target `{target}`\n  \
             cause: it holds the discovery document of issuer `https://somebody.example`, expected `{ISSUER}`\n  \
             hint: correct `issuer`, publish to another target, or take this one over with `signpost sync --adopt`\n"
        );
        assert!(refused.stderr.contains(&words), "{}", refused.stderr);
    }
    assert_eq!(stores.everything(), before);
    installation.finish(["sync", "--adopt"]).expect_code(0);
    assert_eq!(stores.kids().map(|kids| kids.len()), [1, 1, 1]);
}

#[test]
fn a_second_service_on_a_data_directory_says_so_and_does_no_harm() {
    let folder = TempDir::new().expect("a temporary folder");
    let key = KeyFiles::rsa(folder.path(), "key").public;
    let installation = Installation::new(ISSUER, &json!({"sources": [files(&[&key])]}));
    let mut service = installation.run_until_ready();
    let (good, ledger) = (service.served(), fs::read(installation.ledger_file()).expect("a ledger"));

    let ports = [Port::free(), Port::free()];
    let second = installation
        .verb(["run"])
        .env("SIGNPOST_LISTEN", ports[0].address())
        .env("SIGNPOST_ADMIN_LISTEN", ports[1].address())
        .finish(Duration::from_secs(20))
        .expect_code(2);
    assert_eq!(second.stdout, "");
    assert_eq!(
        second.stderr,
        format!(
            "error: another signpost runs on data directory `{}`\n  \
             hint: stop it first, or pass another `--data-dir`\n",
            installation.data_dir().display()
        )
    );
    assert_eq!(fs::read(installation.ledger_file()).expect("a ledger"), ledger);
    service.until("it goes on", |service| service.source()["answers"].as_u64() >= Some(3));
    assert_eq!(service.served(), good);

    // A killed process leaves nothing that would block its successor.
    service.running.kill();
    drop(service);
    assert_eq!(installation.run_until_ready().served(), good);
}

#[test]
fn passes_beside_a_service_lose_none_of_each_others_updates() {
    const COUNT: usize = 6;
    let folder = TempDir::new().expect("a temporary folder");
    let public = folder.path().join("public");
    let first = KeyFiles::rsa(folder.path(), "first").public;
    let settings = json!({"sources": [files(&[&first])], "targets": [directory_target(&public)]});
    let installation = Installation::new(ISSUER, &settings);
    let mut service = installation.run_until_ready();
    let keys: Vec<PathBuf> =
        (0..COUNT).map(|number| KeyFiles::rsa(folder.path(), &number.to_string()).public).collect();

    // Each pass has a key of its own, and all of them write at once.
    thread::scope(|scope| {
        for key in &keys {
            let sync = installation.verb(
                ["sync", "--source"]
                    .map(std::ffi::OsString::from)
                    .into_iter()
                    .chain([key.clone().into_os_string()]),
            );
            scope.spawn(move || {
                let done = sync.finish(Duration::from_secs(90));
                // It may lose a race for the target, which its successor repairs, but never an update.
                assert!(matches!(done.code, Some(0 | 2)), "{done:?}");
            });
        }
    });
    let mut expected: Vec<String> = keys.iter().chain([&first]).map(|key| kid(&installation, key)).collect();
    expected.sort();
    let ledger = installation.ledger();
    let known: Vec<&String> = ledger["keys"].as_object().expect("keys").keys().collect();
    assert_eq!(known, expected.iter().collect::<Vec<_>>());
    let appeared = ledger["changes"].as_array().expect("changes").iter();
    let appeared = appeared.filter(|change| change["kind"] == "appeared").count();
    assert_eq!(appeared, COUNT + 1);

    service.until("it serves all", |service| kids(&service.get(JWKS).text()) == expected);
    service.until("the target shows all", |_| {
        fs::read_to_string(public.join(JWKS)).is_ok_and(|jwks| kids(&jwks) == expected)
    });
    assert!(service.running.is_running());
}

#[test]
fn what_a_pass_beside_a_service_removed_does_not_come_back_from_its_memory() {
    let folder = TempDir::new().expect("a temporary folder");
    let public = folder.path().join("public");
    let [stays, leaves] = ["stays", "leaves"].map(|name| KeyFiles::rsa(folder.path(), name).public);
    // The service polls once and then only checks its target, every minute.
    let mut source = files(&[&stays, &leaves]);
    source["every"] = json!("1h");
    let mut settings = json!({"sources": [source], "targets": [directory_target(&public)]});
    settings["schedule"] = json!("* * * * *");
    let installation = Installation::new(ISSUER, &settings);
    let mut service = installation.run_until_ready();
    let left = kid(&installation, &leaves);
    let shown = || fs::read_to_string(public.join(JWKS)).is_ok_and(|jwks| jwks.contains(&left));
    service.until("the target shows both", |_| shown());

    let pass =
        || installation.finish(["sync".as_ref(), "--source".as_ref(), stays.as_os_str()]).expect_code(0);
    pass();
    // With an entry for it, or the service would repair it.
    let mut aged = installation.ledger();
    let long_ago = json!("2026-01-01T00:00:00Z");
    aged["keys"][&left]["state"]["missing"]["since"] = long_ago.clone();
    let record = json!({"at": long_ago, "kid": left, "kind": "went_missing"});
    aged["changes"].as_array_mut().expect("changes").push(record);
    aged["sequence"] = json!(aged["sequence"].as_u64().expect("a number") + 1);
    fs::write(installation.ledger_file(), aged.to_string()).expect("stored");
    pass();
    assert!(!shown(), "its retention is over");

    let count = |service: &Service, what: &str| service.target("directory")[what].as_u64().expect("a number");
    let (checks, writes) = (count(&service, "checks"), count(&service, "writes"));
    service.until("the service looks again", |service| count(service, "checks") > checks);
    assert_eq!(count(&service, "writes"), writes, "it came back, if only for a moment");
    assert!(!shown());
    assert!(!service.get(JWKS).text().contains(&left));
}

#[test]
fn a_key_that_somebody_uploads_stays_where_it_is_until_it_is_adopted() {
    let stores = Stores::start();
    let (key, stranger) = (stores.key("key"), stores.key("stranger"));
    let installation = Installation::new(ISSUER, &stores.settings(&[&key]));
    let mut service = installation.run_until_ready();
    all_true(&mut service);
    let (ours, theirs) = (kid(&installation, &key), kid(&installation, &stranger));

    stores.azurite.put(&format!("oidc/c1/{JWKS}"), "text/plain", jwks(&installation, &[&stranger]));
    // The next observation is that of a pass beside the service.
    let told = installation.sync().expect_code(0).stdout;
    assert!(told.contains("1 unmanaged key (see `signpost ledger show`)"), "{told}");
    let mut both = [ours.clone(), theirs.clone()].to_vec();
    both.sort();
    let alone = vec![ours.clone()];
    assert_eq!(stores.kids(), [both.clone(), alone.clone(), alone.clone()], "it spread, or was lost");
    let put_right = stores.azurite.get(&format!("oidc/c1/{JWKS}"));
    assert_eq!(put_right.header("content-type"), Some("application/json"));

    service.until("the alarm rings", |service| service.status()["unmanaged_keys"] == json!([theirs]));
    assert_eq!(service.metric("signpost_unmanaged_keys", ISSUER), Some(1.0));
    assert_eq!(kids(service.served().jwks()), alone);
    let shown = installation.finish(["ledger", "show"]).expect_code(0).stdout;
    let row = shown.lines().find(|row| row.contains(&theirs)).expect("the ledger knows it");
    assert!(row.contains("unmanaged") && row.ends_with("azure"), "{shown}");

    installation.finish(["ledger", "adopt", "--", &theirs]).expect_code(0);
    service.until("it is served", |service| kids(&service.get(JWKS).text()) == both);
    service.until("it is everywhere", |_| stores.kids() == [both.clone(), both.clone(), both.clone()]);
    service
        .until("the alarm is over", |service| service.metric("signpost_unmanaged_keys", ISSUER) == Some(0.0));
    let unknown = installation.finish(["ledger", "adopt", "nobody"]).expect_code(2);
    assert_eq!(
        unknown.stderr,
        "error: kid `nobody` is unknown\n  hint: `signpost ledger show` prints every kid\n"
    );
}

#[test]
fn what_somebody_edits_or_deletes_is_put_right_with_the_next_pass() {
    let stores = Stores::start();
    let installation = Installation::new(ISSUER, &stores.settings(&[&stores.key("key")]));
    installation.sync().expect_code(0);
    let good = stores.kids();

    // Deleted in one target, edited in another.
    stores.azurite.delete(&format!("oidc/c1/{JWKS}"));
    stores.s3.put(&format!("/oidc/c1/{DISCOVERY}"), "text/html", b"<h1>Moved</h1>");
    fs::write(stores.public().join(JWKS), r#"{"keys":[]}"#).expect("it can be written");
    let plan = installation.finish(["sync", "--dry-run"]).expect_code(1).stdout;
    assert_eq!(plan.matches("would write").count(), 3, "{plan}");
    let told = installation.sync().expect_code(0).stdout;
    assert_eq!(told.matches("wrote jwks").count(), 2, "{told}");
    assert_eq!(told.matches("wrote discovery").count(), 1, "{told}");
    assert_eq!(stores.kids(), good);
    installation.finish(["sync", "--dry-run"]).expect_code(0);

    // The reverse, and a service that starts.
    stores.s3.delete(&format!("/oidc/c1/{JWKS}"));
    fs::remove_file(stores.public().join(DISCOVERY)).expect("it is there");
    stores.azurite.put(&format!("oidc/c1/{JWKS}"), "application/json", "{}");
    let mut service = installation.run_until_ready();
    all_true(&mut service);
    assert_eq!(stores.kids(), good);
    // Only the headers are wrong.
    service.stop();
    let bytes = stores.azurite.get(&format!("oidc/c1/{JWKS}")).body;
    stores.azurite.put(&format!("oidc/c1/{JWKS}"), "text/plain", bytes);
    installation.sync().expect_code(0);
    let azure = stores.azurite.get(&format!("oidc/c1/{JWKS}"));
    assert_eq!(azure.header("content-type"), Some("application/json"));
    assert_eq!(azure.header("x-ms-meta-signpostlineage"), Some(lineage(&installation).as_str()));
}

/// A lost ledger must not lose keys, and does not permit taking over a target without confirmation.
#[test]
fn a_lost_ledger_is_a_new_lineage_that_asks_first() {
    let stores = Stores::start();
    let (old, new) = (stores.key("old"), stores.key("new"));
    let installation = Installation::new(ISSUER, &stores.settings(&[&old]));
    installation.sync().expect_code(0);
    let before = stores.everything();
    fs::remove_dir_all(installation.data_dir()).expect("it is there");
    installation.configure(&stores.settings(&[&new]));

    let refused = installation.sync().expect_code(2);
    assert!(refused.stderr.contains("`signpost sync --adopt`"), "{}", refused.stderr);
    assert_eq!(stores.everything(), before);
    installation.finish(["sync", "--adopt"]).expect_code(0);
    let mut both = vec![kid(&installation, &old), kid(&installation, &new)];
    both.sort();
    assert_eq!(stores.kids(), [both.clone(), both.clone(), both]);
}

fn all_true(service: &mut Service) {
    service.until("all targets are true", |service| {
        TARGETS.iter().all(|target| service.target(target)["up"] == true)
    });
}

fn lineage(installation: &Installation) -> String {
    installation.ledger()["lineage"].as_str().expect("a text").to_owned()
}

/// The JWKS that an administrator would build by hand.
fn jwks(installation: &Installation, keys: &[&Path]) -> String {
    let mut verb = vec!["jwks".to_owned()];
    for key in keys {
        verb.extend(["--source".to_owned(), key.display().to_string()]);
    }
    installation.finish(verb).expect_code(0).stdout
}

fn kid(installation: &Installation, key: &Path) -> String {
    kids(&jwks(installation, &[key])).remove(0)
}

/// Sorted; empty when it is not a JWKS.
fn kids(jwks: &str) -> Vec<String> {
    let jwks: Value = serde_json::from_str(jwks).unwrap_or_default();
    let keys = jwks["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut kids: Vec<String> =
        keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect();
    kids.sort();
    kids
}
