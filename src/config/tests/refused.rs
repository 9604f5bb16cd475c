//! What is wrong, word for word.

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
listen: is the number `8080`, expected an address and port such as `127.0.0.1:8080`
data_dir: is a list, expected an absolute path
issuers: is a mapping, expected a list of mappings",
    );
    refused(
        "
issuers:
  - https://oidc.example.com/kind
  - issuer:
    allow_issuer_mismatch: \"yes\"
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
  hint: for example `issuers: [{issuer: https://oidc.example.com/kind, sources: […], targets: […]}]`",
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
issuers[0].sources[0]: has no `kind`, expected one of `api-server`, `files`, `embedded`
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
fn durations_have_units_and_bounds() {
    let with = |line: &str| format!("{MINIMAL}    {line}\n");
    refused(
        &with("margin: 30"),
        "
1 problem in `config.yaml`
issuers[0].margin: is the number `30`, expected a duration such as `30s`, `5m` or `1h30m`
  hint: write `30s`",
    );
    refused(
        &with("margin: \"30\""),
        "
1 problem in `config.yaml`
issuers[0].margin: `30` is not a duration such as `30s`, `5m` or `1h30m`, expected `1s` to `8784h`
  hint: write `30s` for seconds",
    );
    refused(
        &with("max_token_lifetime: 2d"),
        "
1 problem in `config.yaml`
issuers[0].max_token_lifetime: `2d` is not a duration such as `30s`, `5m` or `1h30m`, expected `1s` to `8784h`
  hint: write `48h`",
    );
    refused(
        &with("jwks_max_age: 2h"),
        "
1 problem in `config.yaml`
issuers[0].jwks_max_age: `2h` is too long, expected `1s` to `1h`",
    );
    refused(
        &with("jwks_max_age: 1500ms"),
        "
1 problem in `config.yaml`
issuers[0].jwks_max_age: `1500ms` is not a whole number of seconds, expected `1s` to `1h`",
    );
    refused(
        &with("margin: -5m"),
        "
1 problem in `config.yaml`
issuers[0].margin: `-5m` is negative, expected `1s` to `8784h`",
    );
    refused(
        &with("max_token_lifetime: 5m"),
        "
1 problem in `config.yaml`
issuers[0].max_token_lifetime: `5m` is too short, expected at least `10m`, the shortest that Kubernetes gives a token",
    );
    refused(
        "issuers: [{issuer: https://oidc.example.com/kind, sources: [{kind: api-server, every: 0s}]}]",
        "
1 problem in `config.yaml`
issuers[0].sources[0].every: `0s` is too short, expected `1s` to `24h`",
    );
}

#[test]
fn a_schedule_has_five_fields_that_come_to_pass() {
    let with = |cron: &str| format!("{MINIMAL}    schedule: \"{cron}\"\n");
    refused(
        &with("0 */5 * * * *"),
        "
1 problem in `config.yaml`
issuers[0].schedule: `0 */5 * * * *` has 6 fields, expected five fields: minute hour day month weekday, UTC
  hint: for example `*/5 * * * *`, every five minutes",
    );
    refused(
        &with("hourly"),
        "
1 problem in `config.yaml`
issuers[0].schedule: `hourly` has one field, expected five fields: minute hour day month weekday, UTC
  hint: for example `*/5 * * * *`, every five minutes",
    );
    refused(
        &with("@reboot"),
        "
1 problem in `config.yaml`
issuers[0].schedule: `@reboot` is a nickname, expected five fields: minute hour day month weekday, UTC
  hint: for example `*/5 * * * *`, every five minutes",
    );
    refused(
        &with("0 0 30 2 *"),
        "
1 problem in `config.yaml`
issuers[0].schedule: `0 0 30 2 *` never comes to pass
  hint: no month has that day; where day and weekday are given, both must match",
    );
    refused(
        &with("5-80 * * * *"),
        "
1 problem in `config.yaml`
issuers[0].schedule: `5-80 * * * *` has minute `5-80`, expected 0 to 59
  hint: `*`, lists `1,2`, ranges `1-5` and steps `*/5` are known",
    );
    refused(
        &with("0 0 * foo *"),
        "
1 problem in `config.yaml`
issuers[0].schedule: `0 0 * foo *` has month `foo`, expected 1 to 12 or JAN to DEC
  hint: `*`, lists `1,2`, ranges `1-5` and steps `*/5` are known",
    );
}

#[test]
fn an_issuer_is_https_and_exact() {
    let with = |issuer: &str| format!("issuers: [{{issuer: \"{issuer}\", sources: [{{kind: api-server}}]}}]");
    refused(
        &with("http://k8s.example"),
        "
1 problem in `config.yaml`
issuers[0].issuer: issuer `http://k8s.example` has scheme `http`, expected `https` (`http` is for loopback hosts alone)",
    );
    refused(
        &with("https://k8s.example?tenant=1"),
        "
1 problem in `config.yaml`
issuers[0].issuer: issuer `https://k8s.example?…` has a query, expected none",
    );
    refused(
        &with("https://k8s.example/a "),
        "
1 problem in `config.yaml`
issuers[0].issuer: issuer `https://k8s.example/a ` has white space around it, expected none",
    );
    refused(
        &with("https://ada:secret@k8s.example"),
        "
1 problem in `config.yaml`
issuers[0].issuer: issuer `https://…@k8s.example` has a user name or password, expected none",
    );
    refused(
        &with("k8s.example"),
        "
1 problem in `config.yaml`
issuers[0].issuer: issuer `k8s.example` is not a URL: relative URL without a base",
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
issuers[0].profile: unknown profile `entr`, did you mean `entra`?
issuers[0].sources[0].kind: unknown kind `apiserver`, did you mean `api-server`?
issuers[0].sources[1].kind: unknown kind `vault`, expected one of `api-server`, `files`, `embedded`
issuers[0].targets[0].profile: unknown profile `everything`, expected one of `entra`, `all`",
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
fn a_target_is_a_place_that_exists_in_form() {
    let with = |url: &str| format!("{MINIMAL}    targets: [{{url: \"{url}\"}}]\n");
    for (url, expected) in [
        ("gcs://bucket", "`gcs://bucket` has the unknown scheme `gcs`, expected one of `az`, `s3`, `file`"),
        ("s4://bucket", "`s4://bucket` has the unknown scheme `s4`, did you mean `s3`?"),
        (
            "gs://bucket/prefix",
            "`gs://` is not available yet, expected one of `az`, `s3`, `file`
  hint: publish to a directory and copy it, or use Google's S3 interface with `endpoint`",
        ),
        (
            "/srv/oidc",
            "`/srv/oidc` has no scheme, expected one of `az://…`, `s3://…`, `file:///…`
  hint: write `file:///srv/oidc`",
        ),
        (
            "file://srv/oidc",
            "`file://srv/oidc` is relative, expected `file:///` and an absolute path
  hint: write `file:///srv/oidc`, or give a relative path with `--target`",
        ),
        ("file:///", "`file:///` is the root of the file system, expected a directory below it"),
        (
            "az://Account/web",
            "`az://Account/web` has account `Account`, expected 3 to 24 lower-case letters and digits
  hint: write `az://ACCOUNT/CONTAINER/PREFIX`",
        ),
        (
            "az://account",
            "`az://account` has no container, expected `az://ACCOUNT/CONTAINER/PREFIX`
  hint: write `az://account/$web` for its static website",
        ),
        (
            "az://account/$wbe",
            "`az://account/$wbe` has container `$wbe`, expected `$web` or 3 to 63 lower-case letters, digits and \
             single hyphens",
        ),
        (
            "s3://My_Bucket",
            "`s3://My_Bucket` has bucket `My_Bucket`, expected 3 to 63 lower-case letters, digits, hyphens and dots
  hint: write `s3://BUCKET/PREFIX`",
        ),
        (
            "s3://bucket/a/../b",
            "`s3://bucket/a/../b` has the path segment `..`, expected none that is empty, `.` or `..`",
        ),
        (
            "az://account/container?sv=1&sig=secret",
            "`az://account/container?…` has a query, expected none
  hint: credentials come from the environment, such as `AZURE_STORAGE_SAS_KEY` or `AWS_ACCESS_KEY_ID`",
        ),
        (
            "s3://key:secret@bucket",
            "`s3://…@bucket` has a user name or password, expected none
  hint: credentials come from the environment, such as `AZURE_STORAGE_SAS_KEY` or `AWS_ACCESS_KEY_ID`",
        ),
        (
            "file:///var/lib",
            "`file:///var/lib` holds data_dir (`/var/lib/signpost`), where private keys are, expected another \
             directory",
        ),
    ] {
        refused(&with(url), &format!("1 problem in `config.yaml`\nissuers[0].targets[0].url: {expected}"));
    }
}

#[test]
fn urls_beside_a_target_are_checked_too() {
    refused(
        &format!(
            "{MINIMAL}    jwks_uri: http://oidc.example.com/jwks
    targets:
      - {{url: \"s3://bucket\", endpoint: \"127.0.0.1:9000\"}}
      - {{url: \"file:///srv/oidc\", endpoint: \"http://127.0.0.1:9000\"}}
      - {{url: \"az://account/$web\", public_url: \"ftp://oidc.example.com\"}}
      - {{url: \"az://account/web\", public_url: \"https://cdn.example.com?sig=secret\"}}
"
        ),
        "
5 problems in `config.yaml`
issuers[0].jwks_uri: `http://oidc.example.com/jwks` has scheme `http`, expected `https` (`http` is for loopback hosts alone)
issuers[0].targets[0].endpoint: `127.0.0.1:9000` is not a URL: relative URL without a base
issuers[0].targets[1].endpoint: a directory has no endpoint, expected none
issuers[0].targets[2].public_url: `ftp://oidc.example.com` has scheme `ftp`, expected `https`
issuers[0].targets[3].public_url: `https://cdn.example.com?…` has a query, expected none
  hint: credentials come from the environment, such as `AZURE_STORAGE_SAS_KEY` or `AWS_ACCESS_KEY_ID`",
    );
}

#[test]
fn a_cloud_is_no_target_for_an_issuer_that_only_this_machine_can_reach() {
    refused(
        "
issuers:
  - issuer: http://127.0.0.1:8080
    sources: [{kind: api-server}]
    targets:
      - {url: \"s3://bucket/prefix\"}
      - {url: \"az://devstoreaccount1/web\", endpoint: \"http://127.0.0.1:10000/devstoreaccount1\"}
",
        "
1 problem in `config.yaml`
issuers[0].targets[0].url: `s3://bucket/prefix` is for the world, which cannot reach issuer `http://127.0.0.1:8080`
  hint: give an https `issuer`, or a directory as target",
    );
}

#[test]
fn listeners_are_two_different_addresses() {
    let with = |lines: &str| format!("{lines}{MINIMAL}");
    refused(
        &with("listen: localhost:8080\nadmin_listen: \":9090\""),
        "
2 problems in `config.yaml`
listen: `localhost:8080` is not an address and port, expected one such as `127.0.0.1:8080`
  hint: write `127.0.0.1:8080`
admin_listen: `:9090` is not an address and port, expected one such as `127.0.0.1:8080`
  hint: write `0.0.0.0:9090` for every address",
    );
    refused(
        &with("listen: 0.0.0.0:80800"),
        "
1 problem in `config.yaml`
listen: `0.0.0.0:80800` is not an address and port, expected one such as `127.0.0.1:8080`
  hint: a port is a number from 0 to 65535",
    );
    refused(
        &with("listen: 0.0.0.0:9000\nadmin_listen: 127.0.0.1:9000"),
        "
1 problem in `config.yaml`
admin_listen: `127.0.0.1:9000` is taken by listen (`0.0.0.0:9000`), expected another port",
    );
}

#[test]
fn sources_are_checked_in_full() {
    refused(
        "
data_dir: data
issuers:
  - issuer: https://oidc.example.com/kind
    sources:
      - kind: api-server
        kubeconfig: ~/.kube/config
        probe: signpost
        instances:
          - {url: \"http://10.0.0.1:6443\", tls_server_name: \"*.svc\"}
          - {url: \"https://10.0.0.2:6443\"}
          - {url: \"https://10.0.0.2:6443\"}
      - {kind: files, paths: [sa.pub, \"/keys/[\"]}
      - {kind: api-server, name: b, probe: signpost/Probe}
      - {kind: embedded}
",
        "
10 problems in `config.yaml`
data_dir: `data` is relative, expected an absolute path
  hint: a file means the same wherever Signpost is started; flags may be relative
issuers[0].sources[0].kubeconfig: `~/.kube/config` is relative, expected an absolute path
  hint: a file means the same wherever Signpost is started; flags may be relative
issuers[0].sources[0].probe: `signpost` is not a service account, expected `NAMESPACE/NAME`
issuers[0].sources[0].instances[0].url: `http://10.0.0.1:6443` has scheme `http`, expected `https` (`http` is for loopback hosts alone)
issuers[0].sources[0].instances[0].tls_server_name: `*.svc` is not a DNS name, expected one such as `kubernetes.default.svc`
issuers[0].sources[0].instances[2].url: `https://10.0.0.2:6443` is listed twice, expected each API server once
issuers[0].sources[1].paths[0]: `sa.pub` is relative, expected an absolute path
  hint: a file means the same wherever Signpost is started; flags may be relative
issuers[0].sources[1].paths[1]: `/keys/[` is not a glob: invalid range pattern
issuers[0].sources[2].probe: service account name `Probe` is not lower-case letters, digits and inner `-`
issuers[0].sources[3]: `embedded` is not the only source, expected no other beside it
  hint: an issuer has its own keyring or other people's keys",
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
\u{1b}[2J: unknown key, expected one of `listen`, `admin_listen`, `data_dir`, `issuers`
issuers[0].sources[0].name: `a\nb` has a control character, expected none
issuers[0].sources[1].paths[0]: is the text `/a\tb`, expected text without control characters",
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
--listen: `8080` is not an address and port, expected one such as `127.0.0.1:8080`
--admin-listen: `x` is not an address and port, expected one such as `127.0.0.1:8080`
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
