//! Valid configurations and their meaning.

use std::{path::Path, time::Duration};

use proptest::prelude::*;
use serde::de::{DeserializeOwned, value::StrDeserializer};

use super::{MINIMAL, accepted, load};
use crate::{
    config::{
        AbsolutePath, ApiServerConfig, FilesConfig, Flags, Instance, Seconds, SourceConfig, UrlConfig,
        document, duration,
    },
    core::{
        jose::jwk_set::Profile,
        location::Location,
        service_account::ServiceAccount,
        verification::{Cloud, Party},
    },
};

/// Most keys at least once.
const FULL: &str = "
listen: 127.0.0.1:8443
admin_listen: 127.0.0.1:9443
tls: {certificate: /srv/tls.crt, private_key: /srv/tls.key}
max_connections: 20
data_dir: /srv/signpost
events: {pod: signpost/signpost-0, pod_uid: 6f1c6f0c, kubeconfig: /srv/kubeconfig, context: \"true\"}
issuers:
  - issuer: https://oidc.example.com/kind
    jwks_uri: https://keys.example.com/kind
    jwks_served_elsewhere: true
    profile: all
    jwks_max_age: 60s
    max_token_lifetime: 1h30m
    margin: 10m
    rotate_within: {opens: \"30  2 * * SUN\", for: 240m, time_zone: Europe/Amsterdam}
    allow_issuer_mismatch: true
    sources:
      - kind: api-server
        name: cluster
        kubeconfig: /srv/kubeconfig
        context: \"true\"
        discover: false
        instances:
          - {url: \"https://10.0.0.1:6443\", tls_server_name: kubernetes.default.svc}
          - {url: \"https://10.0.0.2:6443\"}
        probe: signpost/probe
        every: 5s
      - {kind: files, name: ahead, paths: [/srv/keys/*.pub, /srv/jwks.json], optional: true, every: 1m}
      - kind: url
        name: edge
        url: \"https://10.0.0.9:6443/openid/v1/jwks\"
        bearer_token_file: /srv/edge/token
        ca_file: /srv/edge/ca.crt
        every: 10s
    targets:
      - {url: \"az://account/$web\", public_url: \"https://oidc.example.com/kind/\"}
      - {url: \"s3://bucket/a/b/\", name: eu, endpoint: \"http://127.0.0.1:9000\", ca_file: /srv/s3.crt, profile: entra}
      - {url: \"gs://my_bucket.example.com/c1\", anonymous: true, required_for_rotation: false}
      - {url: \"file:///srv/oidc\"}
      - {url: \"gcp-wif://projects/acme.org:oidc/locations/global/workloadIdentityPools/clusters/providers/kind-1\"}
    schedule: \"0  3 * * MON\"
    verify: {every: 1h, for: entra, cloud: usgov, audience: me, service_account: signpost/probe, allow_private: true, ca_file: /srv/ca.crt, exchange: {tenant: a.onmicrosoft.com, client_id: 85075aa5-1d73-42de-812a-95348218e4b2, authority: \"https://login.microsoftonline.us\"}}
  - issuer: https://oidc.example.com/other
    sources: [{kind: embedded}]
";

fn value_of<T: DeserializeOwned>(text: &str) -> T {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text)).expect("valid")
}

#[test]
fn what_is_not_written_has_its_default() {
    let config = accepted(MINIMAL);
    assert_eq!("0.0.0.0:8080", config.listen.to_string());
    assert_eq!("127.0.0.1:9090", config.admin_listen.to_string());
    assert_eq!((None, 1000), (config.tls, config.max_connections.get()));
    assert_eq!(Path::new("/var/lib/signpost"), &*config.data_dir);
    let [issuer] = &config.issuers[..] else { panic!("one issuer") };
    assert_eq!("https://oidc.example.com/kind/openid/v1/jwks", issuer.jwks_uri());
    assert_eq!(Profile::Entra, issuer.profile);
    assert_eq!(
        [300, 86400, 3600],
        [issuer.jwks_max_age.get(), issuer.max_token_lifetime.get(), issuer.margin.get()]
            .map(|d| d.as_secs())
    );
    assert_eq!(None, issuer.rotate_within());
    assert!(!issuer.allow_issuer_mismatch);
    assert!(issuer.targets.is_empty());
    assert_eq!("*/5 * * * *", issuer.schedule.as_str());
    assert_eq!("0 */5 * * * *", issuer.schedule.as_six_fields());
    let source = SourceConfig::ApiServer(ApiServerConfig {
        name: "kubernetes".to_owned(),
        kubeconfig: None,
        context: None,
        discover: true,
        instances: vec![],
        probe: None,
        every: Seconds::new(30),
    });
    assert_eq!(vec![source], issuer.sources);
}

#[test]
fn what_a_token_is_verified_for_follows_from_the_issuer_and_the_party() {
    let verified = |issuer: &str, verify: &str| {
        let sources = "sources: [{kind: api-server}]";
        let config = accepted(&format!(
            "data_dir: /srv\nissuers: [{{issuer: \"{issuer}\", {sources}, verify: {verify}}}]"
        ));
        let verify = config.issuers[0].verify.clone().expect("it is written");
        assert_eq!(
            (600, None, false),
            (verify.every.get().as_secs(), verify.service_account.clone(), verify.allow_private)
        );
        (verify.party(), verify.audience)
    };
    let (world, here) = ("https://oidc.example.com", "https://127.0.0.1:8443/kind");
    let (entra, aws) = ("api://AzureADTokenExchange", "sts.amazonaws.com");
    for (issuer, verify, party, audience) in [
        (world, "{}", Party::Entra, entra),
        (world, "{cloud: china}", Party::Entra, "api://AzureADTokenExchangeChina"),
        (world, "{for: aws}", Party::Aws, aws),
        (world, "{for: gcp, audience: //iam.googleapis.com/pool}", Party::Gcp, "//iam.googleapis.com/pool"),
        (here, "{}", Party::Local, entra),
        (here, "{for: entra}", Party::Entra, entra),
    ] {
        assert_eq!((party, audience.to_owned()), verified(issuer, verify), "{issuer} {verify}");
    }
}

#[test]
fn what_is_written_is_what_is_meant() {
    let config = accepted(FULL);
    assert_eq!("127.0.0.1:8443", config.listen.to_string());
    assert_eq!("127.0.0.1:9443", config.admin_listen.to_string());
    assert_eq!(Path::new("/srv/signpost"), &*config.data_dir);
    let [issuer, other] = &config.issuers[..] else { panic!("two issuers") };
    assert_eq!("https://keys.example.com/kind", issuer.jwks_uri());
    assert_eq!(Profile::All, issuer.profile);
    assert_eq!(
        [60, 5400, 600],
        [issuer.jwks_max_age.get(), issuer.max_token_lifetime.get(), issuer.margin.get()]
            .map(|d| d.as_secs())
    );
    let window = issuer.rotate_within().expect("a window");
    assert_eq!(
        ("30 2 * * SUN", Duration::from_hours(4), "Europe/Amsterdam"),
        (window.opens().as_str(), window.open_for(), window.zone())
    );
    assert!(issuer.allow_issuer_mismatch);
    assert_eq!("0 3 * * MON", issuer.schedule.as_str());
    let verify = issuer.verify.as_ref().expect("it is written");
    assert_eq!(
        (3600, Party::Entra, Cloud::UsGov, "me", true),
        (
            verify.every.get().as_secs(),
            verify.party(),
            verify.cloud(),
            &*verify.audience,
            verify.allow_private
        )
    );
    assert_eq!(Some("signpost/probe"), verify.service_account.as_ref().map(ToString::to_string).as_deref());
    assert_eq!(Some(Path::new("/srv/ca.crt")), verify.ca_file.as_deref());
    let exchange = verify.exchange.as_ref().expect("it is written");
    assert_eq!(("a.onmicrosoft.com", None), (&*exchange.tenant, exchange.scope.as_deref()));
    assert_eq!(Some("https://login.microsoftonline.us"), exchange.authority.as_deref());
    assert_eq!(None, other.verify);
    let path = |path: &str| Some(AbsolutePath::new(path));
    let instance =
        |url: &str, name: Option<&str>| Instance { url: value_of(url), tls_server_name: name.map(value_of) };
    let api_server = SourceConfig::ApiServer(ApiServerConfig {
        name: "cluster".to_owned(),
        kubeconfig: path("/srv/kubeconfig"),
        context: Some("true".to_owned()),
        discover: false,
        instances: vec![
            instance("https://10.0.0.1:6443", Some("kubernetes.default.svc")),
            instance("https://10.0.0.2:6443", None),
        ],
        probe: Some(ServiceAccount::new("signpost", "probe").expect("valid")),
        every: Seconds::new(5),
    });
    let files = SourceConfig::Files(FilesConfig {
        name: "ahead".to_owned(),
        paths: ["/srv/keys/*.pub", "/srv/jwks.json"].map(value_of).to_vec(),
        optional: true,
        every: Seconds::new(60),
    });
    let url = SourceConfig::Url(UrlConfig {
        name: "edge".to_owned(),
        url: value_of("https://10.0.0.9:6443/openid/v1/jwks"),
        bearer_token_file: path("/srv/edge/token"),
        ca_file: path("/srv/edge/ca.crt"),
        every: Seconds::new(10),
    });
    assert_eq!(vec![api_server, files, url], issuer.sources);
    let [azure, s3, gcs, directory, provider] = &issuer.targets[..] else { panic!("five targets") };
    let location = Location::Azure {
        account: "account".to_owned(),
        container: "$web".to_owned(),
        prefix: String::new(),
        endpoint: None,
    };
    assert_eq!(
        ("az://account/$web", &location, Profile::All),
        (azure.name.as_str(), &azure.location, azure.profile())
    );
    assert_eq!(Some("https://oidc.example.com/kind"), azure.public_url());
    let location = Location::S3 {
        bucket: "bucket".to_owned(),
        prefix: "a/b".to_owned(),
        endpoint: Some("http://127.0.0.1:9000".parse().expect("a URL")),
    };
    assert_eq!(("eu", &location, Profile::Entra), (s3.name.as_str(), &s3.location, s3.profile()));
    assert_eq!((false, true), (s3.anonymous, s3.required_for_rotation));
    assert_eq!((None, Some(Path::new("/srv/s3.crt"))), (azure.ca_file.as_deref(), s3.ca_file.as_deref()));
    let location =
        Location::Gcs { bucket: "my_bucket.example.com".to_owned(), prefix: "c1".to_owned(), endpoint: None };
    assert_eq!((&location, true, false), (&gcs.location, gcs.anonymous, gcs.required_for_rotation));
    assert_eq!(Location::Directory("/srv/oidc".into()), directory.location);
    assert_eq!("file:///srv/oidc", directory.name);
    let name = "projects/acme.org:oidc/locations/global/workloadIdentityPools/clusters/providers/kind-1";
    assert_eq!(
        Location::WorkloadIdentityProvider { name: name.to_owned(), endpoint: None },
        provider.location
    );
    assert_eq!(vec![SourceConfig::Embedded], other.sources);
}

#[test]
fn what_is_shown_is_a_file_that_means_the_same() {
    for yaml in [MINIMAL, FULL] {
        let config = accepted(yaml);
        assert_eq!(config, accepted(&config.show()), "{}", config.show());
    }
    let embedded = load(&Flags::default(), None).expect("the embedded default");
    assert_eq!(embedded, accepted(&embedded.show()));
}

#[test]
fn a_configuration_is_shown_with_its_defaults() {
    assert_eq!(
        "listen: 0.0.0.0:8080
admin_listen: 127.0.0.1:9090
max_connections: 1000
data_dir: /var/lib/signpost
issuers:
- issuer: https://oidc.example.com/kind
  jwks_uri: https://oidc.example.com/kind/openid/v1/jwks
  jwks_served_elsewhere: false
  profile: entra
  jwks_max_age: 5m
  max_token_lifetime: 24h
  margin: 1h
  propagation: 24h
  rotate_after: 720h
  allow_issuer_mismatch: false
  sources:
  - kind: api-server
    name: kubernetes
    discover: true
    every: 30s
  targets: []
  schedule: \"*/5 * * * *\"
",
        accepted(MINIMAL).show()
    );
}

#[test]
fn the_last_day_of_february_comes_to_pass() {
    let yaml = format!("{MINIMAL}    schedule: \"0 0 29 2 *\"\n");
    assert_eq!("0 0 29 2 *", accepted(&yaml).issuers[0].schedule.as_str());
}

#[test]
fn an_accepted_schedule_is_one_that_the_scheduler_runs() {
    for schedule in ["*/5 * * * *", "0 3 * * MON", "0,30 1-5 L * *", "15 4 1 jan,jul *", "0 0 29 2 +MON"] {
        let yaml = format!("{MINIMAL}    schedule: \"{schedule}\"\n");
        let six = accepted(&yaml).issuers[0].schedule.as_six_fields();
        tokio_cron_scheduler::Job::new(&six, |_, _| {}).unwrap_or_else(|error| panic!("{six}: {error}"));
    }
}

#[test]
fn two_listeners_on_any_free_port_do_not_meet() {
    accepted(&format!("listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0{MINIMAL}"));
}

proptest! {
    #[test]
    fn a_duration_is_read_as_it_is_shown(seconds in 1_u64..=60 * 60 * 24 * 366) {
        let duration = Duration::from_secs(seconds);
        let read: Seconds<1, { 366 * 24 * 3600 }> = value_of(&duration::duration_text(duration));
        prop_assert_eq!(duration, read.get());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,80}") {
        let _ = load(&Flags::default(), Some(&text));
    }

    #[test]
    fn no_value_makes_the_reader_panic(
        key in prop::sample::select(vec!["issuer", "profile", "margin", "sources", "targets", "schedule", "jwks_uri"]),
        value in "[\\]\\[{}a-z0-9:/@?#\"* -]{0,24}"
    ) {
        let _ = load(&Flags::default(), Some(&format!("issuers:\n  - {key}: {value}\n")));
    }
}

#[test]
fn a_file_may_hold_ten_thousand_issuers_with_all_that_they_need() {
    let values = vec!["0"; 300_000].join(",");
    document::parse(&format!("[{values}]")).expect("no fault");
}
