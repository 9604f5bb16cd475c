//! `signpost token`.

use std::{os::fd::AsFd, path::PathBuf, time::Duration};

use clap::Args;
use jiff::SignedDuration;
use rustix::fs::{FileType, fstat};

use super::{Failure, block_on, error_report::ExitStatus, print, working_directory};
use crate::{app::tokens, core::service_account::ServiceAccount};

/// The audience that Microsoft Entra expects of a federated token in the public cloud.
const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

#[derive(Args)]
#[command(after_help = "\
Examples:
  signpost token | signpost verify --token -
  signpost token --audience sts.amazonaws.com --expiration 20s
  signpost token --source kubernetes:kind-kind \\
    --service-account default/default --expiration 10m")]
pub(super) struct TokenFlags {
    /// Audience of the token; repeatable
    #[arg(long = "audience", value_name = "A", default_value = EXCHANGE_AUDIENCE)]
    audiences: Vec<String>,

    /// Lifetime of the token, such as `10m` [default: 30s embedded, else chosen by the cluster]
    #[arg(long, value_name = "D", value_parser = lifetime)]
    expiration: Option<Duration>,

    /// Service account of the token; must exist in a cluster [default: demo/demo embedded]
    #[arg(long, value_name = "NS/NAME")]
    service_account: Option<ServiceAccount>,

    /// Data directory of the embedded signer
    #[arg(
        long,
        value_name = "DIR",
        env = "SIGNPOST_DATA_DIR",
        hide_env_values = true,
        default_value = "signpost-data"
    )]
    data_dir: PathBuf,

    /// Issuer of the token: `embedded`, `kubernetes` or `kubernetes:CONTEXT` [default: embedded if there is one]
    #[arg(long, value_name = "SRC")]
    source: Option<String>,
}

pub(super) fn run(flags: &TokenFlags) -> Result<ExitStatus, Failure> {
    let data_dir = working_directory()?.join(&flags.data_dir);
    // A cluster needs a service account.
    let is_starting = flags.service_account.is_none() && tokens::has_service(&data_dir);
    let is_embedded = tokens::has_embedded(&data_dir) || is_starting;
    let default = if is_embedded { "embedded" } else { "kubernetes" };
    let (kind, context) = match flags.source.as_deref().unwrap_or(default).split_once(':') {
        Some((kind, context)) => (kind.to_owned(), Some(context.to_owned())),
        None => (flags.source.clone().unwrap_or_else(|| default.to_owned()), None),
    };
    let wanted = |account| tokens::TokenClaims {
        account,
        audiences: flags.audiences.clone(),
        lifetime: flags.expiration,
    };
    let token = match (kind.as_str(), &flags.service_account) {
        ("embedded", account) => {
            let demo = || ServiceAccount::new("demo", "demo").expect("valid names");
            block_on(tokens::embedded(&data_dir, &wanted(account.clone().unwrap_or_else(demo))))
        }
        ("kubernetes", Some(account)) => block_on(tokens::cluster(context, &wanted(account.clone()))),
        ("kubernetes", None) => {
            return Err(Failure::plain(
                &format!(
                    "no embedded signer in `{}` and no service account of a cluster",
                    data_dir.display()
                ),
                "start `signpost run` first, or pass `--service-account NAMESPACE/NAME`",
            ));
        }
        (other, _) => {
            return Err(Failure::plain(
                &format!(
                    "unknown source `{other}`, expected `embedded`, `kubernetes` or `kubernetes:CONTEXT`"
                ),
                "omit `--source` to use the embedded signer if there is one",
            ));
        }
    }?;
    print(token.as_str());
    if !is_file(&std::io::stdout()) {
        print("\n");
    }
    Ok(ExitStatus::Success)
}

/// Whether the output is a file: there a token has no trailing line break, which some clients would send.
fn is_file(output: &impl AsFd) -> bool {
    fstat(output).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a lifetime, expected a duration such as `30s`, `10m` or `1h`");
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}
