//! Parses single values into types, or a fault.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use jiff::{
    SignedDuration,
    fmt::friendly::{Spacing, SpanParser, SpanPrinter},
};
use url::{Host, Url};

use super::problem::Fault;
use crate::core::service_account::ServiceAccount;

/// A whole number of seconds within bounds, which are durations themselves.
pub(super) fn duration(text: &str, least: &str, most: &str) -> Result<Duration, Fault> {
    let refuse = |what: &str| Fault::new(format!("`{text}` {what}, expected `{least}` to `{most}`"));
    let Ok(duration) = span(text) else {
        let fault = refuse("is not a duration such as `30s`, `5m` or `1h30m`");
        let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok());
        return Err(match (text.parse::<u64>(), days) {
            (Ok(_), _) => fault.hint(format!("write `{text}s` for seconds")),
            (_, Some(days)) => fault.hint(format!("write `{}h`", u64::from(days) * 24)),
            _ => fault,
        });
    };
    let bound = |text| span(text).expect("bounds in the table are durations");
    if duration.is_negative() {
        Err(refuse("is negative"))
    } else if duration < bound(least) {
        Err(refuse("is too short"))
    } else if duration > bound(most) {
        Err(refuse("is too long"))
    } else if duration.subsec_nanos() != 0 {
        Err(refuse("is not a whole number of seconds"))
    } else {
        Ok(duration.unsigned_abs())
    }
}

fn span(text: &str) -> Result<SignedDuration, jiff::Error> {
    static PARSER: SpanParser = SpanParser::new();
    PARSER.parse_duration(text)
}

/// A duration in the format of [`duration`]: `1h30m`.
pub(super) fn duration_text(duration: Duration) -> String {
    static PRINTER: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);
    PRINTER.unsigned_duration_to_string(&duration)
}

/// The address of the setting `name`.
pub(super) fn address(text: &str, name: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        let example = if name == "admin_listen" { "127.0.0.1:9090" } else { "127.0.0.1:8080" };
        let fault =
            Fault::new(format!("`{text}` is not an address and port, expected one such as `{example}`"));
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

/// An absolute path, independent of the current directory.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Fault::new(format!("`{text}` is relative, expected an absolute path"))
            .hint("paths in a file must be absolute; flags may use relative paths"))
    }
}

/// The permitted schemes of a URL.
#[derive(Clone, Copy)]
pub(super) enum Web {
    /// `https`, or `http` on a loopback host.
    Secure,
    /// `http` or `https`: the content is verified by other means.
    Any,
}

/// A URL without user, query and fragment.
pub(super) fn web_url(text: &str, web: Web) -> Result<Url, Fault> {
    without_secrets(text)?;
    let url = Url::parse(text).map_err(|error| Fault::new(format!("`{text}` is not a URL: {error}")))?;
    match (url.scheme(), web) {
        ("https", _) | ("http", Web::Any) => Ok(url),
        ("http", Web::Secure) if is_loopback(&url) => Ok(url),
        ("http", Web::Secure) => Err(Fault::new(format!(
            "`{text}` has scheme `http`, expected `https` (`http` is only for loopback hosts)"
        ))),
        (scheme, _) => Err(Fault::new(format!("`{text}` has scheme `{scheme}`, expected `https`"))),
    }
}

/// Rejects a URL that may contain a credential, before any other use.
pub(super) fn without_secrets(text: &str) -> Result<(), Fault> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hint =
        "credentials come from the environment, such as `AZURE_STORAGE_SAS_KEY` or `AWS_ACCESS_KEY_ID`";
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

/// A service account, written `NAMESPACE/NAME`.
pub(super) fn service_account(text: &str) -> Result<ServiceAccount, Fault> {
    let Some((namespace, name)) = text.split_once('/') else {
        return Err(Fault::new(format!("`{text}` is not a service account, expected `NAMESPACE/NAME`")));
    };
    ServiceAccount::new(namespace, name).map_err(|error| Fault::new(error.to_string()))
}

/// A `ConfigMap`, written `NAMESPACE/NAME`.
pub(super) fn config_map(text: &str) -> Result<(String, String), Fault> {
    let parts = text.split_once('/');
    let is_name = |name: &str| name.len() <= 253 && name.split('.').all(is_label);
    match parts.filter(|(namespace, name)| is_label(namespace) && is_name(name)) {
        Some((namespace, name)) => Ok((namespace.to_owned(), name.to_owned())),
        None => Err(Fault::new(format!("`{text}` is not a ConfigMap, expected `NAMESPACE/NAME`"))),
    }
}

/// A DNS label (RFC 1123), the form of Kubernetes names.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
