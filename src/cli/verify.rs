//! `signpost verify`.

use std::{
    borrow::Cow,
    cell::RefCell,
    error::Error,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    CannotRead, Failure, MAX_FILE, Output, block_on, eprint, error_report::ExitStatus, print, read_bytes,
    read_file,
};
use crate::{
    app::evidence::{self, Documents, InCluster, Sources, TokenSubject},
    core::{
        entra::{self, Credential, Identity, TokenRequest},
        jose::issuer::Issuer,
        ledger::Ledger,
        service_account::ServiceAccount,
        text::{in_utf8, redaction::redact_tokens},
        verification::{
            self, Agreement, Cloud, DocumentEvidence, Evidence, Expectation, Party, Question,
            VerificationReport, judge,
            situation::{self, Answer, Situation},
        },
    },
    files,
    reconcile::document_read,
};

mod flags;
mod json;
mod text;

use flags::{CloudName, ClusterFlags, ExpectedFlags, Parties};
pub(super) use flags::{Context, DocumentFlags, VerifyFlags, context};

/// A verdict, and its subject.
struct Judged {
    account: Option<ServiceAccount>,
    report: VerificationReport,
}

pub(super) fn run(flags: &VerifyFlags) -> Result<ExitStatus, Failure> {
    flags.check_answer()?;
    let expected = flags.expected();
    let sources = flags.sources(&expected)?;
    if sources.is_empty() && expected.issuer.is_none() {
        return Err(Failure::plain(
            "nothing to verify: no token, no issuer, no service account",
            "pass `--token FILE`, `--issuer URL` or `--service-account NAMESPACE/NAME`",
        ));
    }
    let has_token = sources.token.is_some() || sources.cluster.is_some() || sources.request.is_some();
    if !has_token && flags.speaks_of_a_token() {
        return Err(Failure::plain(
            "there is no token to compare with `--subject`, `--audience` or `--credentials`",
            "pass `--token FILE` or `--service-account NAMESPACE/NAME`; `--issuer URL` alone verifies only \
             the documents",
        ));
    }
    let situation = RefCell::new(None);
    let attempt = async || {
        let gathered = evidence::gather(&sources, &expected).await?;
        situation.replace(flags.situation(&gathered, &expected));
        Ok::<_, evidence::EvidenceError>(flags.judged(&gathered, &expected))
    };
    let mut told = None;
    let judged = block_on(document_read::until_accepted(
        flags.wait.unwrap_or_default(),
        attempt,
        |judged: &[Judged]| judged.iter().map(|it| &it.report).collect(),
        |judged, left| {
            let waited_for = text::waited_for(judged);
            if told.as_ref() != Some(&waited_for) {
                eprint(&format!("waiting for at most {}: {waited_for}", text::patience(left)));
                told = Some(waited_for);
            }
        },
    ));
    let judged = judged?;
    if judged.is_empty() {
        return Err(Failure::plain(
            "there is no service account in this namespace",
            "`kubectl get serviceaccounts` lists those of a namespace",
        ));
    }
    let answered = flags.answer.got.map(|answer| Answered::of(&judged, answer));
    let report = match flags.output {
        Output::Text => text::text(&judged) + &answered.map_or_else(String::new, text::answered),
        Output::Json => json::json(&judged, answered),
    };
    // A token may have been given in a field of the credential.
    print(&redact_tokens(&report));
    if let Some((path, situation)) = flags.answer.report.as_ref().zip(situation.into_inner()) {
        write_report(path, &situation)?;
    }
    Ok(outcome(&judged))
}

/// The answer that Entra gave, and how it compares with the prediction.
#[derive(Clone, Copy)]
struct Answered {
    answer: Answer,
    agreement: Agreement,
}

impl Answered {
    fn of(judged: &[Judged], answer: Answer) -> Self {
        // With several service accounts, that of the best prediction.
        let agreements = judged.iter().map(|it| Agreement::of(&it.report, answer, &[]));
        Self { answer, agreement: agreements.min().expect("something was judged") }
    }
}

/// Writes a situation for `tests/ground_truth/`.
fn write_report(path: &Path, situation: &Situation) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(situation).expect("a situation is always YAML");
    // An existing file may be the evidence itself.
    let written = fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| {
        Failure::new(
            &CannotWrite { path: path.to_owned(), source },
            Some("name a new file in a folder of yours"),
        )
    })?;
    eprint(&format!(
        "wrote `{}`: look at it, complete its first line, and send it in as docs/entra.md says",
        path.display()
    ));
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
struct CannotWrite {
    path: PathBuf,
    source: io::Error,
}

fn outcome(judged: &[Judged]) -> ExitStatus {
    let any = |outcome| judged.iter().any(|it| it.report.outcome == outcome);
    match (any(verification::VerificationOutcome::Refused), any(verification::VerificationOutcome::Unknown)) {
        (true, _) => ExitStatus::Negative,
        (false, true) => ExitStatus::Failure,
        (false, false) => ExitStatus::Success,
    }
}

impl VerifyFlags {
    /// Refuses what cannot be meant together.
    fn check_answer(&self) -> Result<(), Failure> {
        let is_of_entra = matches!(self.parties, None | Some(Parties::Entra));
        if self.answer.got.is_some() && !is_of_entra {
            return Err(Failure::plain(
                "`--got` is an answer of Microsoft Entra",
                "leave out `--for`, or pass `--for entra`",
            ));
        }
        let is_piped = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.as_os_str() == "-");
        if is_piped(&self.token) && is_piped(&self.expected.request) {
            return Err(Failure::plain(
                "both `--token` and `--request` read standard input",
                "pass one of them as a file",
            ));
        }
        Ok(())
    }

    fn expected(&self) -> Expectation {
        let ExpectedFlags { issuer, subject, audience, .. } = &self.expected;
        Expectation { issuer: issuer.clone(), subject: subject.clone(), audience: audience.clone() }
    }

    /// Whether the expectation has values that only a token can be compared with.
    fn speaks_of_a_token(&self) -> bool {
        let ExpectedFlags { issuer: _, subject, audience, credentials, request: _ } = &self.expected;
        subject.is_some() || audience.is_some() || !credentials.is_empty()
    }

    /// The cloud that is named, else the one whose authority is asked.
    fn cloud(&self, request: Option<&TokenRequest>) -> Cloud {
        match self.cloud {
            Some(CloudName::Public) => Cloud::Public,
            Some(CloudName::Usgov) => Cloud::UsGov,
            Some(CloudName::China) => Cloud::China,
            None => {
                let authority = request.and_then(|it| it.authority.as_deref()?.strip_prefix("https://"));
                authority.and_then(Cloud::of_host).unwrap_or_default()
            }
        }
    }

    /// The parties whose rules apply; by default an issuer on loopback is for this machine.
    fn parties(&self, evidence: &Evidence, expected: &Expectation) -> &'static [Party] {
        match self.parties {
            Some(Parties::Aws) => &[Party::Aws],
            Some(Parties::Gcp) => &[Party::Gcp],
            Some(Parties::Kubernetes) => &[Party::Kubernetes],
            Some(Parties::All) => &Party::OUTSIDE,
            Some(Parties::Local) => &[Party::Local],
            None if self.answer.got.is_some() => &[Party::Entra],
            None if document_read::issuer(evidence, expected).as_ref().is_some_and(Issuer::is_loopback) => {
                &[Party::Local]
            }
            Some(Parties::Entra) | None => &[Party::Entra],
        }
    }

    fn judged(&self, gathered: &[(Option<ServiceAccount>, Evidence)], expected: &Expectation) -> Vec<Judged> {
        let judge = |(account, evidence): &(Option<ServiceAccount>, Evidence)| {
            let judged = self.parties(evidence, expected).iter().map(|&party| {
                let cloud = self.cloud(evidence.request.as_ref());
                let question = Question { party, cloud, expected: expected.clone() };
                Judged { account: account.clone(), report: judge(evidence, &question) }
            });
            judged.collect::<Vec<_>>()
        };
        gathered.iter().flat_map(judge).collect()
    }

    /// The first of the gathered situations, without names.
    fn situation(
        &self,
        gathered: &[(Option<ServiceAccount>, Evidence)],
        expected: &Expectation,
    ) -> Option<Situation> {
        let (_, evidence) = gathered.first()?;
        let cloud = self.cloud(evidence.request.as_ref());
        let question = Question { party: Party::Entra, cloud, expected: expected.clone() };
        Some(situation::anonymous(evidence, &question, self.answer.got?))
    }

    fn sources(&self, expected: &Expectation) -> Result<Sources, Failure> {
        let documents = self.documents.sources()?;
        let read = |path: &PathBuf| read_token(path, "--token");
        let (token, around) = self.token.as_ref().map(read).transpose()?.unzip();
        let (request, assertion) = self.expected.request.as_deref().map(read_request).transpose()?.unzip();
        let (credentials, identity) = read_identity(&self.expected.credentials)?;
        let assertion = assertion.flatten();
        if token.as_ref().zip(assertion.as_ref()).is_some_and(|(token, assertion)| token != assertion) {
            return Err(Failure::plain(
                "`--token` and the `client_assertion` of `--request` are two different tokens",
                "leave out `--token`, or write `client_assertion=…` of the same token into the request",
            ));
        }
        Ok(Sources {
            token: token.or(assertion),
            token_file: around.flatten(),
            cluster: self.cluster.wanted(self.minted_for(expected, request.as_ref())),
            documents,
            identity,
            credentials,
            request,
            ledger: self.documents.ledger.as_deref().map(read_ledger).transpose()?,
        })
    }

    /// The audience of a token that is minted for verification.
    fn minted_for(&self, expected: &Expectation, request: Option<&TokenRequest>) -> String {
        let usual = match self.parties {
            Some(Parties::Aws) => "sts.amazonaws.com",
            _ => self.cloud(request).audience(),
        };
        expected.audience.clone().unwrap_or_else(|| usual.to_owned())
    }
}

impl ClusterFlags {
    fn wanted(&self, audience: String) -> Option<InCluster> {
        let account = self.service_account.clone().map(TokenSubject::Account);
        let pod = self.pod.clone().map(|(namespace, name)| TokenSubject::Pod { namespace, name });
        let whose = account.or(pod).or(self.namespace.clone().map(TokenSubject::Namespace))?;
        Some(InCluster { whose, audience, context: self.source.0.clone() })
    }
}

impl DocumentFlags {
    /// Where the documents come from.
    pub(super) fn sources(&self) -> Result<Documents, Failure> {
        let Self { discovery, jwks, ledger: _, allow_private, connect_to, ca_file } = self;
        let Some(jwks) = jwks else {
            let (allow_private, instead) = (*allow_private, *connect_to);
            return Ok(Documents::Fetched { allow_private, instead, ca_file: ca_file.clone() });
        };
        let discovery = discovery.as_deref().map_or(Ok(DocumentEvidence::NotSought), document)?;
        Ok(Documents::Given { discovery, jwks: document(jwks)? })
    }
}

/// Reads the token that a flag names, and describes what surrounds it in its file.
pub(super) fn read_token(path: &Path, flag: &str) -> Result<(String, Option<String>), Failure> {
    if matches!(redact_tokens(&path.to_string_lossy()), Cow::Owned(_)) {
        return Err(Failure::plain(
            &format!("`{flag}` is a token itself, expected a file"),
            &format!("pipe it into `{flag} -`: every user of this machine can see arguments"),
        ));
    }
    let is_piped = path.as_os_str() == "-";
    let bytes = if is_piped {
        files::up_to(io::stdin().lock(), MAX_FILE).map_err(|source| {
            Failure::new(&CannotRead { path: path.to_owned(), source }, Some("pipe a token into it"))
        })?
    } else {
        read_bytes(path, "name a readable file, or `-` to pipe the token in")?
    };
    if bytes.trim_ascii().is_empty() {
        let text = if is_piped {
            "there is no token on standard input".to_owned()
        } else {
            format!("there is no token in `{}`", path.display())
        };
        return Err(Failure::plain(
            &text,
            "check the command that should have written it: `signpost token` prints a token or an error",
        ));
    }
    let text = in_utf8(&bytes);
    let encoded = if matches!(text, Cow::Owned(_)) {
        Some("it is in UTF-16")
    } else {
        (text.len() < bytes.len()).then_some("it begins with a byte order mark")
    };
    let text = String::from_utf8_lossy(&text);
    // Tools add a line break; a kubelet writes none. Nothing else is accepted.
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let ends = line.is_some().then_some("it ends with a line break");
    let around = encoded.into_iter().chain(ends).collect::<Vec<_>>().join(", and ");
    let is_kept = !is_piped && path.is_file() && !around.is_empty();
    Ok((line.unwrap_or(&text).to_owned(), is_kept.then_some(around)))
}

fn document(path: &Path) -> Result<DocumentEvidence, Failure> {
    let bytes = read_file(path, "name a readable file, or omit it to read from the issuer")?;
    Ok(DocumentEvidence::File { path: path.display().to_string(), bytes })
}

/// What the files say of the identity: its credentials, and itself.
pub(super) fn read_identity(
    paths: &[PathBuf],
) -> Result<(Option<Vec<Credential>>, Option<Identity>), Failure> {
    let hint = "write the output of `az identity federated-credential list`, `az identity show` or Microsoft Graph \
                into it";
    let (mut listed, mut known): (Option<Vec<_>>, Option<Identity>) = (None, None);
    for path in paths {
        let bytes = read_file(path, hint)?;
        let identity = json_in(&bytes).and_then(|value| Identity::of_output(&value));
        if let Some(identity) = identity {
            known = Some(match known {
                Some(known) => Identity::and(known, identity),
                None => identity,
            });
        } else {
            let more = entra::credentials(&bytes).map_err(|error| cannot_use(path, error, hint))?;
            listed.get_or_insert_default().extend(more);
        }
    }
    Ok((listed, known))
}

/// The JSON in what a tool has printed: `az` puts an error around that of Microsoft Graph.
fn json_in(bytes: &[u8]) -> Option<serde_json::Value> {
    let inside = || {
        let (from, to) =
            (bytes.iter().position(|it| *it == b'{')?, bytes.iter().rposition(|it| *it == b'}')?);
        serde_json::from_slice(bytes.get(from..=to)?).ok()
    };
    serde_json::from_slice(bytes).ok().or_else(inside)
}

/// Reads a token request, and the client assertion in it.
fn read_request(path: &Path) -> Result<(TokenRequest, Option<String>), Failure> {
    let hint = "write `POST https://login.microsoftonline.com/TENANT/oauth2/v2.0/token` and the form into it";
    let bytes = if path.as_os_str() == "-" {
        files::up_to(io::stdin().lock(), MAX_FILE)
            .map_err(|source| Failure::new(&CannotRead { path: path.to_owned(), source }, Some(hint)))?
    } else {
        read_bytes(path, hint)?
    };
    TokenRequest::parse(&String::from_utf8_lossy(&in_utf8(&bytes)))
        .map_err(|error| cannot_use(path, error, hint))
}

fn read_ledger(path: &Path) -> Result<Ledger, Failure> {
    let hint = "name the ledger file of a running Signpost";
    Ledger::parse(&read_file(path, hint)?).map_err(|error| cannot_use(path, error, hint))
}

fn cannot_use(path: &Path, source: impl Error + 'static, hint: &str) -> Failure {
    Failure::new(&CannotUse { path: path.to_owned(), source: source.into() }, Some(hint))
}

#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`", path.display())]
struct CannotUse {
    path: PathBuf,
    source: Box<dyn Error>,
}
