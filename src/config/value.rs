//! The types of single settings: how each is written, what is expected, and what is wrong with any other text.

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
};

use glob::Pattern;
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use url::{Host, Url};

use super::problem::Fault;
use crate::core::{
    entra::{is_guid, may_receive_tokens},
    jose::{issuer::Issuer, jwk_set::Profile},
    location::Location,
    service_account::ServiceAccount,
    signer::{KeyType, SocketName, announcement::NodeName},
    verification::{Cloud, Party},
};

/// Describes a type in the JSON Schema. `x-expected` is what a message says was expected.
macro_rules! described {
    ([$($generics:tt)*] $type:ty, $($schema:tt)*) => {
        impl<$($generics)*> JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($schema)*)
            }
        }
    };
}

/// Reads a type from text with a function, and writes it with `Display`.
macro_rules! written_as_text {
    ([$($generics:tt)*] $type:ty, $parse:expr) => {
        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }

        impl<$($generics)*> Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

pub(super) use {described, written_as_text};

described!([] Issuer, { "type": "string", "format": "uri" });
described!([] Profile, { "type": "string", "enum": Profile::ALL.map(Profile::name) });
described!([] KeyType, { "type": "string", "enum": KeyType::ALL.map(KeyType::name) });
described!([] Party, { "type": "string", "enum": Party::ALL.map(Party::word) });
described!([] Cloud, { "type": "string", "enum": Cloud::ALL.map(Cloud::word) });
described!([] NodeName, { "type": "string" });

described!([] SocketName, { "type": "string" });
written_as_text!([] SocketName, |text: &str| SocketName::parse(text));

described!([] Location, { "type": "string", "format": "uri" });
written_as_text!([] Location, Location::parse);

/// Written `NAMESPACE/NAME`.
fn service_account(text: &str) -> Result<ServiceAccount, Fault> {
    let Some((namespace, name)) = text.split_once('/') else {
        return Err(Fault::new(format!("`{text}` is not a service account, expected `NAMESPACE/NAME`")));
    };
    ServiceAccount::new(namespace, name).map_err(|error| Fault::new(error.to_string()))
}

described!([] ServiceAccount, { "type": "string" });
written_as_text!([] ServiceAccount, service_account);

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Count<const LEAST: usize, const MOST: usize>(usize);

impl<const LEAST: usize, const MOST: usize> Count<LEAST, MOST> {
    /// A default.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        Self(count)
    }

    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

impl<'de, const LEAST: usize, const MOST: usize> Deserialize<'de> for Count<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = usize::deserialize(deserializer)?;
        if (LEAST..=MOST).contains(&count) {
            Ok(Self(count))
        } else {
            Err(D::Error::custom(format!("is `{count}`, expected a whole number from {LEAST} to {MOST}")))
        }
    }
}

described!([const LEAST: usize, const MOST: usize] Count<LEAST, MOST>, {
    "type": "integer",
    "minimum": LEAST,
    "maximum": MOST,
    "x-expected": format!("a whole number from {LEAST} to {MOST}"),
    "x-bounds": format!(" From {LEAST} to {MOST}."),
});

/// An address and port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        text.parse().map(Self).map_err(|_| {
            let fault = Fault::new(format!("`{text}` is not an address and port, expected `IP:PORT`"));
            match text.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_err() => {
                    fault.hint("a port is a number from 0 to 65535")
                }
                Some(("", port)) => fault.hint(format!("write `0.0.0.0:{port}` for every address")),
                Some(("localhost", port)) => fault.hint(format!("write `127.0.0.1:{port}`")),
                _ => fault,
            }
        })
    }
}

impl Deref for ListenAddress {
    type Target = SocketAddr;

    fn deref(&self) -> &SocketAddr {
        &self.0
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

described!([] ListenAddress, { "type": "string", "x-expected": "an address and port, `IP:PORT`" });
written_as_text!([] ListenAddress, Self::parse);

/// A path that does not depend on the current directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// A default.
    pub(super) fn new(path: &str) -> Self {
        Self(PathBuf::from(path))
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let path = PathBuf::from(text);
        if path.is_absolute() {
            return Ok(Self(path));
        }
        Err(Fault::new(format!("`{text}` is relative, expected an absolute path"))
            .hint("paths in a file must be absolute; flags may use relative paths"))
    }
}

impl Deref for AbsolutePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl From<AbsolutePath> for PathBuf {
    fn from(path: AbsolutePath) -> Self {
        path.0
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

described!([] AbsolutePath, { "type": "string", "pattern": "^/", "x-expected": "an absolute path" });
written_as_text!([] AbsolutePath, Self::parse);

/// Declares a type that is a checked text.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $parse:path, $($schema:tt)*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        described!([] $name, $($schema)*);
        written_as_text!([] $name, |text: &str| $parse(text).map(|()| Self(text.to_owned())));
    };
}

checked_text!(
    /// A URL of a public document or an API server: `https`, or `http` on a loopback host; without user, query
    /// and fragment.
    WebUrl, web_url, { "type": "string", "format": "uri" }
);
impl WebUrl {
    /// A URL that follows from one that was checked.
    pub(super) fn derived(text: &str) -> Self {
        Self(text.to_owned())
    }
}

checked_text!(
    /// The absolute path of a file or directory, or a glob.
    PathPattern, path_pattern, { "type": "string" }
);
checked_text!(
    /// The name in a certificate.
    DnsName, dns_name, { "type": "string" }
);

checked_text!(
    /// A tenant of Microsoft Entra: an id or a domain.
    Tenant, tenant, { "type": "string" }
);
checked_text!(
    /// An id of Microsoft Entra.
    EntraId, entra_id, { "type": "string", "format": "uuid" }
);
checked_text!(
    /// A scope as client credentials demand it.
    Scope, scope, { "type": "string" }
);
checked_text!(
    /// Where tokens are exchanged: Microsoft Entra, or an address of this machine.
    Authority, authority, { "type": "string", "format": "uri" }
);

fn tenant(text: &str) -> Result<(), Fault> {
    if is_guid(text) || (text.contains('.') && text.split('.').all(is_label)) {
        return Ok(());
    }
    Err(Fault::new(format!("`{text}` is not a tenant, expected its id or a domain"))
        .hint("`az account show --query tenantId` prints the id"))
}

fn entra_id(text: &str) -> Result<(), Fault> {
    if is_guid(text) {
        return Ok(());
    }
    Err(Fault::new(format!("`{text}` is not a client id, expected a GUID"))
        .hint("take it from `az identity show --query clientId` or `az ad app show --query appId`"))
}

fn scope(text: &str) -> Result<(), Fault> {
    if text.ends_with("/.default") && !text.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(Fault::new(format!("`{text}` is not a scope, expected a resource followed by `/.default`")))
}

fn authority(text: &str) -> Result<(), Fault> {
    without_secrets(text, "the token is sent there, and nothing else")?;
    if parsed_url(text).is_ok_and(|url| may_receive_tokens(&url) && url.path() == "/") {
        return Ok(());
    }
    let hosts = Cloud::ALL.map(|cloud| format!("`https://{}`", cloud.login_hosts()[0]));
    Err(Fault::new(format!("`{text}` is not Microsoft Entra, expected one of {}", hosts.join(", "))))
}

fn web_url(text: &str) -> Result<(), Fault> {
    without_secrets(text, "remove it: what is read there is public, or needs a `bearer_token_file`")?;
    let url = parsed_url(text)?;
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        "http" => Err(Fault::new(format!(
            "`{text}` has scheme `http`, expected `https` (`http` is only for loopback hosts)"
        ))),
        scheme => Err(Fault::new(format!("`{text}` has scheme `{scheme}`, expected `https`"))),
    }
}

fn path_pattern(text: &str) -> Result<(), Fault> {
    AbsolutePath::parse(text)?;
    match Pattern::new(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(format!("`{text}` is not a glob: {}", error.msg))),
    }
}

fn dns_name(text: &str) -> Result<(), Fault> {
    if text.split('.').all(is_label) {
        return Ok(());
    }
    Err(Fault::new(format!("`{text}` is not a DNS name, expected one such as `kubernetes.default.svc`")))
}

/// The endpoint of a store: `http` or `https`, because the content is verified by other means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint(pub(super) Url);

impl Endpoint {
    fn parse(text: &str) -> Result<Self, Fault> {
        without_secrets(text, STORE_CREDENTIALS)?;
        let url = parsed_url(text)?;
        match url.scheme() {
            "https" | "http" => Ok(Self(url)),
            scheme => Err(Fault::new(format!("`{text}` has scheme `{scheme}`, expected `https`"))),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

described!([] Endpoint, { "type": "string", "format": "uri" });
written_as_text!([] Endpoint, Self::parse);

fn parsed_url(text: &str) -> Result<Url, Fault> {
    Url::parse(text).map_err(|error| Fault::new(format!("`{text}` is not a URL: {error}")))
}

pub(super) const STORE_CREDENTIALS: &str =
    "credentials come from the environment, such as `AZURE_STORAGE_SAS_KEY` or `AWS_ACCESS_KEY_ID`";

/// Rejects a URL that may contain a credential, before any other use. `hint` says where it belongs.
pub(super) fn without_secrets(text: &str, hint: &str) -> Result<(), Fault> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Fault::new(format!("`{text}` has a user name or password, expected none")).hint(hint));
    }
    if rest.contains('?') {
        return Err(Fault::new(format!("`{text}` has a query, expected none")).hint(hint));
    }
    if rest.contains('#') {
        return Err(Fault::new(format!("`{text}` has a fragment, expected none")));
    }
    Ok(())
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The name of an object in a namespace, written `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamespacedName {
    pub namespace: String,
    pub name: String,
}

impl NamespacedName {
    fn parse(text: &str) -> Result<Self, Fault> {
        let is_name = |name: &str| name.len() <= 253 && name.split('.').all(is_label);
        match text.split_once('/').filter(|(namespace, name)| is_label(namespace) && is_name(name)) {
            Some((namespace, name)) => Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() }),
            None => {
                Err(Fault::new(format!("`{text}` is not a namespace and a name, expected `NAMESPACE/NAME`")))
            }
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

described!([] NamespacedName, { "type": "string" });
written_as_text!([] NamespacedName, Self::parse);

/// A DNS label (RFC 1123), the form of Kubernetes names.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The mode of a socket, in octal digits. Its owner can always read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub u32);

impl SocketMode {
    fn parse(text: &str) -> Result<Self, Fault> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(Self(mode)),
            _ => Err(Fault::new(format!("`{text}` is not a socket mode, expected one such as `0660`"))),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

described!([] SocketMode, { "type": "string" });
written_as_text!([] SocketMode, Self::parse);

/// The number of a user or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumericId(pub u32);

impl NumericId {
    fn parse(text: &str) -> Result<Self, Fault> {
        text.parse().map(Self).map_err(|_| {
            Fault::new(format!("`{text}` is not the number of a user or group, expected one such as `65532`"))
        })
    }
}

impl fmt::Display for NumericId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

described!([] NumericId, { "type": "string" });
written_as_text!([] NumericId, Self::parse);

/// A time zone of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone(pub(super) TimeZone);

impl Zone {
    fn parse(name: &str) -> Result<Self, Fault> {
        TimeZone::get(name).map(Self).map_err(|_| {
            Fault::new(format!(
                "`{name}` is not a time zone of the IANA database, expected one such as `Europe/Amsterdam`"
            ))
            .hint("`UTC` is valid; abbreviations such as `CEST` and offsets are not")
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

described!([] Zone, { "type": "string" });
written_as_text!([] Zone, Self::parse);
