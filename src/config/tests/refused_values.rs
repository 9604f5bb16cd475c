//! Exact messages for faults of single values.

use super::{MINIMAL, accepted, refused};

#[test]
fn tls_and_connections_are_checked() {
    refused(
        &format!("tls: {{certificate: tls.crt}}\nmax_connections: 0{MINIMAL}"),
        "
3 problems in `config.yaml`
tls.private_key: is missing, expected an absolute path
  hint: for example `private_key: /etc/signpost/tls/tls.key`
tls.certificate: `tls.crt` is relative, expected an absolute path
  hint: paths in a file must be absolute; flags may use relative paths
max_connections: is `0`, expected a whole number from 1 to 1000000",
    );
    for (text, what) in [("many", "the text `many`"), ("\"5\"", "the text `5`"), ("[]", "a list")] {
        refused(
            &format!("max_connections: {text}{MINIMAL}"),
            &format!(
                "
1 problem in `config.yaml`
max_connections: is {what}, expected a whole number from 1 to 1000000"
            ),
        );
    }
    refused(
        "
tls: {certificate: /c, private_key: /k}
issuers: [{issuer: \"http://127.0.0.1:8080\", sources: [{kind: embedded}]}]
",
        "
1 problem in `config.yaml`
issuers[0].issuer: `http://127.0.0.1:8080` has scheme `http`, expected `https`: the listener speaks TLS
  hint: correct it, or remove `tls`",
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
fn waits_that_contradict_each_other_are_refused_together() {
    refused(
        &format!("{MINIMAL}    jwks_max_age: 1h\n    propagation: 1h\n    rotate_after: 2h\n"),
        "
2 problems in `config.yaml`
issuers[0].propagation: `1h` is too short, expected at least `2h`, twice `jwks_max_age`
  hint: a relying party may read a JWKS from a cache just before it changes, and keep it as long again
issuers[0].rotate_after: `2h` is too short, expected more than `2h`, `propagation` plus `margin`
  hint: the next key is generated when the previous one starts to sign, and waits that long",
    );
    refused(
        &format!("{MINIMAL}    max_token_lifetime: 8760h\n    rotate_after: 48h\n"),
        "
1 problem in `config.yaml`
issuers[0].rotate_after: `48h` is too short: with tokens that live for `8760h`, a node would have 185 keys at once, and holds 32 at most
  hint: rotate less often, or shorten `max_token_lifetime`",
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
issuers[0].schedule: `0 0 30 2 *` never occurs
  hint: no month has that day; where day and weekday are given, both must match",
    );
    refused(
        &with("0 0 30 2 MON"),
        "
1 problem in `config.yaml`
issuers[0].schedule: `0 0 30 2 MON` never occurs
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
issuers[0].issuer: issuer `http://k8s.example` has scheme `http`, expected `https` (`http` is only for loopback hosts)",
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

const PROVIDER: &str =
    "gcp-wif://projects/1/locations/global/workloadIdentityPools/clusters/providers/kind-1";

#[test]
fn a_target_is_a_place_that_exists_in_form() {
    let with = |url: &str| format!("{MINIMAL}    targets: [{{url: \"{url}\"}}]\n");
    for (url, expected) in [
        ("gcs://bucket", "`gcs://bucket` has the unknown scheme `gcs`, did you mean `gs`?"),
        ("s4://bucket", "`s4://bucket` has the unknown scheme `s4`, did you mean `s3`?"),
        (
            "gs://-bucket",
            "`gs://-bucket` has bucket `-bucket`, expected 3 to 63 lower-case letters, digits, hyphens, \
             underscores and dots
  hint: write `gs://BUCKET/PREFIX`",
        ),
        (
            "/srv/oidc",
            "`/srv/oidc` has no scheme, expected one of `az://…`, `s3://…`, `gs://…`, `gcp-wif://…`, `file:///…`
  hint: write `file:///srv/oidc`",
        ),
        (
            "gcp-wif://projects/1/workloadIdentityPools/clusters/providers/kind-1",
            "`gcp-wif://projects/1/workloadIdentityPools/clusters/providers/kind-1` is not the resource name of a \
             workload identity pool provider
  hint: write `gcp-wif://projects/PROJECT/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`",
        ),
        (
            "gcp-wif://projects/1/locations/global/workloadIdentityPools/clusters/providers/K1",
            "`gcp-wif://projects/1/locations/global/workloadIdentityPools/clusters/providers/K1` has provider `K1`, \
             expected 4 to 32 lower-case letters, digits and hyphens
  hint: write `gcp-wif://projects/PROJECT/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`",
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
issuers[0].jwks_uri: `http://oidc.example.com/jwks` has scheme `http`, expected `https` (`http` is only for loopback hosts)
issuers[0].targets[0].endpoint: `127.0.0.1:9000` is not a URL: relative URL without a base
issuers[0].targets[1].endpoint: a directory has no endpoint, expected none
issuers[0].targets[2].public_url: `ftp://oidc.example.com` has scheme `ftp`, expected `https`
issuers[0].targets[3].public_url: `https://cdn.example.com?…` has a query, expected none
  hint: remove it: what is read there is public, or needs a `bearer_token_file`",
    );
}

#[test]
fn a_public_url_is_where_relying_parties_read() {
    refused(
        &format!(
            "{MINIMAL}    targets:
      - {{url: \"s3://one\", public_url: \"http://cdn.example.com/kind\"}}
      - {{url: \"s3://two\", public_url: \"https://oidc.example.com/other/\"}}
      - {{url: \"s3://three\", public_url: \"https://oidc.example.com:443/kind\"}}
      - {{url: \"s3://four\", public_url: \"https://cdn.example.com/elsewhere\"}}
      - {{url: \"s3://five\", public_url: \"http://localhost:8080/kind\"}}
"
        ),
        "
2 problems in `config.yaml`
issuers[0].targets[0].public_url: `http://cdn.example.com/kind` has scheme `http`, expected `https` (`http` is only for loopback hosts)
issuers[0].targets[1].public_url: `https://oidc.example.com/other/` is at the host of issuer `https://oidc.example.com/kind` with another path, where no relying party reads
  hint: write `https://oidc.example.com/kind`, or the address of the store behind it",
    );
}

#[test]
fn the_jwks_is_below_the_issuer_unless_somebody_else_serves_it() {
    let given = |lines: &str| format!("{MINIMAL}    {}\n", lines.replace('\n', "\n    "));
    let nowhere = "is not a path of letters, digits, `-`, `.` and `_` below issuer `https://oidc.example.com/kind`, \
                   where Signpost writes and serves it\n  hint: remove `jwks_uri`; if another server serves the JWKS there, add `jwks_served_elsewhere: true`";
    for uri in [
        "https://keys.example.com/kind",
        "https://oidc.example.com/keys.json",
        "https://oidc.example.com/kindly/keys.json",
        "https://oidc.example.com/kind/",
        "https://oidc.example.com/kind/../keys.json",
        "https://oidc.example.com/kind/a%2fb",
    ] {
        refused(
            &given(&format!("jwks_uri: {uri}")),
            &format!("1 problem in `config.yaml`\nissuers[0].jwks_uri: `{uri}` {nowhere}"),
        );
    }
    for path in [
        ".well-known/openid-configuration",
        ".well-known",
        ".well-known/openid-configuration/jwks",
        ".signpost.json",
    ] {
        let uri = format!("https://oidc.example.com/kind/{path}");
        refused(
            &given(&format!("jwks_uri: {uri}")),
            &format!(
                "1 problem in `config.yaml`\nissuers[0].jwks_uri: `{uri}` is in the way of other files, expected a path \
                 of its own\n  hint: remove `jwks_uri`: it is derived from the issuer"
            ),
        );
    }
    refused(
        &given("jwks_served_elsewhere: true"),
        "1 problem in `config.yaml`\nissuers[0].jwks_served_elsewhere: needs `jwks_uri`, which is missing\n  \
         hint: set `jwks_uri`, or remove this",
    );
    refused(
        &given("jwks_uri: https://oidc.example.com/kind/keys.json\njwks_served_elsewhere: true"),
        "1 problem in `config.yaml`\nissuers[0].jwks_served_elsewhere: `https://oidc.example.com/kind/keys.json` is below \
         issuer `https://oidc.example.com/kind`, where Signpost serves it itself\n  hint: remove this, or correct `jwks_uri`",
    );
    let other = "  - issuer: https://oidc.example.com\n    sources: [{kind: api-server}]\n    jwks_uri: \
                 https://oidc.example.com/kind/openid/v1/jwks\n";
    refused(
        &format!("{MINIMAL}{other}"),
        "1 problem in `config.yaml`\nissuers[1].jwks_uri: `https://oidc.example.com/kind/openid/v1/jwks` is the document \
         of `issuers[0]` too, expected another",
    );
    let accepted = accepted(&given("jwks_uri: https://oidc.example.com/kind/a/keys.json"));
    assert_eq!("https://oidc.example.com/kind/a/keys.json", accepted.issuers[0].jwks_uri());
}

#[test]
fn an_anonymous_reader_needs_an_address_of_the_store() {
    refused(
        &format!(
            "{MINIMAL}    targets:
      - {{url: \"file:///srv/oidc\", anonymous: true}}
      - {{url: \"az://account/$web\", anonymous: true}}
      - {{url: \"gs://bucket\", endpoint: \"http://127.0.0.1:9000/storage/v1\", required_for_rotation: no way}}
      - {{url: \"{PROVIDER}\", anonymous: true, public_url: \"https://cdn.example.com\"}}
"
        ),
        "
6 problems in `config.yaml`
issuers[0].targets[0].anonymous: is `true`, but a directory has no address of its own
  hint: write `public_url` with the address of the web server that serves it
issuers[0].targets[1].anonymous: is `true`, but `$web` is read at the address of the static website
  hint: write `public_url` with the static website's address, such as `https://ACCOUNT.z6.web.core.windows.net`
issuers[0].targets[2].endpoint: `http://127.0.0.1:9000/storage/v1` has a path, expected the address of a service of Google's without one
issuers[0].targets[2].required_for_rotation: is the text `no way`, expected `true` or `false`
issuers[0].targets[3].anonymous: is `true`, but Google alone reads the keys of a workload identity pool provider, expected `false`
issuers[0].targets[3].public_url: Google alone reads the keys of a workload identity pool provider, expected none",
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
      - {url: \"gcp-wif://projects/1/locations/global/workloadIdentityPools/clusters/providers/kind-1\"}
",
        "
2 problems in `config.yaml`
issuers[0].targets[0].url: `s3://bucket/prefix` is public, but issuer `http://127.0.0.1:8080` is not reachable
  hint: set an https `issuer`, or use a directory as target
issuers[0].targets[2].url: `gcp-wif://projects/1/locations/global/workloadIdentityPools/clusters/providers/kind-1` trusts https issuers only, issuer is `http://127.0.0.1:8080`",
    );
}

#[test]
fn listeners_are_two_different_addresses() {
    let with = |lines: &str| format!("{lines}{MINIMAL}");
    refused(
        &with("listen: localhost:8080\nadmin_listen: \":9090\""),
        "
2 problems in `config.yaml`
listen: `localhost:8080` is not an address and port, expected `IP:PORT`
  hint: write `127.0.0.1:8080`
admin_listen: `:9090` is not an address and port, expected `IP:PORT`
  hint: write `0.0.0.0:9090` for every address",
    );
    refused(
        &with("listen: 0.0.0.0:80800"),
        "
1 problem in `config.yaml`
listen: `0.0.0.0:80800` is not an address and port, expected `IP:PORT`
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
  hint: paths in a file must be absolute; flags may use relative paths
issuers[0].sources[0].kubeconfig: `~/.kube/config` is relative, expected an absolute path
  hint: paths in a file must be absolute; flags may use relative paths
issuers[0].sources[0].probe: `signpost` is not a service account, expected `NAMESPACE/NAME`
issuers[0].sources[0].instances[0].url: `http://10.0.0.1:6443` has scheme `http`, expected `https` (`http` is only for loopback hosts)
issuers[0].sources[0].instances[0].tls_server_name: `*.svc` is not a DNS name, expected one such as `kubernetes.default.svc`
issuers[0].sources[0].instances[2].url: `https://10.0.0.2:6443` is listed twice, expected each API server once
issuers[0].sources[1].paths[0]: `sa.pub` is relative, expected an absolute path
  hint: paths in a file must be absolute; flags may use relative paths
issuers[0].sources[1].paths[1]: `/keys/[` is not a glob: invalid range pattern
issuers[0].sources[2].probe: service account name `Probe` is not lower-case letters, digits and inner `-`
issuers[0].sources[3]: `embedded` is not the only source, expected no other
  hint: if kube-apiserver uses this process as its signer, add `signer`",
    );
}
