//! Keys and certificates for tests: a CA, a server certificate below it, service-account keys.

use std::fs;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name};

/// Files: a server certificate for 127.0.0.1 and localhost, and its CA.
pub(crate) struct ServerTls {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Files: a client certificate and its key.
pub(crate) struct ClientTls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A CA for the certificates of several servers.
#[derive(Clone)]
pub(crate) struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

impl Authority {
    pub(crate) fn create() -> Self {
        let create = || {
            let key = p256()?;
            Ok::<_, ErrorStack>(Self { certificate: authority(&key)?, key })
        };
        create().expect("OpenSSL makes certificates")
    }

    /// The CA certificate as a file, for flags such as `--client-ca-file`.
    pub(crate) fn file(&self, folder: &Path) -> PathBuf {
        write(folder.join("client-ca.crt"), &self.certificate.to_pem().expect("a certificate has PEM"))
    }

    /// A client certificate with this Kubernetes user name.
    pub(crate) fn client(&self, folder: &Path, user: &str) -> ClientTls {
        let issue = || {
            let key = p256()?;
            let certificate = client(&key, self, user)?;
            let write = |suffix, pem: &[u8]| write(folder.join(format!("{user}.{suffix}")), pem);
            Ok::<_, ErrorStack>(ClientTls {
                certificate: write("crt", &certificate.to_pem()?),
                key: write("key", &key.private_key_to_pem_pkcs8()?),
            })
        };
        issue().expect("OpenSSL makes certificates")
    }
}

impl ServerTls {
    /// Writes all files into `folder`.
    pub(crate) fn create(folder: &Path) -> Self {
        Self::issued_by(&Authority::create(), folder, &["localhost"], &["127.0.0.1"])
    }

    /// The same with an expired certificate.
    pub(crate) fn expired(folder: &Path) -> Self {
        let authority = Authority::create();
        let names = (&["localhost"][..], &["127.0.0.1"][..]);
        Self::try_issue(&authority, folder, names, Validity::Past).expect("OpenSSL makes certificates")
    }

    /// Writes all files into `folder`, for a server of these names and addresses.
    pub(crate) fn issued_by(
        authority: &Authority,
        folder: &Path,
        names: &[&str],
        addresses: &[&str],
    ) -> Self {
        let names = (names, addresses);
        Self::try_issue(authority, folder, names, Validity::Now).expect("OpenSSL makes certificates")
    }

    fn try_issue(
        authority: &Authority,
        folder: &Path,
        names: (&[&str], &[&str]),
        validity: Validity,
    ) -> Result<Self, ErrorStack> {
        // A leaf below a CA: rustls rejects a CA's own certificate as a server's.
        let key = p256()?;
        let leaf = server(&key, authority, names, validity)?;
        let write = |name: &str, pem: &[u8]| write(folder.join(name), pem);
        Ok(Self {
            ca: write("ca.crt", &authority.certificate.to_pem()?),
            certificate: write("server.crt", &leaf.to_pem()?),
            key: write("server.key", &key.private_key_to_pem_pkcs8()?),
        })
    }
}

#[derive(Clone, Copy)]
enum Validity {
    Now,
    Past,
}

/// A key pair as files for `kube-apiserver`.
#[derive(Clone)]
pub(crate) struct KeyFiles {
    /// For `--service-account-signing-key-file`.
    pub(crate) private: PathBuf,
    /// For `--service-account-key-file`.
    pub(crate) public: PathBuf,
}

impl KeyFiles {
    /// RSA of 2048 bits, which Kubernetes signs with as RS256.
    pub(crate) fn rsa(folder: &Path, name: &str) -> Self {
        let key = Rsa::generate(2048).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys");
        Self::write(folder, name, &key)
    }

    /// P-256, which Kubernetes signs with as ES256.
    pub(crate) fn ec(folder: &Path, name: &str) -> Self {
        Self::write(folder, name, &p256().expect("OpenSSL makes EC keys"))
    }

    fn write(folder: &Path, name: &str, key: &PKey<Private>) -> Self {
        let file = |suffix| folder.join(format!("{name}.{suffix}"));
        Self {
            private: write(file("key"), &key.private_key_to_pem_pkcs8().expect("a key has PEM")),
            public: write(file("pub"), &key.public_key_to_pem().expect("a key has PEM")),
        }
    }
}

fn authority(key: &PKey<Private>) -> Result<X509, ErrorStack> {
    let mut ca = unsigned("signpost test CA", key)?;
    ca.set_issuer_name(&*name("signpost test CA")?)?;
    ca.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    ca.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    let own_id = SubjectKeyIdentifier::new().build(&ca.x509v3_context(None, None))?;
    ca.append_extension(own_id)?;
    ca.sign(key, MessageDigest::sha256())?;
    Ok(ca.build())
}

fn server(
    key: &PKey<Private>,
    authority: &Authority,
    (names, addresses): (&[&str], &[&str]),
    validity: Validity,
) -> Result<X509, ErrorStack> {
    let Authority { key: ca_key, certificate: ca } = authority;
    let mut leaf = unsigned("signpost test server", key)?;
    if let Validity::Past = validity {
        // The year 2020.
        leaf.set_not_before(&*Asn1Time::from_unix(1_577_836_800)?)?;
        leaf.set_not_after(&*Asn1Time::from_unix(1_609_459_200)?)?;
    }
    leaf.set_issuer_name(ca.subject_name())?;
    leaf.append_extension(BasicConstraints::new().build()?)?;
    leaf.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    leaf.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    let context = leaf.x509v3_context(Some(ca), None);
    let mut subject = SubjectAlternativeName::new();
    for name in names {
        subject.dns(name);
    }
    for address in addresses {
        subject.ip(address);
    }
    let names = subject.build(&context)?;
    // Python 3.13 and later reject a certificate that does not name its CA's key.
    let ca_id = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
    leaf.append_extension(names)?;
    leaf.append_extension(ca_id)?;
    leaf.sign(ca_key, MessageDigest::sha256())?;
    Ok(leaf.build())
}

fn client(key: &PKey<Private>, authority: &Authority, user: &str) -> Result<X509, ErrorStack> {
    let mut leaf = unsigned(user, key)?;
    leaf.set_issuer_name(authority.certificate.subject_name())?;
    leaf.append_extension(BasicConstraints::new().build()?)?;
    leaf.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    leaf.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
    leaf.sign(&authority.key, MessageDigest::sha256())?;
    Ok(leaf.build())
}

fn unsigned(common_name: &str, key: &PKey<Private>) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(120, MsbOption::MAYBE_ZERO, false)?;
    let mut certificate = X509::builder()?;
    // Version 3 is encoded as 2.
    certificate.set_version(2)?;
    certificate.set_serial_number(&*serial.to_asn1_integer()?)?;
    certificate.set_subject_name(&*name(common_name)?)?;
    certificate.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(2)?)?;
    certificate.set_pubkey(key)?;
    Ok(certificate)
}

fn name(common_name: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

fn p256() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)
}

fn write(file: PathBuf, pem: &[u8]) -> PathBuf {
    fs::write(&file, pem).expect("the folder can be written");
    file
}
