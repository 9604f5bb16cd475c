//! Discovery documents of API servers, of other clusters and of strangers.

use serde_json::Value;
use signpost::core::jose::{
    discovery::{DiscoveryDocument, ReceivedDiscovery},
    issuer::Issuer,
    jwk_set::{JwkSet, ReceivedJwks},
};

use super::{JWKS, Scene, judged, told};

pub(super) fn run(bytes: &[u8]) -> bool {
    let received = ReceivedDiscovery::parse(bytes);
    match &received {
        Ok(received) => {
            // Whoever reads it with a reader of his own reads the same.
            let members: Value = serde_json::from_slice(bytes).expect("JSON");
            assert_eq!(
                (&members["issuer"], &members["jwks_uri"]),
                (&received.issuer.clone().into(), &received.jwks_uri.clone().into())
            );
            let [issuer, uri] = ["issuer", "jwks_uri"].map(|name| members[name].as_str().expect("a text"));
            match Issuer::parse(issuer) {
                Ok(issuer) => is_read_again(&issuer, uri),
                Err(invalid) => drop(told(&invalid)),
            }
        }
        Err(invalid) => drop(told(invalid)),
    }
    judged(Scene { discovery: Some(bytes), jwks: Some(JWKS), ..Scene::default() });
    received.is_ok()
}

fn is_read_again(issuer: &Issuer, uri: &str) {
    assert!(issuer.discovery_url().starts_with(issuer.as_str().trim_end_matches('/')));
    assert!(issuer.is_loopback() || issuer.as_str().starts_with("https://"));
    let keys = ReceivedJwks::parse(JWKS).expect("a good JWKS").keys;
    let keys = JwkSet::new(keys).expect("a good JWKS");
    let published = DiscoveryDocument::new(issuer, uri, &keys).to_json();
    let again = ReceivedDiscovery::parse(&published).expect("what is published can be read");
    assert_eq!((issuer.as_str(), uri), (again.issuer.as_str(), again.jwks_uri.as_str()));
    assert_eq!(None, again.authorization_endpoint);
}
