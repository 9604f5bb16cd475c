//! The meaning of flags, alone and combined with a file.

use std::path::Path;

use super::{MINIMAL, load, load_for_keys, shows, texts};
use crate::{
    config::{Flags, KeyFlags, SourceConfig},
    core::{
        jose::{issuer::Issuer, jwk_set::Profile},
        location::Location,
    },
};

#[test]
fn nothing_at_all_is_the_embedded_default() {
    let config = load(&Flags::default(), None).expect("valid");
    assert_eq!("127.0.0.1:8080", config.listen.to_string());
    assert_eq!("127.0.0.1:9090", config.admin_listen.to_string());
    assert_eq!(Path::new("/home/ada/signpost-data"), &*config.data_dir);
    let [issuer] = &config.issuers[..] else { panic!("one issuer") };
    assert_eq!("http://127.0.0.1:8080", issuer.issuer.as_str());
    assert_eq!(Profile::Entra, issuer.profile);
    assert_eq!(
        [5, 30, 5],
        [issuer.jwks_max_age.get(), issuer.max_token_lifetime.get(), issuer.margin.get()]
            .map(|d| d.as_secs())
    );
    assert_eq!(vec![SourceConfig::Embedded], issuer.sources);
    let locations: Vec<_> = issuer.targets.iter().map(|target| target.location.clone()).collect();
    assert_eq!(vec![Location::Directory("/home/ada/signpost-data/public".into())], locations);
}

#[test]
fn the_embedded_issuer_follows_the_listener() {
    for (listen, issuer) in [
        ("0.0.0.0:9999", "http://127.0.0.1:9999"),
        ("[::]:9999", "http://127.0.0.1:9999"),
        ("[::1]:9999", "http://[::1]:9999"),
        ("127.0.0.1:80", "http://127.0.0.1"),
    ] {
        let flags = Flags { listen: Some(listen.to_owned()), ..Flags::default() };
        let config = load(&flags, None).expect("valid");
        assert_eq!((listen, issuer), (config.listen.to_string().as_str(), config.issuers[0].issuer.as_str()));
    }
}

#[test]
fn certificate_and_private_key_are_given_together_and_make_the_embedded_issuer_https() {
    let with = |certificate: Option<&str>, private_key: Option<&str>| Flags {
        tls_certificate: certificate.map(Into::into),
        tls_private_key: private_key.map(Into::into),
        ..Flags::default()
    };
    let config = load(&with(Some("tls.crt"), Some("/srv/tls.key")), None).expect("valid");
    let tls = config.tls.expect("it is given");
    assert_eq!(Path::new("/home/ada/tls.crt"), &*tls.certificate);
    assert_eq!(Path::new("/srv/tls.key"), &*tls.private_key);
    assert_eq!("https://127.0.0.1:8080", config.issuers[0].issuer.as_str());
    let file = format!("tls: {{certificate: /c, private_key: /k}}{MINIMAL}");
    let tls = load(&with(Some("/other"), None), Some(&file)).expect("valid").tls.expect("it is given");
    assert_eq!((Path::new("/other"), Path::new("/k")), (&*tls.certificate, &*tls.private_key));
    shows(
        load(&with(None, Some("tls.key")), None),
        "
1 problem in the flags
--tls-certificate: is missing
  hint: for example `--tls-certificate /etc/signpost/tls/tls.crt`",
    );
}

#[test]
fn the_embedded_issuer_needs_a_listener_that_names_it() {
    let with = |listen: &str| Flags { listen: Some(listen.to_owned()), ..Flags::default() };
    shows(
        load(&with("192.168.1.5:8080"), None),
        "
1 problem in the flags
--listen: `192.168.1.5:8080` is not loopback, and without an issuer the issuer is `http://LISTEN`
  hint: listen on `127.0.0.1`, or give `--issuer`",
    );
    shows(
        load(&with("127.0.0.1:0"), None),
        "
1 problem in the flags
--listen: `127.0.0.1:0` has port 0, and without an issuer the issuer is `http://LISTEN`
  hint: give a port, or `--issuer`",
    );
    shows(
        load(&with("8080"), None),
        "
1 problem in the flags
--listen: `8080` is not an address and port, expected `IP:PORT`",
    );
}

#[test]
fn an_embedded_keyring_may_sign_for_an_https_issuer() {
    let config =
        load(&about("https://oidc.example.com", &["embedded"], &["az://account/$web"]), None).expect("valid");
    assert_eq!(vec![SourceConfig::Embedded], config.issuers[0].sources);
    assert_eq!("0.0.0.0:8080", config.listen.to_string());
    assert_eq!(24 * 60 * 60, config.issuers[0].max_token_lifetime.get().as_secs());
}

#[test]
fn sources_are_words_or_paths_from_the_current_directory() {
    let sources = [
        "kubernetes",
        "kubernetes:arn:aws:eks:eu:1:cluster/a",
        "pki/sa.pub",
        "./kubernets",
        "*.pub",
        "/abs/[ab].pub",
    ];
    let config = load(&about("https://oidc.example.com", &sources, &[]), None).expect("valid");
    let names: Vec<_> = config.issuers[0].sources.iter().map(SourceConfig::name).collect();
    assert_eq!(
        [
            "kubernetes",
            "kubernetes:arn:aws:eks:eu:1:cluster/a",
            "/home/ada/pki/sa.pub",
            "/home/ada/kubernets",
            "/home/ada/*.pub",
            "/abs/[ab].pub"
        ],
        names[..]
    );
}

#[test]
fn the_current_directory_is_not_part_of_a_glob() {
    let now = "2026-11-21T00:00:00Z".parse().expect("a time");
    let flags = about("https://oidc.example.com", &["*.pub"], &[]);
    let config = super::super::load(&flags, None, Path::new("/home/a*a"), now).expect("valid");
    assert_eq!("/home/a[*]a/*.pub", config.issuers[0].sources[0].name());
}

#[test]
fn targets_are_urls_or_directories_from_the_current_directory() {
    let targets = ["az://account/$web/kind", "out/oidc", "./b/", "file://c", "file:///d", "/e"];
    let config = load(&about("https://oidc.example.com", &["kubernetes"], &targets), None).expect("valid");
    let locations: Vec<_> =
        config.issuers[0].targets.iter().map(|target| target.location.to_string()).collect();
    assert_eq!(
        [
            "az://account/$web/kind",
            "file:///home/ada/out/oidc",
            "file:///home/ada/b",
            "file:///home/ada/c",
            "file:///d",
            "file:///e"
        ],
        locations[..]
    );
}

#[test]
fn faults_of_flags_are_named_by_the_flag() {
    let flags = Flags {
        schedule: Some("* * * *".to_owned()),
        keys: KeyFlags {
            profile: Some("azure".to_owned()),
            ..about("http://oidc.example.com", &["kubernets", "kubernetes:", "", "embeded:x"], &[]).keys
        },
        targets: texts(&["gs://Bucket", "az:/account", ""]),
        ..Flags::default()
    };
    shows(
        load(&flags, None),
        "
10 problems in the flags
--source: unknown source `kubernets`, did you mean `kubernetes`?
  hint: write `./kubernets` for a file of that name
--source: `kubernetes:` has no context, expected `kubernetes:CONTEXT`
--source: is empty, expected `kubernetes`, `url:URL`, `embedded` or a path
--source: unknown source `embeded:x`, did you mean `embedded`?
  hint: write `./embeded:x` for a file of that name
--target: is empty, expected a URL or a directory
--issuer: issuer `http://oidc.example.com` has scheme `http`, expected `https` (`http` is only for loopback hosts)
--profile: unknown value `azure`, expected one of `entra`, `all`
--target: `gs://Bucket` has bucket `Bucket`, expected 3 to 63 lower-case letters, digits, hyphens, underscores and dots
  hint: write `gs://BUCKET/PREFIX`
--target: `az:/account` has no scheme, expected one of `az://…`, `s3://…`, `gs://…`, `gcp-wif://…`, `file:///…`
--schedule: `* * * *` has 4 fields, expected five fields: minute hour day month weekday, UTC
  hint: for example `*/5 * * * *`, every five minutes",
    );
}

#[test]
fn a_source_without_an_issuer_or_an_issuer_without_a_source_is_not_enough() {
    let mut flags = about("https://oidc.example.com", &["kubernetes"], &[]);
    flags.keys.issuer = None;
    shows(
        load(&flags, None),
        "
1 problem in the flags
--issuer: is missing
  hint: for example `--issuer https://oidc.example.com/kind`",
    );
    shows(
        load(&about("https://oidc.example.com", &[], &[]), None),
        "
1 problem in the flags
--source: is missing
  hint: for example `--source kubernetes`, `--source /etc/kubernetes/pki/sa.pub` or `--source embedded`",
    );
}

#[test]
fn the_same_flag_twice_is_refused_as_in_a_file() {
    shows(
        load(
            &about("https://oidc.example.com", &["kubernetes", "kubernetes", "embedded"], &["/a", "/a"]),
            None,
        ),
        "
3 problems in the flags
--source: `kubernetes` is given twice
--source: `embedded` is not the only source, expected no other
  hint: if kube-apiserver uses this process as its signer, add `signer`
--target: `file:///a` is given twice",
    );
}

#[test]
fn flags_go_before_the_file_and_the_file_before_defaults() {
    let yaml = format!("listen: 127.0.0.1:1111\nadmin_listen: 127.0.0.1:2222{MINIMAL}    margin: 2h\n");
    let flags = Flags {
        listen: Some("127.0.0.1:3333".to_owned()),
        keys: KeyFlags {
            data_dir: Some("data".into()),
            profile: Some("all".to_owned()),
            ..about("https://flag.example.com", &["sa.pub"], &[]).keys
        },
        targets: texts(&["out"]),
        schedule: Some("0 * * * *".to_owned()),
        ..Flags::default()
    };
    let config = load(&flags, Some(&yaml)).expect("valid");
    assert_eq!("127.0.0.1:3333", config.listen.to_string(), "flag");
    assert_eq!("127.0.0.1:2222", config.admin_listen.to_string(), "file");
    assert_eq!(Path::new("/home/ada/data"), &*config.data_dir, "flag");
    let issuer = &config.issuers[0];
    assert_eq!("https://flag.example.com", issuer.issuer.as_str(), "flag");
    assert_eq!(Profile::All, issuer.profile, "flag");
    assert_eq!("/home/ada/sa.pub", issuer.sources[0].name(), "flag");
    assert_eq!("file:///home/ada/out", issuer.targets[0].name, "flag");
    assert_eq!("0 * * * *", issuer.schedule.as_str(), "flag");
    assert_eq!(2 * 60 * 60, issuer.margin.get().as_secs(), "file");
    assert_eq!(300, issuer.jwks_max_age.get().as_secs(), "default");
}

#[test]
fn a_flag_repairs_what_is_wrong_in_the_file() {
    let yaml = "listen: 1\nissuers: [{issuer: http://oidc.example.com, sources: [{kind: api-server}]}]";
    let mut flags = Flags { listen: Some("127.0.0.1:1".to_owned()), ..Flags::default() };
    flags.keys.issuer = Some("https://oidc.example.com".to_owned());
    assert_eq!("127.0.0.1:1", load(&flags, Some(yaml)).expect("valid").listen.to_string());
}

#[test]
fn a_file_without_issuers_is_completed_by_flags() {
    let config = load(&about("https://oidc.example.com", &["kubernetes"], &[]), Some("listen: 127.0.0.1:1"))
        .expect("valid");
    assert_eq!("127.0.0.1:1", config.listen.to_string());
    assert_eq!("https://oidc.example.com", config.issuers[0].issuer.as_str());
}

#[test]
fn flags_that_speak_of_one_issuer_are_refused_where_the_file_has_several() {
    let yaml =
        format!("{MINIMAL}  - issuer: https://oidc.example.com/b\n    sources: [{{kind: api-server}}]\n");
    let mut flags = about("https://oidc.example.com", &[], &["out"]);
    flags.listen = Some("127.0.0.1:1".to_owned());
    shows(
        load(&flags, Some(&yaml)),
        "
2 problems in the flags
--issuer: applies to one issuer, but the file has 2
  hint: set it in the file
--target: applies to one issuer, but the file has 2
  hint: set it in the file",
    );
}

#[test]
fn keys_are_printed_without_an_issuer_and_all_of_them() {
    let flags = KeyFlags { sources: texts(&["kubernetes:kind-kind"]), ..KeyFlags::default() };
    let keys = load_for_keys(&flags, None).expect("valid");
    assert_eq!((None, Profile::All), (keys.issuer, keys.profile));
    assert_eq!("kubernetes:kind-kind", keys.sources[0].name());
    let flags = KeyFlags { profile: Some("entra".to_owned()), ..flags };
    assert_eq!(Profile::Entra, load_for_keys(&flags, None).expect("valid").profile);
}

#[test]
fn keys_of_a_file_are_those_of_its_one_issuer() {
    let keys = load_for_keys(&KeyFlags::default(), Some(MINIMAL)).expect("valid");
    assert_eq!(Some("https://oidc.example.com/kind"), keys.issuer.as_ref().map(Issuer::as_str));
    assert_eq!("kubernetes", keys.sources[0].name());
    let yaml =
        format!("{MINIMAL}  - issuer: https://oidc.example.com/b\n    sources: [{{kind: api-server}}]\n");
    assert_eq!(
        "1 problem in `config.yaml`
issuers: has 2 issuers, expected one to print the keys of
  hint: pass the sources with `--source`, without the file",
        load_for_keys(&KeyFlags::default(), Some(&yaml)).expect_err("two").to_string()
    );
}

#[test]
fn keys_with_nothing_named_are_those_of_the_embedded_keyring() {
    let keys = load_for_keys(&KeyFlags::default(), None).expect("valid");
    assert_eq!(vec![SourceConfig::Embedded], keys.sources);
    assert_eq!(Path::new("/home/ada/signpost-data"), &*keys.data_dir);
}

fn about(issuer: &str, sources: &[&str], targets: &[&str]) -> Flags {
    Flags {
        keys: KeyFlags { issuer: Some(issuer.to_owned()), sources: texts(sources), ..KeyFlags::default() },
        targets: texts(targets),
        ..Flags::default()
    }
}

#[test]
fn a_pod_that_events_are_about_is_named_in_flags_or_in_the_file() {
    let with = |pod: Option<&str>, uid: Option<&str>| Flags {
        events_pod: pod.map(str::to_owned),
        events_pod_uid: uid.map(str::to_owned),
        ..Flags::default()
    };
    assert_eq!(None, load(&with(None, None), Some(MINIMAL)).expect("valid").events);
    let events = load(&with(Some("signpost/a.b-0"), Some("6f1c")), Some(MINIMAL)).expect("valid").events;
    let events = events.expect("it is given");
    assert_eq!(
        ("signpost", "a.b-0", Some("6f1c")),
        (&*events.pod.namespace, &*events.pod.name, events.pod_uid.as_deref())
    );
    let file = format!("events: {{pod: a/b, context: kind}}{MINIMAL}");
    let events = load(&with(Some("c/d"), None), Some(&file)).expect("valid").events.expect("it is given");
    assert_eq!(
        ("c", "d", Some("kind")),
        (&*events.pod.namespace, &*events.pod.name, events.context.as_deref())
    );
    shows(
        load(&with(None, Some("6f1c")), Some(MINIMAL)),
        "
1 problem in the flags
--events-pod: is missing
  hint: for example `--events-pod signpost/signpost-0`",
    );
}
