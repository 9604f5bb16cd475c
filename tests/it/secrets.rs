//! Private keys never leak: no output, answer or file of the product contains a part of one, whatever its
//! input and log level.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64ct::{Base64Url, Encoding as _};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api_server::ADMIN_TOKEN;
use crate::support::azurite::{self, Azurite};
use crate::support::cluster::{Cluster, ISSUER};
use crate::support::external_signer::ExternalSigner;
use crate::support::installation::{
    DOCUMENTS, Installation, JWKS, Service, api_server, azure_target, directory_target, files, s3_target,
};
use crate::support::port::Port;
use crate::support::s3::{self, S3};
use crate::support::secrets::Secrets;
use crate::support::signpost::Signpost;

const AT_MOST: Duration = Duration::from_mins(1);

/// Private keys in every supported form, as files; encrypted and damaged ones too.
fn private_key_files(folder: &Path, secrets: &mut Secrets) -> BTreeMap<&'static str, PathBuf> {
    let rsa = Rsa::generate(2048).expect("a key");
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let ec = EcKey::generate(&group).expect("a key");
    let rsa_key = PKey::from_rsa(rsa.clone()).expect("a key");
    let ec_key = PKey::from_ec_key(ec.clone()).expect("a key");
    let weak = Rsa::generate(1024).and_then(PKey::from_rsa).expect("a key");
    for key in [&rsa_key, &ec_key, &weak] {
        secrets.add_key(key);
    }
    let cipher = Cipher::aes_256_cbc();
    let pkcs8 = rsa_key.private_key_to_pem_pkcs8().expect("PEM");
    let text = String::from_utf8(pkcs8.clone()).expect("PEM is text");
    let lines: Vec<&str> = text.lines().collect();
    let encoded =
        |number: &BigNum| Base64Url::encode_string(&number.to_vec()).trim_end_matches('=').to_owned();
    let jwk = json!({
        "kty": "RSA",
        "kid": "private",
        "n": encoded(&rsa.n().to_owned().expect("a number")),
        "e": "AQAB",
        "d": encoded(&rsa.d().to_owned().expect("a number")),
        "p": encoded(&rsa.p().expect("p").to_owned().expect("a number")),
    });
    let contents: [(&str, Vec<u8>); 16] = [
        ("good PKCS#8 RSA", pkcs8.clone()),
        ("good PKCS#1 RSA", rsa.private_key_to_pem().expect("PEM")),
        ("good PKCS#8 EC", ec_key.private_key_to_pem_pkcs8().expect("PEM")),
        ("good SEC1 EC", ec.private_key_to_pem().expect("PEM")),
        ("good RSA and EC", [pkcs8.clone(), ec.private_key_to_pem().expect("PEM")].concat()),
        ("bad encrypted PKCS#8", rsa_key.private_key_to_pem_pkcs8_passphrase(cipher, b"pass").expect("PEM")),
        ("bad encrypted PKCS#1", rsa.private_key_to_pem_passphrase(cipher, b"pass").expect("PEM")),
        ("bad DER", rsa_key.private_key_to_der().expect("DER")),
        ("bad without its end", lines[..lines.len() - 1].join("\n").into_bytes()),
        ("bad half of the lines", [&lines[..10], &lines[lines.len() - 1..]].concat().join("\n").into_bytes()),
        ("bad character", text.replacen('A', "*", 1).into_bytes()),
        ("bad line too many", text.replacen(lines[5], &[lines[5]; 2].join("\n"), 1).into_bytes()),
        ("bad label", text.replace("PRIVATE KEY", "PUBLIC KEY").into_bytes()),
        ("bad no label", lines[1..lines.len() - 1].join("\n").into_bytes()),
        ("bad JWKS", json!({"keys": [jwk]}).to_string().into_bytes()),
        ("bad weak", weak.private_key_to_pem_pkcs8().expect("PEM")),
    ];
    contents
        .into_iter()
        .map(|(name, bytes)| {
            let file = folder.join(name.replace([' ', '#'], "-"));
            // Otherwise the search could not find anything.
            let hidden = name.contains("encrypted");
            assert_eq!(secrets.are_in(&bytes), !hidden, "the search does not work on {name}");
            fs::write(&file, bytes).expect("the folder can be written");
            (name, file)
        })
        .collect()
}

#[test]
fn no_private_key_that_is_given_as_a_source_is_ever_shown() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut secrets = Secrets::default();
    let keys = private_key_files(folder.path(), &mut secrets);
    for (name, file) in &keys {
        let expected = i32::from(name.starts_with("bad")) * 2;
        let source = file.display().to_string();
        for log in ["debug", "trace"] {
            let arguments = ["jwks", "--log", log, "--log-format", "json", "--source", &source];
            let said = Signpost::new(arguments).finish(AT_MOST);
            secrets.assert_not_said(name, &said);
            said.expect_code(expected);
        }
    }
    // As the argument of the wrong flag, in a configuration, as a token, as a ledger.
    let good = &keys["good PKCS#8 RSA"];
    let text = good.display().to_string();
    let pem = fs::read_to_string(good).expect("PEM is text");
    let damaged = folder.path().join("data/issuers/any");
    fs::create_dir_all(&damaged).expect("the folder can be written");
    fs::copy(good, damaged.join("ledger.json")).expect("it can be copied");
    let data_dir = folder.path().join("data").display().to_string();
    let token = format!("--token={pem}");
    let wrong: [&[&str]; 11] = [
        &["jwks", "--config", &text],
        &["jwks", &format!("--config={}", keys["bad no label"].display())],
        &["sync", "--config", &text],
        &["config", "check", "--config", &text],
        &["jwks", &format!("--source={pem}")],
        &["sync", &format!("--issuer={pem}"), &format!("--listen={pem}"), &format!("--schedule={pem}")],
        &["sync", &format!("--profile={pem}")],
        &["verify", "--token", &text],
        &["verify", &token],
        &["verify", "--discovery", &text, "--jwks", &text, "--token", &text],
        &["ledger", "show", "--data-dir", &data_dir],
    ];
    for arguments in wrong {
        let said = Signpost::new(arguments).finish(AT_MOST);
        secrets.assert_not_said(arguments[0], &said);
        assert_ne!(said.code, Some(0), "{said:?}");
    }

    // A service with all valid keys, one of which is damaged later.
    let public = folder.path().join("public");
    let changing = folder.path().join("changing");
    fs::copy(&keys["good SEC1 EC"], &changing).expect("it can be copied");
    let mut paths: Vec<&Path> =
        keys.iter().filter(|(name, _)| name.starts_with("good")).map(|(_, file)| file.as_path()).collect();
    paths.push(&changing);
    let settings =
        json!({"profile": "all", "sources": [files(&paths)], "targets": [directory_target(&public)]});
    let installation = Installation::new(ISSUER, &settings);
    let mut service = installation.run_as(installation.verb(["run", "--log", "trace"]));
    service.until("the target is true", |service| service.target("directory")["up"] == true);
    for (name, file) in keys.iter().filter(|(name, _)| name.starts_with("bad")) {
        let before = service.source()["failures"].as_u64();
        fs::copy(file, folder.path().join("staged")).expect("it can be copied");
        fs::rename(folder.path().join("staged"), &changing).expect("it can be replaced");
        service.until(name, |service| service.source()["failures"].as_u64() > before);
    }
    assert_service_is_clean(&secrets, &service);
    secrets.assert_not_said("the service", &service.stop());
    for directory in [installation.data_dir(), public] {
        assert_eq!(secrets.files_with_secrets(&directory), Vec::<PathBuf>::new());
    }
}

#[test]
fn the_embedded_private_key_is_in_one_file_that_only_its_owner_can_read() {
    let folder = TempDir::new().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let public = folder.path().join("public");
    let installation = Installation::new(
        "http://127.0.0.1:8080/embedded",
        &json!({"sources": [{"kind": "embedded"}], "targets": [directory_target(&public)]}),
    );
    let mut service =
        installation.run_as(installation.verb(["run", "--log", "trace"]).env("SIGNPOST_DATA_DIR", &data_dir));
    // The second key is generated and published shortly after the first: a dry run in between would find a
    // difference.
    service.until("the target shows both keys", |service| {
        let shown =
            fs::read(public.join(JWKS)).ok().and_then(|jwks| serde_json::from_slice::<Value>(&jwks).ok());
        let both = shown.is_some_and(|jwks| jwks["keys"].as_array().is_some_and(|keys| keys.len() == 2));
        both && service.target("directory")["up"] == true
    });

    let keys = data_dir.join("keys");
    let mut private: Vec<PathBuf> = fs::read_dir(&keys)
        .expect("there is a keyring")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
        .collect();
    private.sort();
    assert_eq!(private.len(), 2, "one signs, one is to follow: {private:?}");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!((mode(&keys), mode(&private[0]), mode(&private[1])), (0o700, 0o600, 0o600));
    let mut secrets = Secrets::default();
    for private in &private {
        let pem = fs::read(private).expect("it is ours");
        secrets.add_key(&PKey::private_key_from_pem(&pem).expect("it is a key"));
    }
    let pem = fs::read(&private[0]).expect("it is ours");

    let dir = data_dir.display().to_string();
    let token = Signpost::new(["token", "--log", "trace", "--data-dir", &dir]).finish(AT_MOST).expect_code(0);
    secrets.assert_not_said("token", &token);
    let jwks = Signpost::new(["jwks", "--log", "trace", "--source", "embedded", "--data-dir", &dir]);
    secrets.assert_not_said("jwks", &jwks.finish(AT_MOST).expect_code(0));
    for verb in [["ledger", "show"], ["sync", "--dry-run"], ["config", "show"]] {
        let said = installation
            .verb(verb.into_iter().chain(["--log", "trace"]))
            .env("SIGNPOST_DATA_DIR", &data_dir)
            .finish(AT_MOST);
        secrets.assert_not_said(verb[0], &said.expect_code(0));
    }
    assert_service_is_clean(&secrets, &service);
    secrets.assert_not_said("the service", &service.stop());
    let mut found = secrets.files_with_secrets(folder.path());
    found.sort();
    assert_eq!(found, private);

    // A damaged key, or one that others may read, is refused with an error.
    let refused = |what: &str| {
        let said =
            Signpost::new(["run", "--log", "trace", "--data-dir", &dir]).finish(AT_MOST).expect_code(2);
        secrets.assert_not_said(what, &said);
        said.stderr
    };
    let text = String::from_utf8(pem).expect("PEM is text");
    fs::write(&private[0], &text[..text.len() / 2]).expect("it is ours");
    assert!(refused("half a key").contains("error: "));
    fs::write(&private[0], text.replace("PRIVATE", "PUBLIC")).expect("it is ours");
    assert!(refused("a wrong label").contains("error: "));
    fs::write(&private[0], &text).expect("it is ours");
    fs::set_permissions(&private[0], fs::Permissions::from_mode(0o644)).expect("it is ours");
    assert!(refused("an open key").contains("has mode 0644, expected 0600"));
}

#[test]
fn no_private_key_of_a_signer_is_anywhere_but_in_its_file() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut signer = ExternalSigner::start(ISSUER, "key_type: rs256-3072");
    let mut secrets = Secrets::default();
    let mut add_all = |signer: &ExternalSigner| {
        for entry in fs::read_dir(signer.keys()).expect("there is a keyring") {
            let path = entry.expect("it can be read").path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                let pem = fs::read(&path).expect("it is ours");
                fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("a copy");
                secrets.add_key(&PKey::private_key_from_pem(&pem).expect("it is a key"));
            }
        }
    };
    let (first, second) = (signer.signing(), signer.standby());
    signer.order(&first);
    add_all(&signer);
    signer.order(&second);
    signer.standby();
    add_all(&signer);
    signer.revoke(&first);
    let said = signer.running().stderr() + &signer.running().stdout();
    signer.kill();
    // Damaged files are reported too.
    let file = signer.keys().join(format!("{second}.pem"));
    let pem = fs::read(&file).expect("it is ours");
    fs::write(&file, &pem[..pem.len() / 2]).expect("it is ours");
    let refused = signer.command().finish(AT_MOST).expect_code(2);
    secrets.assert_not_said("a damaged key", &refused);
    secrets.assert_not_in("the log", said);
    let files = secrets.files_with_secrets(&signer.data_dir());
    assert!(
        files.iter().all(|file| file.extension().is_some_and(|extension| extension == "pem")),
        "{files:?}"
    );
    assert_eq!(files.len(), 2, "{files:?}");
    // The search finds the existing secrets.
    assert_eq!(secrets.files_with_secrets(folder.path()).len(), 3);
}

#[test]
fn a_first_look_shows_no_secret_and_makes_no_file_beside_its_directory() {
    let folder = TempDir::new().expect("a temporary folder");
    let [listen, admin] = [Port::free(), Port::free()];
    let mut running = Signpost::new(["run"])
        .current_dir(folder.path())
        .env("SIGNPOST_LISTEN", listen.address())
        .env("SIGNPOST_ADMIN_LISTEN", admin.address())
        .start();
    running.wait_for_output("Try in another terminal");
    running.wait_for(&format!("http://{}/readyz", admin.address()));
    let token = Signpost::new(["token"]).current_dir(folder.path()).finish(AT_MOST).expect_code(0);
    let verify = |text: &[u8]| Signpost::new(["verify", "--token", "-"]).stdin(text).finish(AT_MOST);
    verify(token.stdout.as_bytes()).expect_code(0);

    let data_dir = folder.path().join("signpost-data");
    let pem = fs::read_dir(data_dir.join("keys"))
        .expect("there is a keyring")
        .map(|entry| entry.expect("it can be read").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "pem"))
        .expect("there is a key");
    let text = fs::read(&pem).expect("it is ours");
    let mut secrets = Secrets::default();
    secrets.add_key(&PKey::private_key_from_pem(&text).expect("it is a key"));
    secrets.assert_not_said("verify", &verify(&text));
    secrets.assert_not_said("token", &token);
    running.signal(Signal::INT);
    secrets.assert_not_said("run", &running.finish(AT_MOST).expect_code(0));
    assert_eq!(secrets.files_with_secrets(folder.path()), [pem]);
    let beside: Vec<_> = fs::read_dir(folder.path()).expect("it can be listed").collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
}

#[test]
fn no_credential_is_ever_shown() {
    let (cluster, azurite, s3) = (Cluster::shared(), Azurite::start(), S3::start());
    azurite.create_public_container("oidc");
    s3.create_bucket("oidc");
    let mut secrets = Secrets::default();
    let token = cluster.server.token("default", "signpost", &[], 600);
    let signature = token.rsplit('.').next().expect("a signature");
    for secret in [azurite::ACCOUNT_KEY, s3::SECRET_KEY, ADMIN_TOKEN, signature] {
        secrets.add_text(secret.as_bytes());
    }
    for key in &cluster.keys {
        let pem = fs::read(&key.private).expect("it is ours");
        secrets.add_key(&PKey::private_key_from_pem(&pem).expect("it is a key"));
    }
    let folder = TempDir::new().expect("a temporary folder");
    let (admin, reader) = (folder.path().join("admin"), folder.path().join("reader"));
    cluster.server.admin_kubeconfig(&admin);
    cluster.server.kubeconfig(&reader, &crate::support::api_server::Bearer::Token(&token));
    let azure = azurite.url();
    let targets = json!([
        azure_target(azure.trim_end_matches(&format!("/{}", azurite::ACCOUNT)), "oidc"),
        s3_target(&s3.url(), "oidc"),
        // Refused, each with an error message.
        {"name": "no-container", "url": "az://devstoreaccount1/nowhere", "endpoint": azure},
        {"name": "no-bucket", "url": "s3://nowhere", "endpoint": s3.url()},
    ]);
    let mut second = api_server(&reader);
    second["name"] = json!("reader");
    let settings = json!({"sources": [api_server(&admin), second], "targets": targets});
    let installation = Installation::new(ISSUER, &settings);
    secrets.assert_not_said("sync", &installation.finish(["sync", "--log", "debug"]).expect_code(2));
    let mut service = installation.run_as(installation.verb(["run", "--log", "debug"]));
    service.until("the failures are seen", |service| {
        ["no-container", "no-bucket"].iter().all(|name| service.target(name)["failures"].as_u64() >= Some(1))
            && service.target("azure")["up"] == true
    });
    assert_service_is_clean(&secrets, &service);
    secrets.assert_not_said("the service", &service.stop());
    assert_eq!(secrets.files_with_secrets(&installation.data_dir()), Vec::<PathBuf>::new());
    let stored = DOCUMENTS.map(|document| azurite.get(&format!("oidc/{document}")).expect_status(200));
    for answer in stored {
        secrets.assert_not_in("Azurite", answer.body);
        secrets.assert_not_in("Azurite", format!("{:?}", answer.headers));
    }
}

/// Checks all endpoints of the service.
fn assert_service_is_clean(secrets: &Secrets, service: &Service) {
    for path in ["/metrics", "/status.json", "/healthz", "/readyz", "/nowhere"] {
        let answer = service.admin(path);
        secrets.assert_not_in(path, format!("{:?}", answer.headers));
        secrets.assert_not_in(path, answer.body);
    }
    for document in DOCUMENTS {
        let answer = service.get(document).expect_status(200);
        let _: Value = answer.json();
        secrets.assert_not_in(document, answer.body);
    }
}
