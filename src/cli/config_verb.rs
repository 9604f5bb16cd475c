//! `signpost config`.

use clap::Subcommand;

use super::{Failure, load, print, report::Outcome, say};
use crate::config::{Flags, schema};

#[derive(Subcommand)]
pub(super) enum ConfigVerb {
    /// Check flags, environment and file, and name every fault; nothing is written or asked
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

pub(super) fn carry_out(verb: ConfigVerb) -> Result<Outcome, Failure> {
    match verb {
        ConfigVerb::Check(flags) => {
            let config = load(&flags)?;
            let (sources, targets) = config
                .issuers
                .iter()
                .fold((0, 0), |(s, t), issuer| (s + issuer.sources.len(), t + issuer.targets.len()));
            let issuers = config.issuers.len();
            for issuer in &config.issuers {
                let key_type = issuer.signer.as_ref().map(|signer| signer.key_type);
                if let Some(key_type) = key_type.filter(|key_type| !key_type.suits_entra()) {
                    let (issuer, name) = (&issuer.issuer, key_type.name());
                    say(&format!(
                        "note: Microsoft Entra refuses every token of {issuer}: key_type is `{name}`"
                    ));
                }
            }
            print(&format!("good: issuers {issuers}, sources {sources}, targets {targets}\n"));
        }
        ConfigVerb::Show(flags) => print(&load(&flags)?.show()),
        ConfigVerb::Schema => print(&(schema::json_schema() + "\n")),
    }
    Ok(Outcome::Success)
}
