//! Which addresses may be asked, and that no other is.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::core::verification::{Unanswered, is_public_host};

/// How far one may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the internet.
    Internet,
    /// To this machine too, because the operator's issuer is on it.
    Loopback,
    /// Everywhere, because the operator says so.
    Anywhere,
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        is_public(address) || self == Self::Anywhere || (self == Self::Loopback && address.is_loopback())
    }

    /// Refuses a URL with an address in place of a name: nobody resolves that.
    pub(super) fn check(self, url: &str) -> Result<(), Unanswered> {
        let address = match Url::parse(url).ok().as_ref().and_then(Url::host) {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            _ => return Ok(()),
        };
        if self.allows(address) {
            return Ok(());
        }
        Err(Unanswered::Private { addresses: vec![address.to_string()] })
    }
}

pub(super) fn is_public(address: IpAddr) -> bool {
    is_public_host(&match address {
        IpAddr::V4(address) => Host::<&str>::Ipv4(address),
        IpAddr::V6(address) => Host::Ipv6(address),
    })
}

/// Resolves a name once, and gives the client the addresses that it may use: what is connected to is what
/// was checked, whatever the name server says a moment later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolver {
    pub(super) reach: Reach,
    pub(super) instead: Option<SocketAddr>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { reach, instead } = *self;
        Box::pin(async move {
            let all: Vec<_> = match instead {
                Some(address) => vec![address],
                // The port is that of the URL.
                None => tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| Unnamed)?.collect(),
            };
            let (allowed, refused): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|address| reach.allows(address.ip()));
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

/// A name has addresses that may not be asked, and no other.
#[derive(Debug, thiserror::Error)]
#[error("addresses that may not be asked")]
pub(super) struct Refused {
    pub(super) addresses: Vec<String>,
}
