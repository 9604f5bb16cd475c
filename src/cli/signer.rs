//! `signpost signer`.

use clap::Args;

use super::{Failure, block_on, read_config, report::Outcome, say, working_directory};
use crate::{
    app::{AppError, node},
    clock,
    config::{self, SignerFlags},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  signpost signer --issuer https://oidc.example.com --socket @signpost
  signpost signer --config /etc/signpost/signpost.yaml \\
    --socket /run/signpost/signer.sock

kube-apiserver is started with --service-account-signing-endpoint=SOCKET, and
without --service-account-signing-key-file and --service-account-key-file.")]
pub(super) struct SignerArguments {
    #[command(flatten)]
    flags: SignerFlags,
}

pub(super) fn carry_out(SignerArguments { flags }: &SignerArguments) -> Result<Outcome, Failure> {
    let text = read_config(flags.config.as_deref())?;
    let file = text.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    let config = config::load_for_signer(flags, file, &working_directory()?, clock::now())?;
    let issuer = config.issuer.issuer.clone();
    let started = |socket: &_, node: &_| {
        say(&format!("signing for {issuer} at {socket} as node {node}"));
    };
    block_on(node::run(config, started)).map_err(AppError::from)?;
    Ok(Outcome::Success)
}
