//! `signpost verify`.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{CannotRead, Failure, Output, block_on, print, read_file, report::Outcome};
use crate::{
    app::evidence,
    core::{
        issuer::Issuer,
        verification::{Certainty, Exhibit, Finding, Level, accepted, judge},
    },
    workflow::verifying::{Expectation, offline},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  kubectl create token default --audience api://AzureADTokenExchange |
    signpost verify --token -
  signpost verify --token token.jwt --audience sts.amazonaws.com \\
    --subject system:serviceaccount:team:app
  signpost verify --token token.jwt --jwks jwks.json --output json

Exit codes: 0 it would be accepted; 1 it would be refused; 2 there was no
answer, or a file cannot be read.")]
pub(super) struct VerifyFlags {
    /// File with the token, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    token: PathBuf,

    /// The issuer that the federated credential names [default: the one that the token names]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// Read the discovery document from this file instead of the issuer
    #[arg(long, value_name = "FILE", requires = "jwks")]
    discovery: Option<PathBuf>,

    /// Read the JWKS from this file instead of the issuer
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,

    /// The audience that the federated credential names
    #[arg(long, value_name = "A")]
    audience: Option<String>,

    /// The subject that the federated credential names
    #[arg(long, value_name = "S")]
    subject: Option<String>,

    /// How to print the findings: `text` for people or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    output: Output,
}

pub(super) fn carry_out(flags: &VerifyFlags) -> Result<Outcome, Failure> {
    let token = read_token(flags)?;
    let issuer = flags.issuer.as_deref().map(Issuer::parse).transpose();
    let expected = Expectation {
        issuer: issuer
            .map_err(|error| Failure::new(&error, Some("pass the issuer as the token names it")))?,
        audience: flags.audience.clone(),
        subject: flags.subject.clone(),
    };
    let evidence = match &flags.jwks {
        Some(jwks) => {
            let discovery = flags.discovery.as_deref().map_or(Ok(Exhibit::NotSought), exhibit)?;
            offline(&token, expected, discovery, exhibit(jwks)?)
        }
        None => block_on(evidence::from_issuer(&token, expected))
            .map_err(|error| Failure::new(&error, error.hint().as_deref()))?,
    };
    let findings = judge(&evidence);
    let outcome = if accepted(&findings) { Outcome::Success } else { Outcome::Negative };
    print(&match flags.output {
        Output::Text => text(&findings),
        Output::Json => json(&findings),
    });
    Ok(outcome)
}

fn read_token(flags: &VerifyFlags) -> Result<String, Failure> {
    let bytes = if flags.token.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map_err(|source| {
            Failure::new(&CannotRead { path: flags.token.clone(), source }, Some("pipe a token into it"))
        })?;
        bytes
    } else {
        read_file(&flags.token, "name a readable file, or `-` to pipe the token in")?
    };
    let text = String::from_utf8_lossy(&bytes);
    // Tools print a line; a kubelet writes none. Nothing else is forgiven.
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn exhibit(path: &Path) -> Result<Exhibit, Failure> {
    let bytes = read_file(path, "name a readable file, or leave it out to ask the issuer")?;
    Ok(Exhibit::File { path: path.display().to_string(), bytes })
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.id.len()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let mark = match (finding.holds, finding.level) {
            (true, _) => "ok  ",
            (false, Level::Error) => "FAIL",
            (false, Level::Warning) => "warn",
            (false, Level::Note) => "note",
        };
        text += &format!("{mark}  {:width$}  {}\n", finding.id, finding.observed);
        let indent = " ".repeat(width + 8);
        if let Some(certainty) = finding.certainty {
            text += &format!(
                "{indent}Microsoft Entra: {} ({})\n",
                codes(finding.predicted_codes),
                word(certainty)
            );
        }
        if let Some(fix) = &finding.fix {
            text += &format!("{indent}fix: {fix}\n");
        }
    }
    let violated = |level| findings.iter().filter(|it| !it.holds && it.level == level).count();
    let (failed, checks) = (violated(Level::Error), findings.len());
    let further = match violated(Level::Warning) + violated(Level::Note) {
        0 => String::new(),
        1 => ", 1 thing to know".to_owned(),
        count => format!(", {count} things to know"),
    };
    text + &match (accepted(findings), failed) {
        (true, _) => format!("\naccepted: {checks} checks, none failed{further}\n"),
        (false, 0) => "\nrefused: the signature was not checked\n".to_owned(),
        (false, _) => format!("\nrefused: {failed} of {checks} checks failed{further}\n"),
    }
}

fn codes(codes: &[u32]) -> String {
    codes.iter().map(|code| format!("AADSTS{code}")).collect::<Vec<_>>().join(" or ")
}

fn word(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Documented => "documented",
        Certainty::Observed => "observed",
        Certainty::Inferred => "inferred",
    }
}

fn json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        accepted: bool,
        findings: &'a [Finding],
    }
    let report = Report { accepted: accepted(findings), findings };
    serde_json::to_string_pretty(&report).expect("strings always serialise") + "\n"
}
