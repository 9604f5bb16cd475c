use std::{error::Error, time::Duration};

use super::*;
use crate::core::jose::{
    issuer::Issuer, jwk::Jwk, jwk_set::Profile, public_key::PublicKey, publication::Terms,
};

/// A publication that differs for every number.
pub(super) fn publication(number: u8) -> Publication {
    let issuer = Issuer::parse("https://issuer.example").expect("it is an issuer");
    let jwks_uri = issuer.jwks_uri();
    let terms = Terms { issuer, jwks_uri, max_age: Duration::from_mins(5) };
    let mut modulus = [0xc5; 256];
    modulus[1] = number;
    let key = PublicKey::rsa(&modulus, &[1, 0, 1]).expect("the modulus is odd and long");
    Publication::render(&terms, Profile::Entra, [Jwk::of_public_key(key)]).expect("there is a key")
}

pub(super) fn owner(lineage: &str, sequence: u64) -> Owner {
    Owner { lineage: Lineage::read(lineage), sequence }
}

/// The error and its causes, as a reporter prints them.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn public_address(public_url: Option<&str>) -> PublicAddress {
    PublicAddress { public_url: public_url.map(str::to_owned), ..PublicAddress::default() }
}

fn refused(location: Location, public_url: Option<&str>) -> String {
    let connections = Connections::default();
    let target = Target::new("t".to_owned(), location, &public_address(public_url), &connections);
    chain(&target.expect_err("the address makes no sense"))
}

#[test]
fn an_address_that_makes_no_sense_is_refused_with_the_name_of_the_target() {
    let directory = || Location::Directory("/nowhere".into());
    assert_eq!(
        refused(directory(), Some("ftp://issuer.example")),
        "cannot set up target `t`: `ftp://issuer.example` has scheme `ftp`, expected `https`"
    );
    assert_eq!(
        refused(directory(), Some("issuer.example")),
        "cannot set up target `t`: `issuer.example` is not a URL: relative URL without a base"
    );
    let bucket =
        |prefix: &str| Location::S3 { bucket: "b".to_owned(), prefix: prefix.to_owned(), endpoint: None };
    for prefix in ["a//b", "a/../b"] {
        let error = refused(bucket(prefix), None);
        assert!(error.contains(&format!("`{prefix}` cannot be a prefix")), "{error}");
    }
}

#[test]
fn a_credential_in_an_address_is_refused_and_not_shown() {
    let endpoint = Url::parse("https://user:hunter2@store.example/?sig=hunter2").expect("it is a URL");
    let location = Location::Azure {
        account: "a".to_owned(),
        container: "c".to_owned(),
        prefix: String::new(),
        endpoint: Some(endpoint),
    };
    let error = refused(location, None);
    assert_eq!(
        error,
        "cannot set up target `t`: `https://store.example` has a user name or password, expected none"
    );
}

#[tokio::test]
async fn what_relying_parties_read_is_named_by_its_url() {
    let connections = Connections::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let target = |public_url| {
        let location = Location::Directory("/nowhere".into());
        Target::new("t".to_owned(), location, &public_address(public_url), &connections).expect("a target")
    };
    let read = async |public_url| target(public_url).read_public(&publication(1)).await;
    assert_eq!(read(None).await.expect("nothing to read"), []);
    let error = read(Some(&url)).await.expect_err("nothing listens");
    assert_eq!(
        chain(&error),
        format!(
            "cannot read `{url}/openid/v1/jwks` of target `t`: cannot connect: Connection refused (os error 111)"
        )
    );
}
