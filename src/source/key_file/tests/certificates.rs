//! Keys of certificates are not those of service accounts.

use openssl::{asn1::Asn1Time, hash::MessageDigest, x509::X509};

use super::*;

fn certificate(of: &PKey<Private>, by: &PKey<Private>) -> X509 {
    let build = || {
        let mut certificate = X509::builder()?;
        certificate.set_pubkey(of)?;
        certificate.set_not_before(&*Asn1Time::from_unix(0)?)?;
        certificate.set_not_after(&*Asn1Time::from_unix(1)?)?;
        certificate.sign(by, MessageDigest::sha256())?;
        Ok::<_, openssl::error::ErrorStack>(certificate.build())
    };
    build().expect("a certificate")
}

/// A key and its certificate, as `NAME.key` and `NAME.crt`.
fn write_pair(directory: &Path, name: &str, authority: Option<&PKey<Private>>) -> PKey<Private> {
    let key = private_key();
    let pem = certificate(&key, authority.unwrap_or(&key)).to_pem().expect("PEM");
    fs::write(directory.join(format!("{name}.crt")), pem).expect("it is ours");
    write_private(directory.join(format!("{name}.key")), &key);
    key
}

/// The files that kubeadm writes to `/etc/kubernetes/pki`; returns the service account key.
fn write_pki(directory: &Path) -> Jwk {
    fs::create_dir(directory.join("etcd")).expect("a directory");
    let ca = write_pair(directory, "ca", None);
    let front = write_pair(directory, "front-proxy-ca", None);
    let etcd = write_pair(&directory.join("etcd"), "ca", None);
    write_pair(&directory.join("etcd"), "server", Some(&etcd));
    write_pair(directory, "apiserver", Some(&ca));
    write_pair(directory, "apiserver-kubelet-client", Some(&ca));
    write_pair(directory, "apiserver-etcd-client", Some(&etcd));
    write_pair(directory, "front-proxy-client", Some(&front));
    let sa = private_key();
    write_private(directory.join("sa.key"), &sa);
    fs::write(directory.join("sa.pub"), sa.public_key_to_pem().expect("PEM")).expect("it is ours");
    public_half(&sa)
}

#[test]
fn a_directory_of_kubeadm_gives_the_key_of_service_accounts_alone() {
    let directory = directory();
    let sa = write_pki(directory.path());
    for pattern in [
        directory.path().to_owned(),
        directory.path().join("*"),
        directory.path().join("**/*"),
        directory.path().join("*.key"),
        directory.path().join("[s-z]*"),
    ] {
        let fetched = read_paths(&[&pattern]).expect("a key");
        assert_eq!(vec![sa.clone()], fetched.keys, "{}", pattern.display());
        assert!(fetched.left_out.is_empty(), "{:?}", fetched.left_out);
    }
    let fetched = read_paths(&[directory.path()]).expect("a key");
    let note = fetched
        .notes
        .iter()
        .find(|note| note.starts_with("certificates and keys of certificates"))
        .expect("a warning");
    assert!(note.contains("`ca.crt`, `ca.key`, `front-proxy-ca.crt`"), "{note}");
    refuses(
        &directory.path().join("front*"),
        &format!(
            "no usable public key in these files (certificates and keys of certificates are skipped in `{}`: \
             `front-proxy-ca.crt`, `front-proxy-ca.key`, `front-proxy-client.crt`, `front-proxy-client.key`; \
             name a file explicitly if it signs tokens)",
            directory.path().display()
        ),
    );
    let named = read_paths(&[&directory.path().join("apiserver.crt"), directory.path()]).expect("two keys");
    assert_eq!(2, named.keys.len(), "a certificate that is named by itself is taken");
}

/// Covers every way to detect a TLS key whose own file does not say so.
#[test]
fn no_key_that_belongs_to_a_certificate_is_taken_from_a_directory() {
    type Lay = fn(&Path, &PKey<Private>);
    let for_tls: [(&str, Lay); 9] = [
        ("another name", |at, key| {
            fs::write(at.join("tls.cert.txt"), certificate(key, key).to_pem().expect("PEM")).expect("ours");
        }),
        ("DER", |at, key| {
            fs::write(at.join("x"), certificate(key, key).to_der().expect("DER")).expect("ours");
        }),
        ("a hidden file", |at, key| {
            fs::write(at.join(".x"), certificate(key, key).to_pem().expect("PEM")).expect("ours");
        }),
        ("a CA whose own certificate is elsewhere", |at, key| {
            fs::write(at.join("leaf"), certificate(&private_key(), key).to_pem().expect("PEM"))
                .expect("ours");
        }),
        ("a certificate that is about to be replaced", |at, _| {
            let before = private_key();
            fs::write(at.join("k.crt"), certificate(&before, &before).to_pem().expect("PEM")).expect("ours");
        }),
        ("the same, named as cfssl does", |at, _| {
            let before = private_key();
            fs::rename(at.join("k.key"), at.join("k-key.pem")).expect("ours");
            fs::write(at.join("k.pem"), certificate(&before, &before).to_pem().expect("PEM")).expect("ours");
        }),
        ("a request", |at, key| {
            let build = || {
                let mut request = X509ReqBuilder::new()?;
                request.set_pubkey(key)?;
                request.sign(key, MessageDigest::sha256())?;
                request.build().to_pem()
            };
            fs::write(at.join("request"), build().expect("a request")).expect("ours");
        }),
        ("one file for both", |at, key| {
            let both =
                [certificate(key, key).to_pem().expect("PEM"), key.private_key_to_pem_pkcs8().expect("PEM")];
            fs::write(at.join("k.key"), both.concat()).expect("ours");
        }),
        ("a byte order mark", |at, key| {
            let pem = [b"\xef\xbb\xbf".to_vec(), certificate(key, key).to_pem().expect("PEM")].concat();
            fs::write(at.join("x"), pem).expect("ours");
        }),
    ];
    for (what, make) in for_tls {
        let directory = directory();
        let key = private_key();
        write_private(directory.path().join("k.key"), &key);
        make(directory.path(), &key);
        let sa = write_key(directory.path().join("sa.pub"));
        let fetched = read_paths(&[directory.path()]).expect("a key");
        assert_eq!(vec![sa], fetched.keys, "{what}");
        assert!(
            fetched.notes.iter().any(|note| note.contains("`k.key`") || note.contains("`k-key.pem`")),
            "{what}: {:?}",
            fetched.notes
        );
        // The same key as a JWKS is left out too.
        fs::write(
            directory.path().join("jwks.json"),
            serde_json::to_string(&public_half(&key)).expect("JSON"),
        )
        .expect("ours");
        let fetched = read_paths(&[directory.path()]).expect("a key");
        assert_eq!(fetched.keys.len() > 1, what.contains("replaced") || what.contains("cfssl"), "{what}");
    }
}

#[test]
fn a_key_beside_a_certificate_that_cannot_be_read_is_left_out_and_does_not_count_as_missing() {
    for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAA"), Some("junk")] {
        let directory = directory();
        let key = private_key();
        write_private(directory.path().join("tls.key"), &key);
        let sa = write_key(directory.path().join("sa.pub"));
        match content {
            Some(content) => fs::write(directory.path().join("tls.crt"), content).expect("ours"),
            None => symlink("gone", directory.path().join("tls.crt")).expect("a symlink"),
        }
        let fetched = read_paths(&[directory.path()]).expect("a key");
        assert_eq!(vec![sa.clone()], fetched.keys, "{content:?}");
        let may_be = Unreadable::of(&fetched.left_out);
        let is_broken = content.is_some_and(|content| content.starts_with('-'));
        assert_eq!(!is_broken, may_be.may_include(&public_half(&key)), "{content:?}: {:?}", fetched.left_out);
        assert!(!may_be.may_include(&sa), "{content:?}");
    }
}

#[test]
fn a_key_that_a_symlink_leads_to_is_judged_where_it_lies() {
    let (pki, links) = (directory(), directory());
    let sa = write_pki(pki.path());
    symlink(pki.path().join("ca.key"), links.path().join("innocent.pem")).expect("a symlink");
    symlink(pki.path().join("sa.pub"), links.path().join("sa.pub")).expect("a symlink");
    assert_eq!(vec![sa.clone()], read_paths(&[links.path()]).expect("a key").keys);
    let all = directory();
    symlink(pki.path(), all.path().join("pki")).expect("a symlink");
    assert_eq!(vec![sa], read_paths(&[&all.path().join("pki")]).expect("a key").keys);
}

#[test]
fn a_secret_of_tls_gives_no_key_before_and_after_kubelet_has_swapped_it() {
    let volume = directory();
    let at = |name: &str| volume.path().join(name);
    let sa = private_key();
    for generation in ["..2026_01", "..2026_02"] {
        fs::create_dir(at(generation)).expect("a directory");
        write_pair(&at(generation), "tls", None);
        write_private(at(generation).join("sa.key"), &sa);
        symlink(generation, at("..data_tmp")).expect("a symlink");
        fs::rename(at("..data_tmp"), at("..data")).expect("a swap");
        for name in ["tls.crt", "tls.key", "sa.key"] {
            let _ = symlink(format!("..data/{name}"), at(name));
        }
        for pattern in [volume.path().to_owned(), at("*"), at("..data"), at("..data/*.key")] {
            let fetched = read_paths(&[&pattern]).expect("a key");
            assert_eq!(vec![public_half(&sa)], fetched.keys, "{generation} {}", pattern.display());
        }
    }
    // A part of a Secret, as in a container that mounts only one of its keys.
    assert_eq!(1, read_paths(&[&at("tls.key")]).expect("it is named").keys.len());
}
