//! Exact messages for faults of the file as a whole.

use super::{MINIMAL, load, refused, shows};
use crate::config::Flags;

#[test]
fn a_misspelt_key_is_named_with_its_path() {
    refused(
        "
isuers: []
issuers:
  - isuer: https://oidc.example.com
    issuer: https://oidc.example.com
    sources: [{kind: api-server, evry: 5s, instances: [{url: \"https://10.0.0.1:6443\", servername: x}]}]
    targets: [{url: \"file:///srv/oidc\", publicurl: \"https://oidc.example.com\"}]
",
        "
5 problems in `config.yaml`
isuers: unknown key, did you mean `issuers`?
issuers[0].isuer: unknown key, did you mean `issuer`?
issuers[0].sources[0].evry: unknown key, did you mean `every`?
issuers[0].sources[0].instances[0].servername: unknown key, expected one of `url`, `tls_server_name`
issuers[0].targets[0].publicurl: unknown key, did you mean `public_url`?",
    );
}

#[test]
fn a_key_in_the_wrong_place_is_told_where_it_belongs() {
    refused(
        &format!("issuer: https://oidc.example.com/kind{MINIMAL}"),
        "
1 problem in `config.yaml`
issuer: unknown key here, it belongs to issuers[]",
    );
    refused(
        "
issuers:
  - issuer: https://oidc.example.com/kind
    sources: [{kind: api-server, paths: [/etc/kubernetes/pki/sa.pub]}]
",
        "
1 problem in `config.yaml`
issuers[0].sources[0].paths: unknown key here, it belongs to issuers[].sources[] of kind `files`",
    );
}

#[test]
fn a_value_of_another_type_is_refused() {
    refused(
        "
listen: 8080
data_dir: [/var/lib/signpost]
issuers:
  issuer: https://oidc.example.com/kind
",
        "
3 problems in `config.yaml`
listen: is the number `8080`, expected an address and port, `IP:PORT`
data_dir: is a list, expected an absolute path
issuers: is a mapping, expected a list of mappings",
    );
    refused(
        "
issuers:
  - https://oidc.example.com/kind
  - issuer:
    allow_issuer_mismatch: yes
    profile: {name: all}
    sources:
      - api-server
      - {kind: files, paths: /etc/kubernetes/pki/sa.pub}
      - {kind: files, paths: [{path: /etc/kubernetes/pki/sa.pub}]}
      - {kind: api-server, context: 7}
    targets: s3://bucket
",
        "
9 problems in `config.yaml`
issuers[0]: is the text `https://oidc.example.com/kind`, expected a mapping with `issuer` and `sources`
issuers[1].issuer: is empty, expected a URL
issuers[1].allow_issuer_mismatch: is the text `yes`, expected `true` or `false`
issuers[1].profile: is a mapping, expected a word
issuers[1].sources[0]: is the text `api-server`, expected a mapping with `kind`
issuers[1].sources[1].paths: is the text `/etc/kubernetes/pki/sa.pub`, expected a list of texts
issuers[1].sources[2].paths[0]: is a mapping, expected text
issuers[1].sources[3].context: is the number `7`, expected text
  hint: write `\"7\"`
issuers[1].targets: is the text `s3://bucket`, expected a list of mappings",
    );
}

#[test]
fn what_is_missing_is_named_with_an_example() {
    refused(
        "{}",
        "
1 problem in `config.yaml`
issuers: is missing, expected a list of mappings
  hint: for example `issuers: [{issuer: https://oidc.example.com/kind, sources: [{kind: api-server}]}]`",
    );
    refused(
        "
issuers:
  - targets: [{name: eu}]
    sources: [{paths: [/a]}, {kind: files}]
",
        "
4 problems in `config.yaml`
issuers[0].issuer: is missing, expected a URL
  hint: for example `issuer: https://oidc.example.com/kind`
issuers[0].targets[0].url: is missing, expected a URL
  hint: for example `url: az://account/$web`
issuers[0].sources[0]: has no `kind`, expected one of `api-server`, `files`, `url`, `announcements`, `embedded`
issuers[0].sources[1].paths: is missing, expected a list of texts
  hint: for example `paths: [/etc/kubernetes/pki/sa.pub]`",
    );
}

#[test]
fn lists_that_must_not_be_empty_are_refused_when_they_are() {
    refused(
        "issuers: []",
        "
1 problem in `config.yaml`
issuers: is an empty list, expected at least one item",
    );
    refused(
        "issuers: [{issuer: https://oidc.example.com/kind, sources: []}]",
        "
1 problem in `config.yaml`
issuers[0].sources: is an empty list, expected at least one item",
    );
}

#[test]
fn words_have_the_nearest_known_one_suggested() {
    refused(
        "
issuers:
  - issuer: https://oidc.example.com/kind
    profile: entr
    sources: [{kind: apiserver}, {kind: vault}]
    targets: [{url: \"file:///srv/oidc\", profile: everything}]
",
        "
4 problems in `config.yaml`
issuers[0].profile: unknown value `entr`, did you mean `entra`?
issuers[0].sources[0].kind: unknown kind `apiserver`, did you mean `api-server`?
issuers[0].sources[1].kind: unknown kind `vault`, expected one of `api-server`, `files`, `url`, `announcements`, `embedded`
issuers[0].targets[0].profile: unknown value `everything`, expected one of `entra`, `all`",
    );
}

#[test]
fn what_must_be_unique_is_named_with_its_first_holder() {
    refused(
        "
issuers:
  - issuer: https://oidc.example.com/kind
    sources: [{kind: api-server}, {kind: api-server}]
    targets:
      - {url: \"file:///srv/a\", name: eu}
      - {url: \"file:///srv/b\", name: eu}
      - {url: \"file:///srv/a/\"}
  - issuer: https://oidc.example.com/kind/
    sources: [{kind: files, paths: [/srv/sa.pub]}]
    targets: [{url: \"file:///srv/b\"}]
",
        "
5 problems in `config.yaml`
issuers[0].sources[1]: `kubernetes` is the name of `issuers[0].sources[0]` too, expected another
issuers[0].targets[1]: `eu` is the name of `issuers[0].targets[0]` too, expected another
issuers[0].targets[2].url: `file:///srv/a` is the location of `issuers[0].targets[0]` too, expected another
issuers[1].issuer: `https://oidc.example.com/kind/` is the issuer of `issuers[0]` too, expected another
issuers[1].targets[0].url: `file:///srv/b` is the location of `issuers[0].targets[1]` too, expected another",
    );
}

#[test]
fn control_characters_are_refused_and_not_sent_to_the_terminal() {
    refused(
        "
\"\\e[2J\": 1
issuers:
  - issuer: https://oidc.example.com
    sources:
      - {kind: api-server, name: \"a\\nb\"}
      - {kind: files, paths: [\"/a\\tb\"]}
",
        r"
3 problems in `config.yaml`
\u{1b}[2J: unknown key, expected one of `listen`, `admin_listen`, `tls`, `max_connections`, `data_dir`, `events`, `issuers`
issuers[0].sources[0].name: `a\nb` has a control character, expected none
issuers[0].sources[1].paths[0]: `/a\tb` has a control character, expected none",
    );
}

#[test]
fn a_file_that_is_not_yaml_is_refused_with_line_and_column() {
    for (text, expected) in [
        ("issuers: [1\n", "line 1, column 10: unclosed bracket '['"),
        ("listen: a: b\n", "line 1, column 10: mapping values are not allowed in this context"),
        (
            "issuers:\n  - issuer: \"https://oidc.example.com\n",
            "line 3, column 1: invalid indentation in multiline quoted scalar",
        ),
        (
            "listen: 0.0.0.0:8080\nlisten: 0.0.0.0:8081\n",
            "line 2, column 1: key `listen` is written twice, expected once",
        ),
        (
            "issuers:\n\t- issuer: https://oidc.example.com\n",
            "line 2, column 2: tabs disallowed within this context (block indentation)\n  hint: indent with spaces",
        ),
        (
            "issuers:\n  - schedule: */5 * * * *\n",
            "line 2, column 15: a text that begins with `*` is not in quotes
  hint: write it in quotes: `\"*/5 * * * *\"`",
        ),
        (
            "issuers: []\n---\nissuers: []\n",
            "line 3, column 1: only single YAML document expected but multiple found",
        ),
    ] {
        refused(text, &format!("1 problem in `config.yaml`\n{expected}"));
    }
}

#[test]
fn a_file_that_holds_no_mapping_is_refused() {
    for (text, found) in [
        ("", "empty"),
        ("# later\n", "empty"),
        ("- issuers\n", "a list"),
        ("issuers\n", "the text `issuers`"),
        ("12\n", "the number `12`"),
    ] {
        refused(
            text,
            &format!(
                "1 problem in `config.yaml`\nthe top level: is {found}, expected a mapping with `issuers`"
            ),
        );
    }
}

#[test]
fn faults_of_flags_come_before_those_of_the_file_in_its_order() {
    let yaml = "
issuers:
  - targets: [{url: \"s4://bucket\"}]
    schedule: daily
    sources: [{kind: api-server, every: 5}]
    margin: 0s
lisen: 1
";
    let flags =
        Flags { listen: Some("8080".to_owned()), admin_listen: Some("x".to_owned()), ..Flags::default() };
    shows(
        load(&flags, Some(yaml)),
        "
8 problems in the flags and `config.yaml`
--listen: `8080` is not an address and port, expected `IP:PORT`
--admin-listen: `x` is not an address and port, expected `IP:PORT`
issuers[0].issuer: is missing, expected a URL
  hint: for example `issuer: https://oidc.example.com/kind`
issuers[0].targets[0].url: `s4://bucket` has the unknown scheme `s4`, did you mean `s3`?
issuers[0].schedule: `daily` has one field, expected five fields: minute hour day month weekday, UTC
  hint: for example `*/5 * * * *`, every five minutes
issuers[0].sources[0].every: is the number `5`, expected a duration such as `30s`, `5m` or `1h30m`
  hint: write `5s`
issuers[0].margin: `0s` is too short, expected `1s` to `8784h`
lisen: unknown key, did you mean `listen`?",
    );
}

#[test]
fn a_fault_hides_no_other_that_does_not_depend_on_it() {
    refused(
        "
issuers:
  - issuer: https://a.example.com
    max_token_lifetime: 1m
    sources: [{kind: files, name: x, paths: [y], every: 5}, {kind: files, name: x, paths: [/z]}]
    schedule: \"0 0 30 2 *\"
    verify: {}
  - issuer: https://b.example.com
    sources: [{kind: api-server}]
    schedule: \"0 0 30 2 *\"
    signer: {key_type: es256}
    profile: all
    targets: [{url: \"s3://B\", profile: entra}]
",
        "
8 problems in `config.yaml`
issuers[0].max_token_lifetime: `1m` is too short, expected at least `10m`, the shortest that Kubernetes gives a token
issuers[0].sources[0].paths[0]: `y` is relative, expected an absolute path
  hint: paths in a file must be absolute; flags may use relative paths
issuers[0].sources[0].every: is the number `5`, expected a duration such as `30s`, `5m` or `1h30m`
  hint: write `5s`
issuers[0].sources[1]: `x` is the name of `issuers[0].sources[0]` too, expected another
issuers[0].schedule: `0 0 30 2 *` never occurs
  hint: no month has that day; where day and weekday are given, both must match
issuers[0].verify: no source issues tokens, expected `api-server` or `embedded` among `sources`
  hint: remove `verify`, and run `signpost verify` where tokens are
issuers[1].schedule: `0 0 30 2 *` never occurs
  hint: no month has that day; where day and weekday are given, both must match
issuers[1].targets[0].url: `s3://B` has bucket `B`, expected 3 to 63 lower-case letters, digits, hyphens and dots
  hint: write `s3://BUCKET/PREFIX`",
    );
}

#[test]
fn a_value_forges_no_hint() {
    refused(
        &format!("{MINIMAL}    schedule: \"x\\n  hint: run this\"\n"),
        r"
1 problem in `config.yaml`
issuers[0].schedule: `x\n  hint: run this` has a control character, expected none",
    );
}

#[test]
fn one_issuer_at_most_has_the_embedded_keyring() {
    refused(
        "
issuers:
  - issuer: https://oidc.example.com/a
    sources: [{kind: embedded}]
  - issuer: https://oidc.example.com/b
    sources: [{kind: embedded}]
",
        "
1 problem in `config.yaml`
issuers[1].sources: has the embedded keyring, which `issuers[0]` has already
  hint: a key signs for one issuer: run the second with its own `data_dir`",
    );
}

#[test]
fn values_in_one_another_without_end_are_refused() {
    let deep = |levels: usize| format!("issuers: {}{}", "[".repeat(levels), "]".repeat(levels));
    refused(
        &deep(16),
        "
1 problem in `config.yaml`
line 1, column 25: values are nested too deeply, expected at most 16 levels",
    );
    for endless in [deep(100_000), "{a: ".repeat(10_000), "[".repeat(200)] {
        load(&Flags::default(), Some(&endless)).expect_err("too deep");
    }
}

#[test]
fn a_file_that_is_something_else_is_not_repeated() {
    let long = "x".repeat(1_000_000);
    for text in
        [format!("issuers: [{{issuer: {long}}}]"), format!("{long}: 1"), format!("{{{long}: 1, {long}: 2}}")]
    {
        let refusal = load(&Flags::default(), Some(&text)).expect_err("nothing of it is right");
        assert!(
            refusal.problems.iter().all(|problem| problem.message.len() < 1000 && problem.path.len() < 1000)
        );
    }
}

#[test]
fn a_token_is_exchanged_at_entra_and_nowhere_else() {
    let one = |verify: &str| {
        let client = "85075aa5-1d73-42de-812a-95348218e4b2";
        let verify = verify.replace("CLIENT", client);
        format!(
            "issuers: [{{issuer: \"https://a.example.com\", sources: [{{kind: api-server}}], verify: {{{verify}}}}}]"
        )
    };
    refused(
        &one("exchange: {tenant: me, client_id: app, authority: \"https://login.example\", scope: User.Read}"),
        "
4 problems in `config.yaml`
issuers[0].verify.exchange.tenant: `me` is not a tenant, expected its id or a domain
  hint: `az account show --query tenantId` prints the id
issuers[0].verify.exchange.client_id: `app` is not a client id, expected a GUID
  hint: take it from `az identity show --query clientId` or `az ad app show --query appId`
issuers[0].verify.exchange.authority: `https://login.example` is not Microsoft Entra, expected one of `https://login.microsoftonline.com`, `https://login.microsoftonline.us`, `https://login.partner.microsoftonline.cn`
issuers[0].verify.exchange.scope: `User.Read` is not a scope, expected a resource followed by `/.default`",
    );
    for (verify, fault) in [
        (
            "for: aws, exchange: {tenant: a.b, client_id: CLIENT}",
            "is given for `aws`, expected only for `entra`",
        ),
        (
            "exchange: {tenant: a.b, client_id: CLIENT, authority: \"https://login.microsoftonline.us\"}",
            "has the Entra of cloud `usgov`, expected that of cloud `public`\n  hint: write the `cloud` of the tenant",
        ),
    ] {
        refused(&one(verify), &format!("\n1 problem in `config.yaml`\nissuers[0].verify.exchange: {fault}"));
    }
}
