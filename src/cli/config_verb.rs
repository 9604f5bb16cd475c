//! `signpost config`.

use clap::Subcommand;

use super::{Failure, eprint, error_report::ExitStatus, load, print};
use crate::config::{Config, Flags, IssuerConfig, TargetConfig, schema};

#[derive(Subcommand)]
pub(super) enum ConfigVerb {
    /// Check flags, environment and file, and report every error; writes nothing and connects nowhere
    #[command(after_help = "\
Examples:
  signpost config check --config signpost.yaml
  signpost config check --issuer https://oidc.example.com \\
    --source kubernetes --target ./public")]
    Check(Flags),
    /// Print the configuration that would be used, defaults included
    #[command(after_help = "\
Examples:
  signpost config show > signpost.yaml
  signpost config show --config signpost.yaml --listen 127.0.0.1:8443")]
    Show(Flags),
    /// Print the JSON Schema of the configuration file, with every key documented
    #[command(after_help = "\
Example:
  signpost config schema > signpost.schema.json")]
    Schema,
}

pub(super) fn run(verb: ConfigVerb) -> Result<ExitStatus, Failure> {
    match verb {
        ConfigVerb::Check(flags) => {
            if flags == Flags::default() {
                return Err(Failure::plain(
                    "nothing to check: no file and no flag is given",
                    "`signpost config check --config FILE`; `signpost config show` prints the configuration \
                     of `signpost run` without flags",
                ));
            }
            let config = load(&flags)?;
            if let Some(issuer) = without_module(&config, cfg!(feature = "pkcs11")) {
                return Err(Failure::plain(
                    &format!(
                        "{issuer} keeps its keys in a PKCS#11 token, but this program was built without \
                        PKCS#11"
                    ),
                    "use a build with the feature `pkcs11`, or remove `signer.pkcs11`",
                ));
            }
            let (sources, targets) = config
                .issuers
                .iter()
                .fold((0, 0), |(s, t), issuer| (s + issuer.sources.len(), t + issuer.targets.len()));
            let issuers = config.issuers.len();
            for issuer in &config.issuers {
                let key_type = issuer.signer.as_ref().map(|signer| signer.key_type);
                if let Some(key_type) = key_type.filter(|key_type| !key_type.suits_entra()) {
                    let (issuer, name) = (&issuer.issuer, key_type.name());
                    eprint(&format!(
                        "note: Microsoft Entra refuses every token of {issuer}: key_type is `{name}`; next \
                         to RSA keys that are still published, such a key breaks python-jose for both"
                    ));
                }
            }
            for note in config.issuers.iter().flat_map(|issuer| [elsewhere(issuer), unowned(issuer)].concat())
            {
                eprint(&note);
            }
            print(&format!("good: issuers {issuers}, sources {sources}, targets {targets}\n"));
        }
        ConfigVerb::Show(flags) => print(&load(&flags)?.show()),
        ConfigVerb::Schema => print(&(schema::json_schema() + "\n")),
    }
    Ok(ExitStatus::Success)
}

/// The issuer whose keys need a feature that this build lacks.
fn without_module(config: &Config, has_pkcs11: bool) -> Option<&str> {
    let in_token =
        |issuer: &&IssuerConfig| issuer.signer.as_ref().is_some_and(|signer| signer.pkcs11.is_some());
    config.issuers.iter().find(in_token).filter(|_| !has_pkcs11).map(|issuer| issuer.issuer.as_str())
}

/// Notes about public URLs that only work if a proxy in between changes the path.
fn elsewhere(issuer: &IssuerConfig) -> Vec<String> {
    let path = |url: &str| url.splitn(4, '/').nth(3).unwrap_or_default().to_owned();
    let is_elsewhere = |url: &&str| path(url) != issuer.issuer.path().trim_start_matches('/');
    let urls = issuer.targets.iter().filter_map(TargetConfig::public_url).filter(is_elsewhere);
    let note = |url| {
        format!(
            "note: public_url {url} has a different path than {}: relying parties read at the issuer, so the \
             server there has to rewrite the path",
            issuer.issuer
        )
    };
    urls.map(note).collect()
}

/// Notes about targets that cannot tell two publishers apart.
fn unowned(issuer: &IssuerConfig) -> Vec<String> {
    let unowned = issuer.targets.iter().filter(|target| target.location.is_relying_party());
    let note = |target: &TargetConfig| {
        format!(
            "note: target {} keeps neither an owner nor a version: let nothing else than this ledger write there",
            target.name
        )
    };
    unowned.map(note).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(issuer: &str) -> Config {
        let file = format!(
            "issuers:\n  - issuer: https://oidc.example.com/kind\n    sources: [{{kind: embedded}}]\n    {issuer}\n"
        );
        let file = (Path::new("config.yaml"), file.as_str());
        crate::config::load(&Flags::default(), Some(file), Path::new("/"), crate::clock::now())
            .expect("it is good")
    }

    #[test]
    fn keys_in_a_token_need_a_build_that_can_reach_them() {
        let in_token = config("signer: {pkcs11: {module: /m, token_label: t, pin_file: /p}}");
        assert_eq!(Some("https://oidc.example.com/kind"), without_module(&in_token, false));
        assert_eq!(None, without_module(&in_token, true));
        assert_eq!(None, without_module(&config("signer: {}"), false));
    }

    #[test]
    fn a_target_that_keeps_no_owner_is_noted() {
        let provider = "gcp-wif://projects/1/locations/global/workloadIdentityPools/pool/providers/kind-1";
        let notes =
            unowned(&config(&format!("targets: [{{url: '{provider}'}}, {{url: 's3://bucket'}}]")).issuers[0]);
        assert!(notes.len() == 1 && notes[0].contains(provider), "{notes:?}");
    }

    #[test]
    fn a_public_url_with_another_path_than_the_issuer_is_noted() {
        let notes = |url: &str| {
            elsewhere(&config(&format!("targets: [{{url: 's3://bucket', public_url: '{url}'}}]")).issuers[0])
        };
        assert!(notes("https://cdn.example.com/kind").is_empty());
        assert!(notes("https://oidc.example.com/kind/").is_empty());
        let told = notes("https://account.z6.web.core.windows.net");
        assert!(
            told.len() == 1 && told[0].contains("a different path than https://oidc.example.com/kind"),
            "{told:?}"
        );
    }
}
