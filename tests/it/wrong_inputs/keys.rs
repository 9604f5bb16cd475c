use std::fs;
use std::path::Path;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::symm::Cipher;

use super::{COULD_NOT, Transcript};
use crate::support::pki::{KeyFiles, ServerTls};

fn rsa(bits: u32) -> PKey<Private> {
    Rsa::generate(bits).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys")
}

fn public_pem(key: &PKey<Private>) -> Vec<u8> {
    key.public_key_to_pem().expect("a key has PEM")
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).expect("OpenSSL knows the curve");
    EcKey::generate(&group).and_then(PKey::from_ec_key).expect("OpenSSL makes EC keys")
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", openssl::base64::encode_block(der))
}

impl Transcript {
    /// Both commands that read keys and write documents reject the file.
    fn refuses_key(&mut self, what: &str, file: &str) {
        let sync = format!("sync --issuer https://k8s.example --profile all --source {file} --target out");
        self.refuses_silently(&sync, COULD_NOT, |it| it);
        self.refuses_silently(&format!("{sync} --dry-run"), COULD_NOT, |it| it);
        let jwks = format!("jwks --issuer https://k8s.example --source {file} --output-dir out");
        self.refuses(what, &jwks, COULD_NOT);
    }
}

#[test]
fn key_files_that_hold_no_usable_key_are_refused() {
    let mut it = Transcript::new();
    let good = rsa(2048);
    it.write("good.pub", public_pem(&good));

    it.write("weak.pub", public_pem(&rsa(1024)));
    it.refuses_key("RSA of 1024 bits", "weak.pub");
    let aes = Cipher::aes_256_cbc();
    it.write("pkcs8.key", good.private_key_to_pem_pkcs8_passphrase(aes, b"secret").expect("PEM"));
    it.refuses_key("an encrypted private key", "pkcs8.key");
    let traditional = good.rsa().and_then(|rsa| rsa.private_key_to_pem_passphrase(aes, b"secret"));
    it.write("pkcs1.key", traditional.expect("PEM"));
    it.refuses_key("one encrypted in the old way", "pkcs1.key");
    it.write("ed25519.pub", public_pem(&PKey::generate_ed25519().expect("OpenSSL makes Ed25519 keys")));
    it.refuses_key("Ed25519 alone", "ed25519.pub");
    it.write("k1.pub", public_pem(&ec(Nid::SECP256K1)));
    it.refuses_key("a curve of others alone", "k1.pub");
    let mut off_curve = ec(Nid::X9_62_PRIME256V1).public_key_to_der().expect("a key has DER");
    *off_curve.last_mut().expect("it is not empty") ^= 1;
    it.write("off.pub", pem("PUBLIC KEY", &off_curve));
    it.refuses_key("a point off its curve", "off.pub");
    it.write("empty.pub", "");
    it.refuses_key("an empty file", "empty.pub");
    it.write("rubbish", (0..=255).rev().collect::<Vec<u8>>());
    it.refuses_key("binary rubbish", "rubbish");
    it.write("der", [0x30, 0x82, 0x01, 0x00, 0x02]);
    it.refuses_key("the beginning of DER", "der");
    it.write("large.pub", vec![b'#'; 1024 * 1024 + 1]);
    it.refuses_key("a file that is too large", "large.pub");
    let text = String::from_utf8(public_pem(&good)).expect("PEM is text");
    it.write("cut.pub", &text[..text.len() / 2]);
    it.refuses_key("PEM that is cut off", "cut.pub");
    it.write("typo.pub", text.replacen("MII", "M!!", 1));
    it.refuses_key("PEM that is not base64", "typo.pub");
    it.write("ends.pub", text.replace("END PUBLIC", "END PRIVATE"));
    it.refuses_key("PEM that ends as something else", "ends.pub");
    it.refuses_key("a missing file", "gone.pub");
    it.refuses_key("a glob without a match", "*.key.pub");
    fs::create_dir(it.path("folder")).expect("the folder is ours");
    it.refuses_key("a directory without keys", "folder");
    it.compare("keys");
}

#[test]
fn certificates_that_hold_no_usable_key_are_refused() {
    let mut it = Transcript::new();
    fs::create_dir(it.path("pki")).expect("the folder is ours");
    let tls = ServerTls::create(&it.path("pki"));
    let text = fs::read_to_string(&tls.certificate).expect("it was just written");
    it.write("empty.crt", pem("CERTIFICATE", b""));
    it.refuses_key("an empty certificate", "empty.crt");
    it.write("label.crt", text.replace("CERTIFICATE", "PUBLIC KEY"));
    it.refuses_key("a certificate under the label of a key", "label.crt");
    it.write("request.csr", text.replace("CERTIFICATE", "CERTIFICATE REQUEST"));
    it.refuses_key("a certificate request alone", "request.csr");
    it.write("cut.crt", cut_der(&tls.certificate));
    it.refuses_key("a certificate that is cut off", "cut.crt");
    it.compare("certificates");
}

fn cut_der(certificate: &Path) -> String {
    let read = fs::read(certificate).expect("it was just written");
    let der = openssl::x509::X509::from_pem(&read).and_then(|it| it.to_der()).expect("a certificate");
    pem("CERTIFICATE", &der[..der.len() / 2])
}

#[test]
fn a_profile_that_no_key_fits_is_refused() {
    let mut it = Transcript::new();
    fs::create_dir(it.path("keys")).expect("the folder is ours");
    KeyFiles::ec(&it.path("keys"), "sa");
    let rest = "--issuer https://k8s.example --source keys/sa.pub";
    it.refuses("EC alone for Entra", &format!("jwks {rest} --profile entra --output-dir out"), COULD_NOT);
    it.refuses("EC alone, published", &format!("sync {rest} --target out"), COULD_NOT);
    it.refuses("EC alone, tried", &format!("sync {rest} --target out --dry-run"), COULD_NOT);
    it.refuses("EC alone, for programs", &format!("sync {rest} --target out --output json"), COULD_NOT);
    it.compare("profile");
}
