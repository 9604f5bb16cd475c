//! Exact messages for faults of a signer.

use super::refused;

#[test]
fn a_token_is_named_in_full() {
    refused(
        "
issuers:
  - issuer: https://k8s.example
    sources: [{kind: embedded}]
    signer: {pkcs11: {module: libsofthsm2.so, label: signpost}}
",
        "
4 problems in `config.yaml`
issuers[0].signer.pkcs11.token_label: is missing, expected text
  hint: for example `token_label: signpost`
issuers[0].signer.pkcs11.pin_file: is missing, expected an absolute path
  hint: for example `pin_file: /etc/signpost/pin`
issuers[0].signer.pkcs11.module: `libsofthsm2.so` is relative, expected an absolute path
  hint: paths in a file must be absolute; flags may use relative paths
issuers[0].signer.pkcs11.label: unknown key, expected one of `module`, `token_label`, `pin_file`",
    );
}

#[test]
fn keys_that_a_place_leaves_out_are_refused_where_they_would_wait_for_it() {
    let with = |profile: &str| {
        format!(
            "
issuers:
  - issuer: https://k8s.example
    sources: [{{kind: embedded}}]
    profile: {profile}
    signer: {{key_type: es256}}
    targets:
      - {{name: eu, url: \"file:///eu\"}}
      - {{name: us, url: \"file:///us\", profile: entra}}
      - {{name: last, url: \"file:///last\", profile: entra, required_for_rotation: false}}
"
        )
    };
    let refused_in = |profile: &str, places: &str| {
        refused(
            &with(profile),
            &format!(
                "
1 problem in `config.yaml`
issuers[0].signer.key_type: `es256` keys are left out by profile `entra` of {places}, so none would ever sign
  hint: Microsoft Entra needs RS256: remove `key_type`; for others, set `profile: all`"
            ),
        );
    };
    refused_in("entra", "the issuer, target `eu`, target `us`");
    refused_in("all", "target `us`");
}
