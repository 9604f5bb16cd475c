//! Which hosts are reachable from the internet.

use url::{Host, Url};

/// Suffixes of private names: those of a cluster, of a local network, and those that RFC 6761, RFC 6762 and
/// RFC 8375 reserve.
const INSIDE: [&str; 9] =
    [".svc", ".local", ".internal", ".localhost", ".lan", ".home", ".corp", ".home.arpa", ".intranet"];

/// Whether a URL names a host that can be public.
#[must_use]
pub fn is_public_url(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host().is_some_and(|host| is_public_host(&host)))
}

/// Whether a host can be public: a name with a dot and without a private suffix, or an address that is not
/// special-purpose (RFC 6890).
#[must_use]
pub fn is_public_host<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.as_ref().trim_end_matches('.');
            name.contains('.') && !INSIDE.iter().any(|end| name.ends_with(end))
        }
        Host::Ipv4(address) => {
            let [first, second, third, _] = address.octets();
            !(address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_multicast()
                || first == 0
                || first >= 240
                || (first == 100 && (64..128).contains(&second))
                || (first, second, third) == (192, 0, 0)
                || (first == 198 && (18..20).contains(&second)))
        }
        Host::Ipv6(address) => {
            let embedded = address.to_ipv4_mapped().map(Host::<&str>::Ipv4);
            match embedded {
                Some(embedded) => is_public_host(&embedded),
                // Of all others, only 2000::/3 is allocated; 64:ff9b::/96 leads to IPv4.
                None => address.segments()[0] & 0xe000 == 0x2000,
            }
        }
    }
}

/// Whether an issuer is the default of kube-apiserver.
/// Source: `ServiceAccountIssuer` of kubeadm, and `kubernetes.default.svc` of other distributions.
pub(super) fn is_default_issuer(issuer: &str) -> bool {
    let host = issuer.strip_prefix("https://").unwrap_or(issuer);
    let host = host.split(['/', ':']).next().unwrap_or(host);
    host == "kubernetes.default" || host.starts_with("kubernetes.default.svc")
}

#[cfg(test)]
mod tests;
