//! The certificates that a server presents, whatever their signer.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use openssl::{
    hash::MessageDigest,
    ssl::{SslConnector, SslMethod, SslVerifyMode},
};
use reqwest::dns::{Name, Resolve as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_openssl::SslStream;
use url::{Host, Url};

use super::reach::Resolver;
use crate::core::jose::publication::hex;

/// Whether OpenSSL's message means that no known authority has signed a certificate.
pub(super) fn is_of_unknown_authority(reason: &str) -> bool {
    ["self-signed", "self signed", "issuer certificate", "verify the first certificate"]
        .iter()
        .any(|words| reason.contains(words))
}

/// SHA-1 of the last certificate that a server presents, as AWS IAM names an authority; `None` when the
/// handshake does not finish in time.
///
/// The server is not trusted: only the handshake is done.
pub(super) async fn thumbprint(url: &str, resolver: Resolver, patience: Duration) -> Option<String> {
    timeout(patience, last_certificate(url, resolver)).await.ok()?
}

async fn last_certificate(url: &str, resolver: Resolver) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let port = url.port_or_known_default()?;
    let addresses: Vec<SocketAddr> = match url.host()? {
        Host::Domain(name) => resolver.resolve(name.parse::<Name>().ok()?).await.ok()?.collect(),
        Host::Ipv4(address) => vec![(address, port).into()],
        Host::Ipv6(address) => vec![(address, port).into()],
    };
    // A resolved address has no port.
    let addresses = addresses.into_iter().map(|mut address| {
        if address.port() == 0 {
            address.set_port(port);
        }
        address
    });
    let stream = TcpStream::connect(&addresses.collect::<Vec<_>>()[..]).await.ok()?;
    let mut connector = SslConnector::builder(SslMethod::tls_client()).ok()?;
    connector.set_verify(SslVerifyMode::NONE);
    let configuration = connector.build().configure().ok()?.verify_hostname(false);
    let mut stream = SslStream::new(configuration.into_ssl(url.host_str()?).ok()?, stream).ok()?;
    Pin::new(&mut stream).connect().await.ok()?;
    let digest = stream.ssl().peer_cert_chain()?.iter().last()?.digest(MessageDigest::sha1()).ok()?;
    Some(hex(&digest))
}
