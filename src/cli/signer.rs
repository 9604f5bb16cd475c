//! `signpost signer`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Failure, Output, block_on, confirm::Confirm, eprint, error_report::ExitStatus, print, read_config,
    read_file, table::table, working_directory,
};
use crate::{
    app::signer,
    clock,
    config::{self, NodeConfig, SignerFlags},
    core::{
        api_server_flags::{ApiServerConfig, Finding, check},
        jose::kid::Kid,
        signer::announcement::{NodeName, SignedAnnouncement},
    },
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
    /// Check the flags of an API server against its signer, before it exits because of a mismatch
    Check(CheckFlags),
    /// Import an existing signing key, such as kubeadm's sa.key: it signs until it is rotated out
    #[command(after_help = "\
Example:
  signpost signer import /etc/kubernetes/pki/sa.key \\
    --issuer https://oidc.example.com

The file is not changed: remove it once no API server uses it.")]
    Import(ImportFlags),
    /// Trust a node: this node's API server accepts its tokens, and those of every node that it has admitted
    #[command(after_help = "\
Example, on a node that signs, with the announcement of the new node:
  signpost signer admit cp-2.json --config /etc/signpost/signpost.yaml

The new node writes it to announcements/NODE.json in its data directory. Copy the
file with the care of a CA certificate, and admit this node there as well. A running
signer picks it up within a second.")]
    Admit(AdmitFlags),
    /// Stop trusting a node, and the nodes that only it has admitted
    #[command(after_help = "\
Example:
  signpost signer expel cp-2 --config /etc/signpost/signpost.yaml

`signpost rotate forget NODE` removes the node from the publisher.")]
    Expel(ExpelFlags),
}

#[derive(Args)]
struct AdmitFlags {
    /// File with the announcement of the node
    file: PathBuf,

    #[command(flatten)]
    sure: Confirm,

    #[command(flatten)]
    flags: SignerFlags,
}

#[derive(Args)]
struct ExpelFlags {
    /// The name of the other node
    #[arg(value_name = "NODE")]
    other: NodeName,

    #[command(flatten)]
    flags: SignerFlags,
}

#[derive(Args)]
struct ImportFlags {
    /// The private key: RSA or P-256, PEM, readable only by its owner
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

    /// Output format: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    output: Output,
}

impl SignerArguments {
    /// Whether the command runs as a service.
    pub(super) fn is_service(&self) -> bool {
        self.verb.is_none()
    }
}

pub(super) fn run(SignerArguments { flags, verb }: &SignerArguments) -> Result<ExitStatus, Failure> {
    match verb {
        Some(SignerVerb::Check(flags)) => return carry_out_check(flags),
        Some(SignerVerb::Import(flags)) => return carry_out_import(flags),
        Some(SignerVerb::Admit(flags)) => return carry_out_admit(flags),
        Some(SignerVerb::Expel(flags)) => return carry_out_expel(flags),
        None => {}
    }
    let config = with_socket(load(flags)?)?;
    let issuer = config.issuer.issuer.clone();
    let started = |socket: &_, node: &_| {
        eprint(&format!("signing for {issuer} at {socket} as node {node}"));
    };
    block_on(signer::run(config, started))?;
    Ok(ExitStatus::Success)
}

fn load(flags: &SignerFlags) -> Result<NodeConfig, Failure> {
    let text = read_config(flags.config.as_deref())?;
    let file = text.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    Ok(config::load_for_signer(flags, file, &working_directory()?, clock::now())?)
}

fn with_socket(config: NodeConfig) -> Result<NodeConfig, Failure> {
    let hint = "pass `--socket`, such as `--socket /run/signpost/signer.sock`";
    if config.signer.socket.is_some() {
        Ok(config)
    } else {
        Err(Failure::plain("no socket is configured", hint))
    }
}

fn carry_out_import(ImportFlags { file, flags }: &ImportFlags) -> Result<ExitStatus, Failure> {
    let imported = block_on(signer::import(load(flags)?, file.clone()))?;
    eprint(&format!("key {} signs from now on", imported.kid));
    if imported.others > 0 {
        eprint(&format!(
            "warning: {} more keys in {file} were not imported: add the file to \
             `signer.additional_verification_keys` to keep their tokens valid",
            imported.others,
            file = file.display()
        ));
    }
    Ok(ExitStatus::Success)
}

fn carry_out_admit(AdmitFlags { file, sure, flags }: &AdmitFlags) -> Result<ExitStatus, Failure> {
    let hint = "pass the announcement of the other node: announcements/NODE.json in its data directory";
    let config = load(flags)?;
    let signed = SignedAnnouncement::read(&read_file(file, hint)?)
        .map_err(|error| Failure::new(&error, Some(hint)))?;
    signer::may_admit(&config, &signed)?;
    let announcement = signed.announcement();
    let kids: Vec<_> = announcement.keys().keys().map(Kid::to_string).collect();
    let node = announcement.node();
    let warning = format!(
        "node {node} signs with one of\n  {kids}\nThe holder of such a private key is cluster-admin here. \
         Compare them \
         with `announcements/{node}.json` on that node.",
        kids = kids.join("\n  ")
    );
    if !sure.is_given(&warning)? {
        return Ok(ExitStatus::Negative);
    }
    signer::admit(&config, &signed)?;
    eprint(&format!("node {node} is trusted"));
    Ok(ExitStatus::Success)
}

fn carry_out_expel(ExpelFlags { other: node, flags }: &ExpelFlags) -> Result<ExitStatus, Failure> {
    let was_admitted = signer::expel(&load(flags)?, node)?;
    if was_admitted {
        eprint(&format!("node {node} is no longer admitted here"));
        Ok(ExitStatus::Success)
    } else {
        eprint(&format!("node {node} was not admitted here"));
        Ok(ExitStatus::Negative)
    }
}

fn carry_out_check(flags: &CheckFlags) -> Result<ExitStatus, Failure> {
    let hint = "pass the manifest of kube-apiserver, or a file with its command line";
    let config = with_socket(load(&flags.flags)?)?;
    let bytes = read_file(&flags.apiserver_manifest, hint)?;
    let launch = ApiServerConfig::parse(&String::from_utf8_lossy(&bytes));
    let launch = launch?;
    let findings = signer::with_signer(&config, |signer| check(&launch, signer));
    print(&match flags.output {
        Output::Text => text(&findings),
        Output::Json => serde_json::to_string_pretty(&findings).expect("strings always serialise") + "\n",
    });
    let all_fit = findings.iter().all(|finding| finding.fits);
    Ok(if all_fit { ExitStatus::Success } else { ExitStatus::Negative })
}

fn text(findings: &[Finding]) -> String {
    let rows = findings.iter().flat_map(|finding| {
        let (mark, to_do) = match (finding.fits, &finding.fix) {
            (false, _) => ("FAIL", "fix: "),
            (true, Some(_)) => ("note", ""),
            (true, None) => ("ok", ""),
        };
        let own = [mark.to_owned(), finding.about.to_owned(), finding.observed.clone()];
        let fix = finding.fix.as_ref().map(|fix| [String::new(), String::new(), format!("{to_do}{fix}")]);
        [Some(own), fix].into_iter().flatten()
    });
    table(&rows.collect::<Vec<_>>())
}
