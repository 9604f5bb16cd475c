//! Which addresses may be contacted, and the enforcement of that.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::core::{
    jose::issuer::Issuer,
    verification::{Unanswered, is_public_host},
};

/// The permitted network reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only the internet.
    Internet,
    /// Also one service of this machine, because the issuer is there: this host and port and no other.
    Loopback { host: String, port: Option<u16> },
    /// Everywhere, on the operator's request.
    Anywhere,
}

impl Reach {
    /// The reach needed for the documents of this issuer.
    #[must_use]
    pub fn of(issuer: &Issuer, allow_private: bool) -> Self {
        match Url::parse(issuer.as_str()) {
            _ if allow_private => Self::Anywhere,
            Ok(url) if issuer.is_loopback() => Self::Loopback {
                host: url.host_str().unwrap_or_default().to_owned(),
                port: url.port_or_known_default(),
            },
            _ => Self::Internet,
        }
    }

    fn allows(&self, host: &str, address: IpAddr) -> bool {
        let own = |own: &str| own == host && address.is_loopback();
        is_public(address)
            || match self {
                Self::Internet => false,
                Self::Loopback { host, .. } => own(host),
                Self::Anywhere => true,
            }
    }

    /// Rejects a URL with credentials: its author chose them, and a relying party sends none. Also rejects a
    /// forbidden IP address, because it is not resolved later, and another port of this machine.
    pub(super) fn check(&self, url: &str) -> Result<(), Unanswered> {
        // An invalid URL fails as a request.
        let Ok(url) = Url::parse(url) else { return Ok(()) };
        let name = url.host_str().unwrap_or_default();
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unanswered::Credentials);
        }
        let elsewhere = |host: &str, port: Option<u16>| host == name && port != url.port_or_known_default();
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        let is_refused = match self {
            Self::Loopback { host, port } if elsewhere(host, *port) => true,
            _ => address.is_some_and(|address| !self.allows(name, address)),
        };
        if !is_refused {
            return Ok(());
        }
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        Err(Unanswered::Private { addresses: vec![format!("{name}{port}")] })
    }
}

/// A URL without possible credentials.
pub(super) fn shown(url: &str) -> String {
    let Ok(mut shown) = Url::parse(url) else { return url.to_owned() };
    // Fails for URLs that cannot have credentials.
    let _ = (shown.set_username(""), shown.set_password(None));
    shown.into()
}

pub(super) fn is_public(address: IpAddr) -> bool {
    is_public_host(&match address {
        IpAddr::V4(address) => Host::<&str>::Ipv4(address),
        IpAddr::V6(address) => Host::Ipv6(address),
    })
}

/// Resolves a name once, and gives the client only the permitted addresses: the connection uses a checked
/// address, even if the DNS answer changes.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    pub(super) reach: Reach,
    pub(super) instead: Option<SocketAddr>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { reach, instead } = self.clone();
        Box::pin(async move {
            let all: Vec<_> = match instead {
                Some(address) => vec![address],
                // The port is that of the URL.
                None => tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| Unnamed)?.collect(),
            };
            let (allowed, refused): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|address| reach.allows(name.as_str(), address.ip()));
            if allowed.is_empty() {
                let addresses = refused.iter().map(|address| address.ip().to_string()).collect();
                return Err(Refused { addresses }.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// A name has no address.
#[derive(Debug, thiserror::Error)]
#[error("no address")]
pub(super) struct Unnamed;

/// A name has only addresses that may not be contacted.
#[derive(Debug, thiserror::Error)]
#[error("addresses that may not be asked")]
pub(super) struct Refused {
    pub(super) addresses: Vec<String>,
}
