use std::fs;

use openssl::pkey::PKey;
use openssl::symm::Cipher;
use openssl::x509::X509;

use super::{COULD_NOT, Transcript};
use crate::support::pki::ServerTls;

const RUN: &str = "run --data-dir data --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --source embedded \
                   --issuer https://k8s.example";

#[test]
fn certificates_and_keys_that_cannot_be_served_are_refused_before_anything_is_made() {
    let mut it = Transcript::new();
    for folder in ["a", "b", "folder"] {
        fs::create_dir(it.path(folder)).expect("the folder is ours");
    }
    let (a, _) = (ServerTls::create(&it.path("a")), ServerTls::create(&it.path("b")));
    let certificate = fs::read(&a.certificate).expect("it is there");
    let key = PKey::private_key_from_pem(&fs::read(&a.key).expect("it is there")).expect("it is a key");
    let encrypted = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret").expect("PEM");
    it.write("encrypted.key", encrypted);
    it.write("der.crt", X509::from_pem(&certificate).expect("it is one").to_der().expect("DER"));
    it.write("der.key", key.private_key_to_der().expect("DER"));
    it.write("cut.crt", &certificate[..certificate.len() / 2]);
    it.write("empty", "");
    it.write("long", vec![b'a'; 200 * 1024]);
    for (what, certificate, key) in [
        ("no certificate", "gone.crt", "a/server.key"),
        ("no key", "a/server.crt", "gone.key"),
        ("a folder", "folder", "a/server.key"),
        ("an empty certificate file", "empty", "a/server.key"),
        ("a certificate that is not PEM", "der.crt", "a/server.key"),
        ("a certificate that is cut off", "cut.crt", "a/server.key"),
        ("a key that is not PEM", "a/server.crt", "der.key"),
        ("a key that is encrypted", "a/server.crt", "encrypted.key"),
        ("the key of another certificate", "a/server.crt", "b/server.key"),
        ("the two exchanged", "a/server.key", "a/server.crt"),
        ("a file of another kind", "long", "a/server.key"),
    ] {
        let flags = format!("{RUN} --tls-certificate {certificate} --tls-private-key {key}");
        it.refuses(what, &flags, COULD_NOT);
    }
    it.compare("server_certificates");
}

#[test]
fn tls_and_connections_that_make_no_sense_are_named() {
    let mut it = Transcript::new();
    it.refuses("a certificate alone", &format!("{RUN} --tls-certificate a.crt"), COULD_NOT);
    it.write(
        "listener.yaml",
        "tls: {certificate: tls.crt, key: tls.key}\nmax_connections: 0\ndata_dir: /nowhere\n\
         issuers: [{issuer: \"http://127.0.0.1:8080\", sources: [{kind: embedded}]}]\n",
    );
    it.refuses("a listener with faults", "config check --config listener.yaml", COULD_NOT);
    it.write("word.yaml", "tls: yes\nmax_connections: many\nissuers: []\n");
    it.refuses("words", "config check --config word.yaml", COULD_NOT);
    it.compare("listeners");
}
