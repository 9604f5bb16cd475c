use super::*;

#[test]
fn the_address_of_a_bucket_is_the_one_that_s3_shows_to_everybody() {
    use AmazonS3ConfigKey::{Endpoint, Region, S3Endpoint, VirtualHostedStyleRequest};
    let address = |bucket: &str, settings: &[(AmazonS3ConfigKey, &str)]| {
        s3_address(bucket, |wanted| {
            let found = settings.iter().find(|(key, _)| *key == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(address("oidc", &[]), "https://oidc.s3.us-east-1.amazonaws.com");
    assert_eq!(address("oidc", &[(Region, "eu-west-1")]), "https://oidc.s3.eu-west-1.amazonaws.com");
    let dotted = address("oidc.example.com", &[(Region, "eu-west-1")]);
    assert_eq!(dotted, "https://s3.eu-west-1.amazonaws.com/oidc.example.com");
    let private = [(Endpoint, "https://any.example"), (S3Endpoint, "https://s3.example/")];
    assert_eq!(address("oidc", &private), "https://s3.example/oidc");
    let virtual_hosted = [(Endpoint, "https://oidc.s3.example"), (VirtualHostedStyleRequest, "true")];
    assert_eq!(address("oidc", &virtual_hosted), "https://oidc.s3.example");
}

fn address(service: &Service, endpoint: Option<&str>) -> String {
    let endpoint = endpoint.map(|url| Url::parse(url).expect("a URL"));
    let connections = Connections::default();
    service.open(endpoint.as_ref(), &connections).expect("it can be opened").address
}

#[test]
fn a_container_and_a_bucket_of_gcs_stand_below_their_service() {
    let azure = Service::Azure { account: "acme".to_owned(), container: "oidc".to_owned() };
    assert_eq!(address(&azure, None), "https://acme.blob.core.windows.net/oidc");
    assert_eq!(address(&azure, Some("http://127.0.0.1:1/acme/")), "http://127.0.0.1:1/acme/oidc");
    let gcs = Service::Gcs { bucket: "oidc".to_owned() };
    assert_eq!(address(&gcs, None), "https://storage.googleapis.com/oidc");
    assert_eq!(address(&gcs, Some("http://127.0.0.1:1")), "http://127.0.0.1:1/oidc");
}
