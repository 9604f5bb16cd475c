use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use openssl::{
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkey::{PKey, Private},
    x509::X509ReqBuilder,
};
use tempfile::TempDir;

use super::{KeyFileError, KeyFiles, keys_of, parse, read};
use crate::{
    core::{
        jose::{jwk::Jwk, left_out::Unreadable, public_key::PublicKey},
        tests::rsa_key,
        text::Hint,
    },
    source::Fetched,
};

mod certificates;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Writes a new P-256 key to a file and returns its public half.
fn write_key(path: impl AsRef<Path>) -> Jwk {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = EcKey::generate(&group).and_then(PKey::from_ec_key).expect("a key");
    fs::write(path, key.public_key_to_pem().expect("PEM")).expect("it is ours");
    let spki = key.public_key_to_der().expect("DER");
    Jwk::of_public_key(PublicKey::from_spki(&spki).expect("a supported key"))
}

fn read_paths(paths: &[&Path]) -> Result<Fetched, KeyFileError> {
    parse(read(&paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(), false)?, false)
}

fn private_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    EcKey::generate(&group).and_then(PKey::from_ec_key).expect("a key")
}

fn public_half(key: &PKey<Private>) -> Jwk {
    let spki = key.public_key_to_der().expect("DER");
    Jwk::of_public_key(PublicKey::from_spki(&spki).expect("a supported key"))
}

fn write_private(path: impl AsRef<Path>, key: &PKey<Private>) {
    fs::write(path, key.private_key_to_pem_pkcs8().expect("PEM")).expect("it is ours");
}

#[track_caller]
fn refuses(path: &Path, reason: &str) -> KeyFileError {
    let refusal = read_paths(&[path]).expect_err(reason);
    assert_eq!(reason, refusal.to_string());
    refusal
}

#[test]
fn a_directory_gives_the_keys_of_its_files_in_the_order_of_their_names() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let (b, a) = (write_key(at("b.pub")), write_key(at("a.pub")));
    write_key(at(".hidden.pub"));
    fs::create_dir(at("deeper")).expect("a directory");
    write_key(at("deeper/c.pub"));
    let fetched = read_paths(&[directory.path()]).expect("two keys");
    assert_eq!(Fetched { keys: vec![a, b], ..Fetched::default() }, fetched);
}

#[tokio::test]
async fn a_change_is_seen_whatever_its_size_and_time_say() {
    let directory = directory();
    let (file, other) = (directory.path().join("sa.pub"), directory.path().join("other.pub"));
    let source = KeyFiles::new("files".to_owned(), vec![file.display().to_string()]);
    let fetch = async || source.fetch().await.expect("a key").keys;
    let first = write_key(&file);
    for _ in 0..2 {
        assert_eq!(fetch().await, std::slice::from_ref(&first));
    }
    let written = fs::metadata(&file).and_then(|metadata| metadata.modified()).expect("a time");
    let second = write_key(&file);
    fs::File::options()
        .write(true)
        .open(&file)
        .and_then(|file| file.set_modified(written))
        .expect("it is ours");
    assert_eq!(fetch().await, [second]);
    let third = write_key(&other);
    fs::rename(&other, &file).expect("it is ours");
    assert_eq!(fetch().await, [third]);
    fs::write(&file, "no key").expect("it is ours");
    source.fetch().await.expect_err("what was parsed before is not what is there");
}

#[test]
fn a_secret_volume_is_read_after_kubelet_has_swapped_it() {
    let volume = directory();
    let at = |name: &str| volume.path().join(name);
    let generation = |name: &str| {
        fs::create_dir(at(name)).expect("a directory");
        write_key(at(name).join("sa.pub"))
    };
    let old = generation("..2026_01");
    symlink("..2026_01", at("..data")).expect("a symlink");
    symlink("..data/sa.pub", at("sa.pub")).expect("a symlink");
    assert_eq!(vec![old], read_paths(&[volume.path()]).expect("a key").keys);

    let new = generation("..2026_02");
    symlink("..2026_02", at("..data_tmp")).expect("a symlink");
    fs::rename(at("..data_tmp"), at("..data")).expect("a swap");
    fs::remove_dir_all(at("..2026_01")).expect("the old generation goes");
    assert_eq!(vec![new.clone()], read_paths(&[volume.path()]).expect("a key").keys);
    assert_eq!(vec![new], read_paths(&[&at("*")]).expect("a key").keys);
}

#[test]
fn a_glob_gives_the_files_it_matches() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let (two, one) = (write_key(at("2.pub")), write_key(at("1.pub")));
    write_key(at("3.pem"));
    write_key(at(".0.pub"));
    fs::create_dir(at("4.pub")).expect("a directory");
    assert_eq!(vec![one, two], read_paths(&[&at("*.pub")]).expect("two keys").keys);
}

#[test]
fn a_file_whose_name_looks_like_a_glob_is_read_as_it_is() {
    let directory = directory();
    let path = directory.path().join("[sa].pub");
    let key = write_key(&path);
    assert_eq!(vec![key], read_paths(&[&path]).expect("a key").keys);
}

#[test]
fn a_key_that_stands_in_two_files_is_one_with_a_note() {
    let directory = directory();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    let key = write_key(&a);
    fs::copy(&a, &b).expect("both are ours");
    let fetched = read_paths(&[&b, &a]).expect("a key");
    let note = format!("key `{}` of `{}` is already in `{}`", key.kid(), a.display(), b.display());
    assert_eq!((vec![key], vec![note]), (fetched.keys, fetched.notes));
}

#[test]
fn what_is_left_out_and_kids_of_others_are_noted() {
    let directory = directory();
    let path = directory.path().join("jwks.json");
    let key = write_key(directory.path().join("key"));
    let json = serde_json::to_string(&key).expect("JSON").replace(key.kid().as_str(), "mine");
    fs::write(&path, format!(r#"{{"keys":[{json},{{"kty":"AKP","kid":"new"}}]}}"#)).expect("it is ours");
    let fetched = read_paths(&[&path]).expect("a key");
    assert_eq!("mine", fetched.keys[0].kid().as_str());
    let left_out = format!("`{}`: key new: key type `AKP` is not supported", path.display());
    let note = format!("kid `mine` is kept, Kubernetes would derive `{}`", key.kid());
    assert_eq!(vec![left_out, note], fetched.warnings().collect::<Vec<_>>());
}

#[test]
fn one_kid_for_two_keys_is_refused() {
    let directory = directory();
    let path = directory.path().join("jwks.json");
    let (one, other) = (write_key(directory.path().join("one")), write_key(directory.path().join("other")));
    let json = serde_json::to_string(&one).expect("JSON").replace(one.kid().as_str(), other.kid().as_str());
    fs::write(&path, json).expect("it is ours");
    let refusal = read_paths(&[&path, &directory.path().join("other")]).expect_err("a clash");
    let told = format!("kid `{}` names one key in `{}` and another one in", other.kid(), path.display());
    assert!(refusal.to_string().starts_with(&told), "{refusal}");
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let shown = |path: PathBuf| path.display().to_string();
    refuses(&at("sa.pub"), &format!("cannot read `{}`", shown(at("sa.pub"))));
    let glob = at("*.pub");
    refuses(&glob, &format!("no file in `{}`, expected at least one", glob.display()));
    let refusal = refuses(
        directory.path(),
        &format!("no file in `{}`, expected at least one", directory.path().display()),
    );
    assert!(refusal.hint().is_some_and(|hint| hint.contains("--service-account-key-file")));
    refuses(&at("[a"), &format!("`{}` is not a glob pattern", shown(at("[a"))));
}

#[test]
fn one_bad_file_of_a_directory_is_left_out_and_named() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let good = write_key(at("a"));
    let shown = at("b").display().to_string();
    let leaves_out = |note: &str| {
        let fetched = read_paths(&[directory.path()]).expect("a key");
        assert_eq!(vec![good.clone()], fetched.keys);
        assert_eq!(
            vec![note.to_owned()],
            fetched.left_out.iter().map(ToString::to_string).collect::<Vec<_>>()
        );
        assert!(fetched.left_out[0].may_be.may_include(&rsa_key(1)), "nobody knows what it was");
    };
    fs::write(at("b"), "hello").expect("it is ours");
    leaves_out(&format!("left out: no public key in `{shown}`, expected PEM or JWKS"));
    fs::write(at("b"), "-----BEGIN X-----\n-----END X-----").expect("it is ours");
    leaves_out(&format!(
        "left out: no public key in `{shown}`, expected PEM or JWKS (block 1 (`X`) is not a key, skipped)"
    ));
    fs::write(at("b"), "{").expect("it is ours");
    leaves_out(&format!("left out: cannot use `{shown}`: not JSON at line 1, column 1, expected a JWKS"));
    fs::write(at("b"), vec![b'#'; 1_048_577]).expect("it is ours");
    leaves_out(&format!("left out: `{shown}` is too large, expected at most 1048576 bytes"));
    fs::remove_file(at("b")).expect("it is ours");
    symlink(at("gone"), at("b")).expect("a symlink");
    leaves_out(&format!("left out: cannot read `{shown}`: No such file or directory (os error 2)"));
    fs::remove_file(at("a")).expect("it is ours");
    refuses(directory.path(), &format!("cannot read `{shown}`"));
}

#[tokio::test]
async fn one_odd_key_of_a_file_takes_no_other_one_along_unless_all_must_be_good() {
    let directory = directory();
    let file = directory.path().join("keys");
    let good = write_key(&file);
    let pem = fs::read_to_string(&file).expect("it was just written");
    let weak = openssl::rsa::Rsa::generate(1024).and_then(PKey::from_rsa).expect("a key");
    let weak = String::from_utf8(weak.public_key_to_pem().expect("PEM")).expect("text");
    for (odd, reason) in [
        (weak.as_str(), "block 1 (`PUBLIC KEY`) is left out: RSA key has 1024 bits, expected at least 2048"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a `SubjectPublicKeyInfo`"),
        ("-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----\n", "block 1 (`PUBLIC KEY`) is not base64"),
    ] {
        fs::write(&file, format!("{odd}{pem}")).expect("it is ours");
        let fetched = read_paths(&[&file]).expect("a key");
        assert_eq!(vec![good.clone()], fetched.keys);
        assert!(fetched.left_out[0].what.contains(reason), "{:?}", fetched.left_out);
        let strict = keys_of(file.clone()).await;
        assert_eq!(odd == weak, strict.is_ok(), "{strict:?}: a weak key was never one of ours");
    }
    keys_of(directory.path().to_owned()).await.expect_err("a directory names no key");
}

#[test]
fn links_that_lead_back_find_a_file_once_and_never_end() {
    let directory = directory();
    let keys = directory.path().join("keys");
    fs::create_dir(&keys).expect("ours");
    write_key(keys.join("sa.pub"));
    symlink(".", keys.join("again")).expect("ours");
    let fetched = read_paths(&[&keys.join("**/*.pub")]).expect("a key");
    assert_eq!((1, Vec::<String>::new()), (fetched.keys.len(), fetched.notes));
    symlink(".", keys.join("and-again")).expect("ours");
    refuses(
        &keys.join("**/*.pub"),
        &format!("`{}` finds more than 10000 files", keys.join("**/*.pub").display()),
    );
}

#[test]
fn a_key_beside_a_private_key_that_is_not_read_is_taken() {
    let directory = directory();
    let key = write_key(directory.path().join("sa.pub"));
    let ciphers = openssl::symm::Cipher::aes_256_cbc();
    let private = PKey::generate_ed25519().expect("a key");
    let encrypted = private.private_key_to_pem_pkcs8_passphrase(ciphers, b"secret").expect("PEM");
    fs::write(directory.path().join("sa.pem"), encrypted).expect("ours");
    let fetched = read_paths(&[directory.path()]).expect("a key");
    assert_eq!(vec![key], fetched.keys);
}

#[test]
fn key_files_of_windows_are_read() {
    let directory = directory();
    let file = directory.path().join("sa.pub");
    let key = write_key(&file);
    let pem = fs::read_to_string(&file).expect("it was just written");
    let jwks = serde_json::to_string(&serde_json::json!({"keys": [key]})).expect("JSON");
    for text in [pem.replace('\n', "\r\n"), jwks] {
        let utf_16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        for saved in [["\u{feff}", &text].concat().into_bytes(), utf_16] {
            fs::write(&file, saved).expect("it is ours");
            assert_eq!(vec![key.clone()], read_paths(&[&file]).expect("a key").keys);
        }
    }
}

#[test]
fn a_fifo_is_refused_instead_of_waited_for() {
    let directory = directory();
    let path = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    refuses(&path, &format!("cannot read `{}`", path.display()));
}

#[tokio::test]
async fn what_is_optional_may_be_empty_and_must_be_there() {
    let directory = directory();
    let ahead = directory.path().join("ahead");
    let at = |path: &Path| KeyFiles::new("ahead".to_owned(), vec![path.display().to_string()]);
    for pattern in [ahead.clone(), ahead.join("*.pub")] {
        let source = at(&pattern).optional();
        // The directory of an unmounted volume does not exist, which is an error.
        let missing = source.fetch().await.expect_err("no directory").to_string();
        assert_eq!(format!("cannot read `{}`", ahead.display()), missing);
        fs::create_dir(&ahead).expect("it is ours");
        assert!(source.fetch().await.expect("no keys").keys.is_empty());
        at(&pattern).fetch().await.expect_err("it is not optional");
        let key = write_key(ahead.join("next.pub"));
        assert_eq!(vec![key], source.fetch().await.expect("one key").keys);
        fs::write(ahead.join("broken.pub"), "no key").expect("it is ours");
        assert_eq!(1, source.fetch().await.expect("one key").left_out.len());
        fs::remove_file(ahead.join("next.pub")).expect("it is ours");
        source.fetch().await.expect_err("of what is there one must be a key");
        fs::remove_dir_all(&ahead).expect("it is ours");
    }
    at(&ahead.join("next.pub")).optional().fetch().await.expect_err("a file that is named must be there");
}
