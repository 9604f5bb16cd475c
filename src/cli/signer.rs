//! `signpost signer`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Failure, Output, block_on, print, read_config, read_file, report::Outcome, say, table::table,
    working_directory,
};
use crate::{
    app::{AppError, node},
    clock,
    config::{self, NodeConfig, SignerFlags},
    core::api_server_flags::{Finding, Launch, check},
};

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  signpost signer --issuer https://oidc.example.com --socket @signpost
  signpost signer --config /etc/signpost/signpost.yaml \\
    --socket /run/signpost/signer.sock
  signpost signer check --socket /run/signpost/signer.sock \\
    --issuer https://oidc.example.com \\
    --apiserver-manifest /etc/kubernetes/manifests/kube-apiserver.yaml

kube-apiserver is started with --service-account-signing-endpoint=SOCKET, and
without --service-account-signing-key-file and --service-account-key-file."
)]
pub(super) struct SignerArguments {
    #[command(flatten)]
    flags: SignerFlags,

    #[command(subcommand)]
    verb: Option<SignerVerb>,
}

#[derive(Subcommand)]
enum SignerVerb {
    /// Say whether an API server fits its signer, before it exits over what does not
    Check(CheckFlags),
    /// Take over a key that has signed until now, such as kubeadm's sa.key: it goes on until it is rotated away
    #[command(after_help = "\
Example:
  signpost signer import /etc/kubernetes/pki/sa.key \\
    --issuer https://oidc.example.com

The file stays as it is: remove it once no API server uses it any more.")]
    Import(ImportFlags),
}

#[derive(Args)]
struct ImportFlags {
    /// The private key: RSA or P-256, PEM, readable by its owner alone
    file: PathBuf,

    #[command(flatten)]
    flags: SignerFlags,
}

#[derive(Args)]
struct CheckFlags {
    #[command(flatten)]
    flags: SignerFlags,

    /// The manifest of its static pod, or its command line, such as `/proc/PID/cmdline`
    #[arg(long, value_name = "FILE")]
    apiserver_manifest: PathBuf,

    /// How it is printed: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    output: Output,
}

impl SignerArguments {
    /// Whether it stays.
    pub(super) fn is_service(&self) -> bool {
        self.verb.is_none()
    }
}

pub(super) fn carry_out(SignerArguments { flags, verb }: &SignerArguments) -> Result<Outcome, Failure> {
    match verb {
        Some(SignerVerb::Check(flags)) => return carry_out_check(flags),
        Some(SignerVerb::Import(flags)) => return carry_out_import(flags),
        None => {}
    }
    let config = with_socket(load(flags)?)?;
    let issuer = config.issuer.issuer.clone();
    let started = |socket: &_, node: &_| {
        say(&format!("signing for {issuer} at {socket} as node {node}"));
    };
    block_on(node::run(config, started)).map_err(AppError::from)?;
    Ok(Outcome::Success)
}

fn load(flags: &SignerFlags) -> Result<NodeConfig, Failure> {
    let text = read_config(flags.config.as_deref())?;
    let file = text.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    Ok(config::load_for_signer(flags, file, &working_directory()?, clock::now())?)
}

fn with_socket(config: NodeConfig) -> Result<NodeConfig, Failure> {
    let hint = "pass `--socket`, such as `--socket /run/signpost/signer.sock`";
    if config.signer.socket.is_some() { Ok(config) } else { Err(Failure::plain("there is no socket", hint)) }
}

fn carry_out_import(ImportFlags { file, flags }: &ImportFlags) -> Result<Outcome, Failure> {
    let kid = block_on(node::import(load(flags)?, file.clone())).map_err(AppError::from)?;
    say(&format!("key {kid} signs from now on"));
    Ok(Outcome::Success)
}

fn carry_out_check(flags: &CheckFlags) -> Result<Outcome, Failure> {
    let hint = "name the manifest of kube-apiserver, or a file with its command line";
    let config = with_socket(load(&flags.flags)?)?;
    let bytes = read_file(&flags.apiserver_manifest, hint)?;
    let launch =
        Launch::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| Failure::new(&error, Some(hint)))?;
    let findings = node::fitting(&config, |signer| check(&launch, signer));
    print(&match flags.output {
        Output::Text => text(&findings),
        Output::Json => serde_json::to_string_pretty(&findings).expect("strings always serialise") + "\n",
    });
    let all_fit = findings.iter().all(|finding| finding.fits);
    Ok(if all_fit { Outcome::Success } else { Outcome::Negative })
}

fn text(findings: &[Finding]) -> String {
    let rows = findings.iter().flat_map(|finding| {
        let mark = if finding.fits { "ok" } else { "FAIL" };
        let own = [mark.to_owned(), finding.about.to_owned(), finding.observed.clone()];
        let fix = finding.fix.as_ref().map(|fix| [String::new(), String::new(), format!("fix: {fix}")]);
        [Some(own), fix].into_iter().flatten()
    });
    table(&rows.collect::<Vec<_>>())
}
