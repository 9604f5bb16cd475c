//! Publishes to several real services at once, some of which fail.

use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::azurite::{self, Azurite};
use crate::support::fault_proxy::{Action, FaultProxy, Rule};
use crate::support::http_client::Request;
use crate::support::installation::{
    DISCOVERY, DOCUMENTS, Installation, JWKS, Service, azure_target, directory_target, files, s3_target,
};
use crate::support::pki::KeyFiles;
use crate::support::s3::S3;

const ISSUER: &str = "https://oidc.example/targets";

/// Both stores, each behind a proxy, and a directory.
struct Stores {
    azurite: Azurite,
    s3: S3,
    before_azurite: FaultProxy,
    before_s3: FaultProxy,
    folder: TempDir,
    key: KeyFiles,
}

impl Stores {
    fn start() -> Self {
        let (azurite, s3) = thread::scope(|scope| {
            let azurite = scope.spawn(Azurite::start);
            let s3 = S3::start();
            (azurite.join().expect("Azurite starts"), s3)
        });
        azurite.create_public_container("$web");
        s3.create_bucket("oidc");
        let folder = TempDir::new().expect("a temporary folder");
        Self {
            before_azurite: FaultProxy::start(azurite.url().trim_end_matches(azurite::ACCOUNT)),
            before_s3: FaultProxy::start(&s3.url()),
            key: KeyFiles::rsa(folder.path(), "key"),
            azurite,
            s3,
            folder,
        }
    }

    /// An installation that publishes to all three.
    fn installation(&self) -> Installation {
        Installation::new(ISSUER, &self.settings(&[&self.key.public]))
    }

    fn settings(&self, keys: &[&Path]) -> Value {
        json!({
            "sources": [files(keys)],
            "targets": [
                azure_target(&self.before_azurite.url(), "$web"),
                s3_target(&self.before_s3.url(), "oidc/c1"),
                directory_target(&self.directory()),
            ],
        })
    }

    fn directory(&self) -> std::path::PathBuf {
        self.folder.path().join("public")
    }

    fn proxies(&self) -> [(&'static str, &FaultProxy); 2] {
        [("azure", &self.before_azurite), ("s3", &self.before_s3)]
    }

    /// The content of each target at a path; `None` where there is none.
    fn holds(&self, document: &str) -> [Option<Vec<u8>>; 3] {
        let azure = self.azurite.get(&format!("$web/{document}"));
        let s3 = self.s3.get(&format!("/oidc/c1/{document}"));
        let file = std::fs::read(self.directory().join(document)).ok();
        [(azure.status == 200).then_some(azure.body), (s3.status == 200).then_some(s3.body), file]
    }

    #[track_caller]
    fn assert_all_agree(&self) {
        for document in DOCUMENTS {
            let [azure, s3, file] = self.holds(document);
            assert!(file.is_some(), "{document} is missing");
            assert_eq!((azure, s3), (file.clone(), file), "{document}");
        }
    }
}

fn writes(proxy: &FaultProxy) -> usize {
    proxy.count("PUT", "")
}

#[test]
fn a_write_whose_answer_is_lost_is_recognised_as_our_own() {
    let stores = Stores::start();
    let installation = stores.installation();
    for (_, proxy) in stores.proxies() {
        proxy.script([Rule::new(Action::LoseAnswer).method("PUT").path_contains(JWKS).once()]);
    }
    installation.sync().expect_code(0);
    stores.assert_all_agree();
    for (name, proxy) in stores.proxies() {
        assert!(writes(proxy) <= 3, "{name}: {} writes", writes(proxy));
        proxy.forget();
    }
    let again = installation.sync().expect_code(0);
    assert_eq!(again.stdout.matches("unchanged").count(), 3, "{}", again.stdout);
    for (name, proxy) in stores.proxies() {
        assert_eq!(writes(proxy), 0, "{name} is written again");
    }

    // Every answer to a write is lost, including the read back: the next pass reads the actual state.
    let fresh = Stores::start();
    let installation = fresh.installation();
    for (_, proxy) in fresh.proxies() {
        proxy.script([Rule::new(Action::LoseAnswer).method("PUT")]);
    }
    installation.sync();
    for (_, proxy) in fresh.proxies() {
        proxy.script([]);
        proxy.forget();
    }
    installation.sync().expect_code(0);
    fresh.assert_all_agree();
    for (name, proxy) in fresh.proxies() {
        assert!(writes(proxy) <= 1, "{name}: the JWKS was there already, {} writes", writes(proxy));
    }
}

#[test]
fn a_store_that_is_busy_or_cuts_a_connection_is_asked_again() {
    let stores = Stores::start();
    let busy = || Action::Answer { status: 503, headers: vec![("retry-after", "0")], body: "" };
    stores.before_azurite.script([Rule::new(busy()).times(2)]);
    stores.before_s3.script([Rule::new(Action::Cut).method("GET").once()]);
    stores.installation().sync().expect_code(0);
    stores.assert_all_agree();
}

#[test]
fn a_target_that_fails_stops_no_other_and_says_what_to_do() {
    let stores = Stores::start();
    let installation = stores.installation();
    let denied = Action::Answer { status: 403, headers: vec![], body: "" };
    stores.before_s3.script([Rule::new(denied).method("PUT")]);
    let failed = installation.sync().expect_code(2);
    let rows: Vec<Vec<&str>> = failed.stdout.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["source", "files", "1", "key"],
            vec!["target", "azure", "wrote", "jwks", "and", "discovery"],
            vec!["target", "s3", "failed"],
            vec!["target", "directory", "wrote", "jwks", "and", "discovery"],
        ]
    );
    assert_eq!(
        failed.stderr,
        "error: cannot write `openid/v1/jwks` of target `s3`\n  \
         cause: access denied\n  \
         hint: give the writer `s3:GetObject` and `s3:PutObject` on `arn:aws:s3:::oidc/c1/*` and \
         `s3:ListBucket` on `arn:aws:s3:::oidc`; if it has them, check `AWS_ROLE_ARN` and \
         `AWS_WEB_IDENTITY_TOKEN_FILE`, or `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`\n"
    );
    let [azure, s3, file] = stores.holds(DISCOVERY);
    assert!(azure.is_some() && file.is_some());
    assert_eq!(s3, None, "a discovery document that points at nothing");

    stores.before_s3.script([]);
    let repaired = installation.sync().expect_code(0);
    assert_eq!(repaired.stdout.matches("unchanged").count(), 2, "{}", repaired.stdout);
    stores.assert_all_agree();
}

#[test]
fn a_service_publishes_at_once_where_it_can_and_tries_the_rest_again() {
    let mut stores = Stores::start();
    stores.before_azurite.stop();
    let installation = stores.installation();
    let mut service = installation.run();
    // The fault lasts until this holds, so a target that waited for it would never sync.
    service.until("the others are true", |service| {
        ["s3", "directory"].iter().all(|target| service.target(target)["up"] == true)
    });
    service.until("the failure is seen", |service| service.target("azure")["failures"].as_u64() >= Some(1));
    assert_eq!(service.metric("signpost_target_up", "azure"), Some(0.0));
    let error = service.target("azure")["error"].take();
    assert!(error.as_str().is_some_and(|error| error.contains("cannot connect")), "{error}");
    assert_eq!((service.admin("/readyz").status, service.admin("/healthz").status), (200, 200));

    stores.before_azurite.restart();
    service.until("it is tried again", |service| service.target("azure")["up"] == true);
    assert_eq!(service.metric("signpost_target_up", "azure"), Some(1.0));
    assert_eq!(service.target("azure")["error"], Value::Null);
    stores.assert_all_agree();
    let lines = |service: &Service, what: &str| {
        let log = service.running.stderr();
        log.lines().filter(|line| line.contains("target=\"azure\"") && line.contains(what)).count()
    };
    service.until("it is logged", |service| lines(service, "target is in sync again") > 0);
    assert_eq!(lines(&service, "target is in sync again"), 1);
    // One line, however often it was tried.
    assert_eq!(lines(&service, "cannot connect"), 1);
}

/// A concurrent write happens between our read and our write.
#[test]
fn a_lost_race_is_decided_again_on_what_is_there_then() {
    let stores = Stores::start();
    let installation = stores.installation();
    installation.sync().expect_code(0);
    let stranger = KeyFiles::rsa(stores.folder.path(), "stranger");
    let next = KeyFiles::rsa(stores.folder.path(), "next");
    let by_hand = jwks(&installation, &[&stores.key.public, &stranger.public]);
    let kid = only_kid(&jwks(&installation, &[&stranger.public]));
    installation.configure(&stores.settings(&[&stores.key.public, &next.public]));

    let url = format!("{}/$web/{JWKS}?{}", stores.azurite.url(), azurite::sas("rw"));
    let body = by_hand.clone();
    stores.before_azurite.script([Rule::new(Action::Pass)
        .method("PUT")
        .path_contains(JWKS)
        .when(move |_| {
            let put = Request::new("PUT", &url).header("x-ms-blob-type", "BlockBlob");
            put.body(body.clone()).answer().expect_status(201);
            true
        })
        .once()]);
    installation.sync().expect_code(0);
    assert_eq!(stores.before_azurite.count("PUT", JWKS), 2 + 1, "one was lost");
    let [azure, s3, _] = stores.holds(JWKS);
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("it is there")).expect("text");
    assert!(text(azure).contains(&kid), "what somebody wrote was overwritten blindly");
    assert!(!text(s3).contains(&kid), "it spread");
}

#[test]
fn a_writer_who_never_stops_is_named_and_not_fought() {
    let stores = Stores::start();
    let installation = stores.installation();
    // Every condition fails, as with a permanent concurrent writer.
    let raced = Action::Answer {
        status: 412,
        headers: vec![("content-type", "application/xml")],
        body: "<Error><Code>PreconditionFailed</Code></Error>",
    };
    stores.before_s3.script([Rule::new(raced).method("PUT")]);
    let failed = installation.sync().expect_code(2);
    assert_eq!(
        failed.stderr,
        "error: gave up after 5 rounds\n  \
         cause: `openid/v1/jwks` of target `s3` has changed since it was read\n  \
         hint: find out who else writes to this target, and stop it\n"
    );
    assert_eq!(stores.before_s3.count("PUT", JWKS), 5);
    assert_eq!(stores.holds(JWKS)[1], None);
}

/// The JWKS that an administrator would build by hand.
fn jwks(installation: &Installation, keys: &[&Path]) -> String {
    let mut verb = vec!["jwks".to_owned()];
    for key in keys {
        verb.extend(["--source".to_owned(), key.display().to_string()]);
    }
    installation.finish(verb).expect_code(0).stdout
}

fn only_kid(jwks: &str) -> String {
    let jwks: Value = serde_json::from_str(jwks).expect("it is JSON");
    jwks["keys"][0]["kid"].as_str().expect("a kid").to_owned()
}
