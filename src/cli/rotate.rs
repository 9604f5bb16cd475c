//! `signpost rotate`.

use std::collections::BTreeSet;

use clap::Subcommand;

mod status;

use super::{
    Failure, Output, block_on, confirm::Confirm, eprint, error_report::ExitStatus, kid_prefix,
    ledger::IssuerSelector, print, table::table,
};
use crate::{
    app::ledgers,
    config::Config,
    control::{self, ControlError, Reply, Request},
    core::{
        jose::issuer::Issuer,
        ledger::{Ledger, RotationCommand, RotationCommandError},
        rotation::RotationStatus,
        signer::announcement::NodeName,
    },
};

#[derive(Subcommand)]
pub(super) enum RotateVerb {
    /// Show the state of every key, the next switch, and what blocks it
    #[command(after_help = "\
Examples:
  signpost rotate status
  signpost rotate status --output json | jq '.[].nodes'")]
    Status {
        #[command(flatten)]
        which: IssuerSelector,
        /// Output format: `text` or `json`
        #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
        output: Output,
    },
    /// Show the history of all keys, newest first
    History {
        #[command(flatten)]
        which: IssuerSelector,
        /// Output format: `text` or `json`
        #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
        output: Output,
    },
    /// Replace the signing keys as soon as the next ones are ready
    ///
    /// Never causes a token to be refused. To replace a key at any cost, revoke it.
    #[command(after_help = "\
Examples:
  signpost rotate start
  signpost rotate start --without az-account  # it is down for good and no longer read")]
    Start {
        #[command(flatten)]
        which: IssuerSelector,
        /// Do not wait for this target to show a key: relying parties that read only this target will refuse
        /// tokens
        #[arg(long, value_name = "TARGET")]
        without: Vec<String>,
    },
    /// Undo the last rotation: the previous keys sign again, while every target shows them
    ///
    /// If a node waits for a new key after a revocation, the key that is ready signs instead.
    Abort {
        #[command(flatten)]
        which: IssuerSelector,
    },
    /// Revoke a compromised key: it is removed at once, and its tokens are refused
    #[command(after_help = "\
Example:
  signpost rotate revoke JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU --yes")]
    Revoke {
        /// Key ID as printed by `signpost rotate status`, or at least its first four characters; write `--`
        /// before one that begins with `-`
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Sign with a key that was never public, as soon as every target shows it
        ///
        /// For relying parties that drop a key only when they see an unknown kid: other clusters whose
        /// kube-apiserver trusts this issuer, Vault, Dex, Argo CD. Relying parties that keep a cached JWKS
        /// refuse the new key's tokens meanwhile: Microsoft Entra perhaps for hours.
        #[arg(long)]
        sign_with_new_key: bool,
        #[command(flatten)]
        which: IssuerSelector,
        #[command(flatten)]
        sure: Confirm,
    },
    /// Forget a node that no longer signs: its keys are removed once its last token has expired
    Forget {
        /// The name of the node, as `signpost rotate status` prints it
        node: NodeName,
        #[command(flatten)]
        which: IssuerSelector,
        #[command(flatten)]
        sure: Confirm,
    },
}

pub(super) fn run(verb: RotateVerb) -> Result<ExitStatus, Failure> {
    match verb {
        RotateVerb::Status { which, output } => show(&which, output),
        RotateVerb::History { which, output } => history(&which, output),
        RotateVerb::Start { which, without } => {
            let without: BTreeSet<String> = without.into_iter().collect();
            let bypassed = without.clone();
            let issuer = ask(&which, &RotationCommand::Start { without })?;
            eprint(&format!(
                "requested a rotation of {issuer}; `signpost rotate status` shows what it is waiting for"
            ));
            for target in bypassed {
                eprint(&format!(
                    "warning: relying parties that read only target `{target}` may refuse tokens of the next key"
                ));
            }
            Ok(ExitStatus::Success)
        }
        RotateVerb::Abort { which } => {
            let issuer = ask(&which, &RotationCommand::Abort {})?;
            eprint(&format!("undid the rotation of {issuer}"));
            Ok(ExitStatus::Success)
        }
        RotateVerb::Revoke { kid, sign_with_new_key, which, sure } => {
            revoke(&kid, sign_with_new_key, &which, &sure)
        }
        RotateVerb::Forget { node, which, sure } => {
            know_node(&node, &which)?;
            let warning =
                format!("If node {node} still signs, its tokens are refused after `max_token_lifetime`.");
            if !sure.is_given(&warning)? {
                return Ok(ExitStatus::Negative);
            }
            let issuer = ask(&which, &RotationCommand::Forget { node: node.clone() })?;
            eprint(&format!(
                "forgot node {node} of {issuer}: its keys are removed once its last token has \
                expired"
            ));
            Ok(ExitStatus::Success)
        }
    }
}

fn show(which: &IssuerSelector, output: Output) -> Result<ExitStatus, Failure> {
    let reports = reports(which)?;
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&reports).expect("strings always serialise") + "\n",
        Output::Text => reports.iter().map(status::text).collect::<Vec<_>>().join("\n"),
    });
    Ok(ExitStatus::Success)
}

fn history(which: &IssuerSelector, output: Output) -> Result<ExitStatus, Failure> {
    let (_, ledgers) = which.ledgers()?;
    let changes = |ledger: &Ledger| ledger.changes().iter().rev().cloned().collect::<Vec<_>>();
    print(&match output {
        Output::Json => {
            let all: Vec<_> = ledgers
                .iter()
                .map(|ledger| serde_json::json!({ "issuer": ledger.issuer(), "changes": changes(ledger) }))
                .collect();
            serde_json::to_string_pretty(&all).expect("strings always serialise") + "\n"
        }
        Output::Text => ledgers
            .iter()
            .map(|ledger| {
                let mut rows = vec![["WHEN", "KID", "WHAT"].map(str::to_owned)];
                let row = |change: crate::core::ledger::Change| {
                    [status::seconds(change.at), change.kid.to_string(), change.kind.name().to_owned()]
                };
                rows.extend(changes(ledger).into_iter().map(row));
                format!("issuer {}\n\n{}", ledger.issuer(), table(&rows))
            })
            .collect::<Vec<_>>()
            .join("\n"),
    });
    Ok(ExitStatus::Success)
}

fn revoke(
    kid: &str,
    with_new_key: bool,
    which: &IssuerSelector,
    sure: &Confirm,
) -> Result<ExitStatus, Failure> {
    let reports = reports(which)?;
    let known = |report| {
        let RotationStatus { keys, unmanaged_keys, .. }: &RotationStatus = report;
        keys.iter().map(|key| &key.kid).chain(unmanaged_keys.keys()).map(String::as_str)
    };
    let kid =
        kid_prefix::kid(kid, reports.iter().flat_map(known), "`signpost rotate status` prints every kid")?;
    let mut named =
        reports.iter().flat_map(|report| &report.keys).filter(|key| key.kid == kid.as_str()).peekable();
    if named.peek().is_some() && named.all(|key| key.state == "revoked") {
        return Err(RotationCommandError::RevokedAlready { kid }.into());
    }
    let breaks = reports.iter().filter_map(|report| status::what_breaks(report, kid.as_str(), with_new_key));
    if !sure.is_given(&breaks.collect::<Vec<_>>().join("\n"))? {
        return Ok(ExitStatus::Negative);
    }
    let issuer = ask(which, &RotationCommand::Revoke { kid: kid.clone(), with_new_key })?;
    eprint(&format!("revoked {kid} of {issuer}"));
    Ok(ExitStatus::Success)
}

/// Rejects an unknown node before asking for confirmation.
fn know_node(node: &NodeName, which: &IssuerSelector) -> Result<(), Failure> {
    let reports = reports(which)?;
    let known: BTreeSet<&str> =
        reports.iter().flat_map(|report| &report.keys).filter_map(|key| key.node.as_deref()).collect();
    if known.contains(node.as_str()) {
        return Ok(());
    }
    let known: Vec<_> = known.iter().map(|node| format!("`{node}`")).collect();
    let hint = match known.as_slice() {
        [] => "no node signs for this issuer".to_owned(),
        nodes => format!("it has {}", nodes.join(", ")),
    };
    Err(Failure::plain(&format!("node `{node}` is unknown"), &hint))
}

/// The rotation status of the running service, or else according to the ledgers.
fn reports(which: &IssuerSelector) -> Result<Vec<RotationStatus>, Failure> {
    let config = which.config()?;
    let request = Request::Rotation { issuer: which.issuer.clone() };
    match block_on(control::ask(&config.data_dir, &request)) {
        Ok(Reply::Rotation(reports)) => Ok(reports),
        Ok(reply) => Err(refused(reply)),
        Err(ControlError::NobodyListens { .. }) => {
            let (_, known) = which.ledgers()?;
            eprint("note: no service is running here; this is the state in the ledger");
            let mut reports = Vec::new();
            for ledger in &known {
                let issuer = ledger.issuer();
                let configured = config.issuers.iter().find(|configured| configured.issuer == *issuer);
                reports.push(if let Some(configured) = configured {
                    ledgers::rotation(ledger, configured)
                } else {
                    eprint(&format!(
                        "note: issuer {issuer} is not in the configuration: using default times, and the \
                         targets that show its keys; pass the `--config` that the running signpost uses"
                    ));
                    ledgers::unconfigured_rotation(ledger, &which.defaults(issuer)?)
                });
            }
            Ok(reports)
        }
        Err(error) => Err(error.into()),
    }
}

/// Sends the command to the running service, or else changes the ledger; returns the issuer.
fn ask(which: &IssuerSelector, ask: &RotationCommand) -> Result<String, Failure> {
    let config = which.config()?;
    let request = Request::Rotate { issuer: which.issuer.clone(), ask: ask.clone() };
    match block_on(control::ask(&config.data_dir, &request)) {
        Ok(Reply::Done { issuer }) => Ok(issuer),
        Ok(reply) => Err(refused(reply)),
        Err(ControlError::NobodyListens { .. }) => {
            let issuer = only_issuer(which, &config)?;
            block_on(ledgers::rotate(&config, &issuer, ask))?;
            Ok(issuer.to_string())
        }
        Err(error) => Err(error.into()),
    }
}

fn only_issuer(which: &IssuerSelector, config: &Config) -> Result<Issuer, Failure> {
    let (_, ledgers) = which.ledgers()?;
    match ledgers.as_slice() {
        [ledger] => Ok(ledger.issuer().clone()),
        _ => Err(Failure::plain(
            &format!("`{}` has {} issuers", config.data_dir.display(), ledgers.len()),
            "pass `--issuer` to select one",
        )),
    }
}

fn refused(reply: Reply) -> Failure {
    match reply {
        Reply::Refused { error, hint } => {
            Failure::plain(&error, hint.as_deref().unwrap_or("see the log of `signpost run`"))
        }
        Reply::Rotation(_) | Reply::Done { .. } | Reply::Token(_) => Failure::plain(
            "unexpected answer from the service",
            "use the same version of signpost as the service",
        ),
    }
}
