//! `signpost ledger`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Failure, Output, block_on, eprint, error_report::ExitStatus, kid_prefix, load, print, table::table,
};
use crate::{
    app::ledgers,
    config::{Config, Flags, IssuerConfig, KeyFlags},
    core::{
        jose::{issuer::Issuer, kid::Kid},
        ledger::{EntryState, Ledger},
        text::{Hint, redaction::printable},
    },
};

#[derive(Subcommand)]
pub(super) enum LedgerVerb {
    /// Show every known key and its state
    #[command(after_help = "\
Examples:
  signpost ledger show
  signpost ledger show --output json | jq '.[].keys | keys'")]
    Show {
        #[command(flatten)]
        which: IssuerSelector,
        /// Output format: `text` or `json`
        #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
        output: Output,
    },
    /// Adopt an unmanaged or removed key as a key of the issuer
    ///
    /// The key is then published everywhere, and kept for a full retention even if no source lists it.
    #[command(after_help = "\
Example:
  signpost ledger adopt JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU")]
    Adopt {
        /// Key ID as printed by `signpost ledger show`, or at least its first four characters; write `--`
        /// before one that begins with `-`
        #[arg(allow_hyphen_values = true)]
        kid: String,
        #[command(flatten)]
        which: IssuerSelector,
    },
}

/// Which ledger.
#[derive(Args)]
pub(super) struct IssuerSelector {
    /// Directory of the ledger or of a copy of it [default: that of the configuration, else ./signpost-data]
    #[arg(long, value_name = "DIR", env = "SIGNPOST_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,

    /// Configuration file that names the data directory
    #[arg(long, value_name = "FILE", env = "SIGNPOST_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,

    /// Only this issuer
    #[arg(long, value_name = "URL", env = "SIGNPOST_ISSUER", hide_env_values = true)]
    pub(super) issuer: Option<String>,
}

pub(super) fn run(verb: LedgerVerb) -> Result<ExitStatus, Failure> {
    match verb {
        LedgerVerb::Show { which, output } => show(&which, output),
        LedgerVerb::Adopt { kid, which } => adopt(&kid, &which),
    }
}

impl IssuerSelector {
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let keys =
            KeyFlags { data_dir: self.data_dir.clone(), config: self.config.clone(), ..KeyFlags::default() };
        load(&Flags { keys, ..Flags::default() })
    }

    /// The default settings of an issuer that is not configured.
    pub(super) fn defaults(&self, issuer: &Issuer) -> Result<IssuerConfig, Failure> {
        // The source is irrelevant, but required.
        let (issuer, sources) = (Some(issuer.to_string()), vec!["kubernetes".to_owned()]);
        let keys = KeyFlags { data_dir: self.data_dir.clone(), issuer, sources, ..KeyFlags::default() };
        let mut config = load(&Flags { keys, ..Flags::default() })?;
        Ok(config.issuers.remove(0))
    }

    pub(super) fn ledgers(&self) -> Result<(Config, Vec<Ledger>), Failure> {
        let (config, ledgers, _) = self.all_ledgers()?;
        Ok((config, ledgers))
    }

    /// Also returns whether all ledgers can be read; the others are reported.
    fn all_ledgers(&self) -> Result<(Config, Vec<Ledger>, bool), Failure> {
        let config = self.config()?;
        let (mut ledgers, unusable) = block_on(ledgers::all(&config))?;
        if let Some(issuer) = &self.issuer {
            ledgers.retain(|ledger| ledger.issuer().as_str() == issuer);
        }
        let all = unusable.is_empty();
        let mut unusable = unusable.into_iter();
        if ledgers.is_empty() {
            if let Some(error) = unusable.next() {
                return Err(error.into());
            }
            let of = self.issuer.as_ref().map(|issuer| format!(" of issuer `{issuer}`")).unwrap_or_default();
            return Err(Failure::plain(
                &format!("no ledger{of} in `{}`", config.data_dir.display()),
                "pass the `--data-dir` or `--config` that the running signpost uses",
            ));
        }
        for error in unusable {
            eprint(&Failure::from(error).text);
        }
        Ok((config, ledgers, all))
    }
}

fn show(which: &IssuerSelector, output: Output) -> Result<ExitStatus, Failure> {
    let (_, ledgers, all) = which.all_ledgers()?;
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&ledgers).expect("strings always serialise") + "\n",
        Output::Text => ledgers.iter().map(told).collect::<Vec<_>>().join("\n"),
    });
    Ok(if all { ExitStatus::Success } else { ExitStatus::Failure })
}

fn told(ledger: &Ledger) -> String {
    let mut text = format!(
        "issuer {}\nlineage {}, sequence {}\n\n",
        ledger.issuer(),
        ledger.lineage(),
        ledger.sequence()
    );
    let mut rows = vec![["KID", "ALG", "STATE", "FIRST SEEN", "SHOWN BY"].map(str::to_owned)];
    for (kid, entry) in ledger.entries() {
        let state = match entry.state {
            EntryState::Listed => "listed".to_owned(),
            EntryState::Missing { since } => format!("unlisted since {since}"),
            EntryState::Removed { at } => format!("removed {at}"),
            EntryState::Revoked { at } => format!("revoked {at}"),
        };
        let shown: Vec<_> = entry.shown.keys().cloned().collect();
        let algorithm = entry.jwk.algorithm().name().to_owned();
        rows.push([kid.to_string(), algorithm, state, entry.first_seen.to_string(), shown.join(", ")]);
    }
    for (kid, unmanaged_key) in ledger.unmanaged_keys() {
        let shown: Vec<_> = unmanaged_key.shown.keys().cloned().collect();
        let since = unmanaged_key.shown.values().min().map(ToString::to_string).unwrap_or_default();
        let algorithm = unmanaged_key.jwk.algorithm().name().to_owned();
        rows.push([kid.to_string(), algorithm, "unmanaged".to_owned(), since, shown.join(", ")]);
    }
    text += &table(&rows);
    let mut changes = vec![["CHANGED", "KID", "WHAT"].map(str::to_owned)];
    for change in ledger.changes().iter().rev().take(10) {
        changes.push([change.at.to_string(), change.kid.to_string(), change.kind.name().to_owned()]);
    }
    text.push('\n');
    text += &table(&changes);
    if let Some(hold) = ledger.retention_hold() {
        text += &format!("\nno key is removed before {}\n", hold.until);
    }
    for incident in ledger.incidents().iter().rev().take(10) {
        text += &format!("{} {}\n", incident.at, incident.kind);
    }
    text
}

fn adopt(kid: &str, which: &IssuerSelector) -> Result<ExitStatus, Failure> {
    let hint = "`signpost ledger show` prints every kid";
    let (config, ledgers) = which.ledgers()?;
    let known =
        ledgers.iter().flat_map(|ledger| ledger.entries().keys().chain(ledger.unmanaged_keys().keys()));
    let kid = kid_prefix::kid(kid, known.map(Kid::as_str), hint)?;
    let knows = |ledger: &&Ledger| ledger.key(&kid).is_some() || ledger.unmanaged_keys().contains_key(&kid);
    let issuers: Vec<Issuer> = ledgers.iter().filter(knows).map(|ledger| ledger.issuer().clone()).collect();
    let [issuer] = issuers.as_slice() else {
        return Err(Failure::plain(
            &format!("kid `{}` is known to {} issuers", printable(kid.as_str()), issuers.len()),
            "pass `--issuer` to select one",
        ));
    };
    block_on(ledgers::adopt(&config, issuer, &kid))
        .map_err(|error| Failure::new(&error, error.hint().as_deref().or(Some(hint))))?;
    eprint(&format!("adopted {kid} for {issuer}: the next sync publishes it everywhere"));
    Ok(ExitStatus::Success)
}
