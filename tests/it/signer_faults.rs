//! `signpost signer` when all its data is lost, when files and callers belong to other users, and its reports
//! to the operator.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::etcd::Etcd;
use crate::support::eventually::eventually;
use crate::support::external_signer::{ExternalSigner, NODE, request, started};
use crate::support::http_client::Request;
use crate::support::installation::JWKS;
use crate::support::port::Port;
use crate::support::signpost::{Finished, Signpost};
use crate::support::user::{NOBODY, as_nobody, not_root};

const ISSUER: &str = "https://issuer.example";
const OTHERS: &str = "api://AzureADTokenExchange";
const AT_MOST: Duration = Duration::from_mins(1);

/// A pass of a publisher that reads the node's announcement, with the node's own data directory and ledger.
fn publish(signer: &ExternalSigner, public: &Path, flags: &[&str]) -> Finished {
    let config = signer.folder().join("publisher.yaml");
    let text = json!({
        "data_dir": signer.data_dir(),
        "issuers": [{
            "issuer": ISSUER,
            "sources": [{"kind": "announcements", "directory": signer.data_dir().join("announcements")}],
            "targets": [{"name": "public", "url": format!("file://{}", public.display())}],
        }],
    });
    fs::write(&config, text.to_string()).expect("the folder can be written");
    let arguments = ["sync", "--config", config.to_str().expect("UTF-8")];
    Signpost::new(arguments.iter().chain(flags)).finish(AT_MOST)
}

fn kids(jwks: &[u8]) -> Vec<String> {
    let jwks: Value = serde_json::from_slice(jwks).expect("JSON");
    let keys = jwks["keys"].as_array().expect("keys").iter();
    keys.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

#[test]
fn who_has_lost_keys_and_ledger_signs_for_nobody_and_publishes_nothing_on_its_own() {
    let etcd = Etcd::start();
    let mut signer = ExternalSigner::start(ISSUER, "");
    let server = started(&signer, &etcd);
    let public = signer.folder().join("world");
    // The keys of an issuer that was never published are ready at once.
    publish(&signer, &public, &[]).expect_code(0);
    let first = signer.signing();
    eventually("it is ordered to sign", || {
        publish(&signer, &public, &[]).expect_code(0);
        (signer.journal()["keys"][&first]["external_audiences"] == true).then_some(())
    });
    let token = server.token("shop", "till", &[OTHERS], 600);
    assert_eq!(server.review(&token, &[OTHERS])["authenticated"], true);
    let before = fs::read(public.join(JWKS)).expect("it is published");
    assert!(kids(&before).contains(&first));

    signer.kill();
    fs::remove_dir_all(signer.data_dir()).expect("it is ours");
    signer.restart();
    let second = signer.signing();
    assert_ne!(second, first);
    let refused = request(&server, OTHERS).expect_status(500).text();
    assert!(refused.contains("not ready"), "{refused}");
    let own = server.token("shop", "till", &[ISSUER], 600);
    assert_eq!(server.review(&own, &[ISSUER])["authenticated"], true, "the control plane goes on");

    // The published keys are unmanaged until they are adopted: tokens of the lost key remain valid there.
    let finished = publish(&signer, &public, &[]).expect_code(2);
    assert!(
        finished.stderr.contains("lineage") && finished.stderr.contains("--adopt"),
        "{}",
        finished.stderr
    );
    assert_eq!(fs::read(public.join(JWKS)).expect("it is published"), before);
    request(&server, OTHERS).expect_status(500);

    publish(&signer, &public, &["--adopt"]).expect_code(0);
    let after = kids(&fs::read(public.join(JWKS)).expect("it is published"));
    let expected = kids(&before).into_iter().chain([second.clone(), signer.standby()]);
    assert!(expected.clone().all(|kid| after.contains(&kid)), "{after:?}");
    assert_eq!(after.len(), expected.count());
    // Relying parties have copies without the new key, so a day has to pass.
    publish(&signer, &public, &[]).expect_code(0);
    assert_eq!(signer.journal()["keys"][&second]["external_audiences"], false);
    request(&server, OTHERS).expect_status(500);
}

#[test]
fn keys_that_somebody_else_owns_start_no_signer() {
    let mut signer = ExternalSigner::start(ISSUER, "");
    let kid = signer.signing();
    signer.kill();
    let us = rustix::process::geteuid().as_raw();
    let refused = |signer: &ExternalSigner, what: &str| {
        let finished = signer.command().finish(AT_MOST).expect_code(2);
        assert!(finished.stderr.contains(what), "{}", finished.stderr);
        assert!(!signer.socket().exists() || UnixStream::connect(signer.socket()).is_err());
    };
    let (keys, file) = (signer.keys(), signer.keys().join(format!("{kid}.pem")));
    for path in [&file, &keys] {
        match chown(path, Some(NOBODY), None) {
            Ok(()) => {
                refused(&signer, &format!("belongs to user {NOBODY}, expected {us}"));
                chown(path, Some(us), None).expect("it was ours");
            }
            // Only root can change the owner of a file: without root a directory of root's must do, and a
            // file is checked by the same function.
            Err(_) if path == &keys => {
                let aside = signer.data_dir().join("aside");
                fs::rename(&keys, &aside).expect("it is ours");
                symlink("/", &keys).expect("the folder is ours");
                refused(&signer, &format!("belongs to user 0, expected {us}"));
                fs::remove_file(&keys).and_then(|()| fs::rename(&aside, &keys)).expect("it is ours");
            }
            Err(error) => not_root(&format!("{error}: a directory of root's is tried alone")),
        }
    }
    signer.restart();
    assert_eq!(signer.signing(), kid, "nothing was changed meanwhile");
}

#[test]
fn the_operator_sees_what_a_node_does_and_who_may_not_ask_it() {
    let (etcd, admin) = (Etcd::start(), Port::free());
    // The mode lets every user connect; the UID of the peer decides.
    let settings = format!("mode: '0666', admin_listen: '{}'", admin.address());
    let mut signer = ExternalSigner::start(ISSUER, &settings);
    let server = started(&signer, &etcd);
    let get = |path: &str| Request::get(&format!("http://{}{path}", admin.address())).answer();
    assert_eq!(get("/healthz").expect_status(200).text(), "ok\n");
    assert!(get("/readyz?verbose").expect_status(200).text().contains("[+]node-1: has keys"));
    let status = get("/status.json").expect_status(200).json();
    assert_eq!((&status["node"], &status["issuer"]), (&json!(NODE), &json!(ISSUER)));
    let metric = |name: &str, label: &str| {
        let page = get("/metrics").expect_status(200).text();
        let is_it =
            |line: &&str| line.starts_with(&format!("signpost_signer_{name}{{")) && line.contains(label);
        let value = page.lines().find(is_it)?.rsplit(' ').next()?.parse::<f64>();
        Some(value.expect("a number"))
    };
    let answers =
        |result: &str| metric("answers_total", &format!("result=\"{result}\"")).expect("it is there");

    assert_eq!((metric("up", ""), metric("observed_order_timestamp_seconds", "")), (Some(1.0), None));
    assert_eq!(metric("keys", "stage=\"standby\""), Some(1.0));
    let (signed, unavailable) = (answers("signed"), answers("unavailable"));
    server.token("shop", "till", &[ISSUER], 600);
    request(&server, OTHERS).expect_status(500);
    assert_eq!((answers("signed"), answers("unavailable")), (signed + 1.0, unavailable + 1.0));
    assert_eq!((answers("refused"), answers("failed")), (0.0, 0.0));
    assert_eq!(metric("signature_duration_seconds_count", ""), Some(signed + 1.0));
    assert!(metric("signature_duration_seconds_sum", "").is_some_and(|seconds| seconds > 0.0));
    let fetches = metric("key_fetches_total", "");
    eventually("kube-apiserver asks again", || (metric("key_fetches_total", "") > fetches).then_some(()));

    let changed = metric("keys_changed_timestamp_seconds", "");
    signer.order(&signer.standby());
    eventually("it has obeyed", || metric("observed_order_timestamp_seconds", ""));
    eventually("the next one is there", || (metric("keys", "stage=\"standby\"") == Some(1.0)).then_some(()));
    assert_eq!((metric("keys", "\"active\""), metric("keys", "\"retired\"")), (Some(1.0), Some(1.0)));
    assert!(metric("keys_changed_timestamp_seconds", "") > changed);
    let page = get("/metrics").expect_status(200).text();
    assert!(!page.contains("signpost_http_") && !page.contains("signpost_published_keys{"), "{page}");

    assert_eq!(metric("refused_connections_total", ""), Some(0.0));
    fs::set_permissions(signer.folder(), Permissions::from_mode(0o755)).expect("it is ours");
    let socket = signer.socket();
    let said = as_nobody(|| {
        let mut stream = UnixStream::connect(&socket).expect("the mode lets everybody connect");
        stream.set_read_timeout(Some(AT_MOST)).expect("a timeout");
        let mut said = Vec::new();
        // It may be closed so early that this is a reset.
        let _ = stream.read_to_end(&mut said);
        said
    });
    match said {
        Some(said) => {
            assert_eq!(said, b"", "not a word, not even the settings of HTTP/2");
            assert_eq!(metric("refused_connections_total", ""), Some(1.0));
            let told = format!("unauthorized connection to the signer uid={NOBODY}");
            assert_eq!(signer.running().stderr().matches(&told).count(), 1, "{}", signer.running().stderr());
        }
        // Without root there is no other user; the rule itself is tested in
        // `root_we_ourselves_and_those_who_are_named_may_connect`.
        None => not_root("nobody else was there to connect"),
    }
    server.token("shop", "till", &[ISSUER], 600);
}
