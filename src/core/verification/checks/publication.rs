//! Rules of how the two documents are served.

use super::{
    Basis, Check, CheckResult, CheckStage, Context, EVERYBODY, Error, Note, OUTSIDE, REACH, holds, quoted,
    violated,
};
use crate::core::verification::{DocumentEvidence, HttpResponse, Party, Unanswered};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: REACH,
        rule: "both documents are reachable: a public address answers in time and within the size limit",
        level: Error,
        parties: EVERYBODY,
        codes: &[501_661, 90_061, 50_166],
        basis: Basis::observed("azure-workload-identity #605, #1130"),
        step: CheckStage::Metadata,
        judge: there_is_an_answer,
    },
    Check {
        id: "PUB-PRIVATE",
        rule: "they are read at public addresses; what is read with `--allow-private` may not be reachable from the internet",
        level: Note,
        parties: OUTSIDE,
        codes: &[],
        basis: Basis::observed("Azure/login #283"),
        step: CheckStage::Metadata,
        judge: addresses_are_public,
    },
    Check {
        id: "PUB-CA",
        rule: "no private CA has to be trusted; relying parties may refuse what is read with `--ca-file`",
        level: Note,
        parties: OUTSIDE,
        codes: &[],
        basis: Basis::inferred("the web's own rule"),
        step: CheckStage::Metadata,
        judge: no_authority_is_added,
    },
    Check {
        id: "PUB-TLS",
        rule: "the certificate is for this host, valid, and issued by a public CA",
        level: Error,
        parties: EVERYBODY,
        codes: &[501_661, 90_061],
        basis: Basis::inferred("not documented; the web's own rule"),
        step: CheckStage::Metadata,
        judge: tls_is_trusted,
    },
    Check {
        id: "PUB-FIREWALL",
        rule: "no firewall of a storage account blocks them",
        level: Error,
        parties: EVERYBODY,
        codes: &[50_166, 501_661, 90_061],
        basis: Basis::observed("azure-workload-identity #1130"),
        step: CheckStage::Metadata,
        judge: no_firewall_refuses,
    },
    Check {
        id: "PUB-ANON",
        rule: "they are read without a login",
        level: Error,
        parties: EVERYBODY,
        codes: &[50_166, 90_061, 501_661],
        basis: Basis::inferred("azure-workload-identity, its script for kind"),
        step: CheckStage::Metadata,
        judge: nobody_has_to_log_in,
    },
    Check {
        id: "PUB-PATH",
        rule: "they are where OpenID Connect Discovery says: the issuer, less a final `/`, and `/.well-known/openid-configuration`",
        level: Error,
        parties: EVERYBODY,
        codes: &[90_061, 501_661, 50_166],
        basis: Basis::observed("a blog on self-hosted issuers"),
        step: CheckStage::Metadata,
        judge: they_are_there,
    },
    Check {
        id: "PUB-STATUS",
        rule: "the server does not fail",
        level: Error,
        parties: EVERYBODY,
        codes: &[90_061, 501_661, 50_166],
        basis: Basis::observed("Azure/AKS #4029"),
        step: CheckStage::Metadata,
        judge: the_server_is_well,
    },
];

/// The first violation of a rule by one of the documents.
fn either<'a>(
    case: &Context<'a>,
    rule: impl Fn(&'static str, &'a DocumentEvidence) -> Option<CheckResult>,
) -> CheckResult {
    case.documents().find_map(|(what, document)| rule(what, document)).unwrap_or(CheckResult::NotApplicable)
}

/// As [`either`], for responses only.
pub(super) fn answers<'a>(
    case: &Context<'a>,
    rule: impl Fn(&'static str, &'a HttpResponse) -> Option<CheckResult>,
) -> CheckResult {
    either(case, |what, document| document.answer().and_then(|answer| rule(what, answer)))
}

fn there_is_an_answer(case: &Context) -> CheckResult {
    let broken = either(case, |what, document| {
        let DocumentEvidence::NoAnswer(none) = document else { return None };
        let (seen, expected, fix) = match &none.why {
            Unanswered::Tls { .. } => return None,
            Unanswered::NoAddress { host } => (
                format!("the name `{host}` has no address"),
                "a public address".to_owned(),
                "correct the issuer, or make the record in the public DNS",
            ),
            Unanswered::Private { addresses } => (
                format!("its addresses are not public addresses: {}", quoted(addresses)),
                "a public address".to_owned(),
                "publish it at a public address; for a test cluster, pass `--allow-private` to read it anyway",
            ),
            Unanswered::NoConnection { reason } => (
                format!("no connection: {reason}"),
                "an answer".to_owned(),
                "open the firewall; try `curl` on the URL from outside the cluster, or pass files with `--discovery` and `--jwks`",
            ),
            Unanswered::TimedOut { after } => (
                format!("no answer within {} s", after.as_secs()),
                "an answer in time".to_owned(),
                "open the firewall, or find out why the server is slow",
            ),
            Unanswered::Interrupted { reason } => (
                format!("the response was cut off: {reason}"),
                "a complete response".to_owned(),
                "find out why the server closes the connection",
            ),
            Unanswered::TooLarge { limit } => (
                format!("the response is larger than {limit} bytes"),
                format!("at most {limit} bytes"),
                "publish the document itself, with `signpost sync`",
            ),
            Unanswered::Encoded { coding } => (
                format!("the answer is encoded as `{coding}`, which was not requested"),
                "the document as it is".to_owned(),
                "serve it without `Content-Encoding`",
            ),
            Unanswered::Credentials => (
                "the URL has a user name or password, which no relying party sends".to_owned(),
                "a URL without".to_owned(),
                "remove them from `jwks_uri`, and allow anonymous reads of the JWKS",
            ),
            Unanswered::Redirected { to, reason } => (
                format!("it redirects to `{to}`: {reason}"),
                "the document itself".to_owned(),
                "serve it without a redirect",
            ),
        };
        let codes: &[u32] = match none.why {
            Unanswered::Private { .. } => &[501_661, 90_061, 50_166],
            _ => &[50_166, 90_061, 501_661],
        };
        Some(violated(format!("{what} at {}: {seen}", none.url), expected, fix).with_codes(codes))
    });
    match broken {
        CheckResult::NotApplicable => either(case, |what, document| match document {
            DocumentEvidence::File { path, .. } => Some(holds(format!("{what} from `{path}`"))),
            DocumentEvidence::Answer(answer) if answer.status == 200 => {
                Some(holds(format!("{what} at {}", answer.url)))
            }
            _ => None,
        }),
        broken => broken,
    }
}

fn addresses_are_public(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        (!answer.private.is_empty()).then(|| {
            violated(
                format!("{what} was read at {}", quoted(&answer.private)),
                "a public address",
                "make sure that the same documents are reachable at a public address",
            )
        })
    })
}

fn no_authority_is_added(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        let path = answer.ca_file.as_ref().filter(|_| answer.url.starts_with("https:"))?;
        Some(violated(
            format!("{what} was read trusting the CAs of `{path}`"),
            "a certificate issued by a public CA",
            "make sure that relying parties trust the certificate: verify again without `--ca-file`",
        ))
    })
}

fn tls_is_trusted(case: &Context) -> CheckResult {
    either(case, |what, document| match document {
        DocumentEvidence::NoAnswer(none) => match &none.why {
            Unanswered::Tls { reason, thumbprint } => {
                let seen = format!("{what} at {}: {reason}", none.url);
                let fix =
                    "serve the full chain of a public CA, for this host; for a test cluster pass `--ca-file`";
                let verdict = violated(seen, "a certificate issued by a public CA", fix);
                Some(match thumbprint {
                    Some(thumbprint) if case.question.party == Party::Aws => {
                        verdict.unless(format!("IAM has thumbprint `{thumbprint}`"))
                    }
                    _ => verdict,
                })
            }
            _ => None,
        },
        _ => None,
    })
}

/// Whether an error response of a cloud store has this code in its body.
fn says(answer: &HttpResponse, code: &str) -> bool {
    // Codes are at the beginning; the rest is not searched.
    let beginning = &answer.bytes[..answer.bytes.len().min(4096)];
    answer.status != 200 && String::from_utf8_lossy(beginning).contains(code)
}

fn is_firewall(answer: &HttpResponse) -> bool {
    says(answer, "AuthorizationFailure")
}

fn is_private(answer: &HttpResponse) -> bool {
    let refusals = ["PublicAccessNotPermitted", "AccessDenied", "NoAuthenticationInformation"];
    let hidden = ["ResourceNotFound", "AuthenticationRequired"];
    !is_firewall(answer)
        && (matches!(answer.status, 401 | 403)
            || refusals.iter().chain(&hidden).any(|code| says(answer, code)))
}

fn no_firewall_refuses(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        is_firewall(answer).then(|| {
            violated(
                format!("{what} at {}: status {} `AuthorizationFailure`", answer.url, answer.status),
                "200",
                "allow all networks on a storage account that holds nothing else, or serve through a CDN; a private container answers so too",
            )
        })
    })
}

fn nobody_has_to_log_in(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        if !is_private(answer) {
            return None;
        }
        let (said, fix) = if says(answer, "PublicAccessNotPermitted") {
            (
                ", the storage account forbids anonymous reads",
                "publish into its static website, `$web`; or allow blob public access on an account that holds nothing else",
            )
        } else if says(answer, "AccessDenied") {
            (
                ", the bucket forbids anonymous reads",
                "allow anonymous reads of these two objects: all objects only where the bucket holds nothing else",
            )
        } else if says(answer, "ResourceNotFound") {
            (
                ", as Azure answers for a private container",
                "allow anonymous reads of the blobs of a container that holds nothing else, or publish into `$web`",
            )
        } else {
            ("", "allow anonymous reads, or use a static website")
        };
        let seen = format!("{what} at {}: status {}{said}", answer.url, answer.status);
        Some(violated(seen, "200 without a login", fix))
    })
}

fn they_are_there(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        let absent = (300..500).contains(&answer.status) && answer.status != 429;
        (absent && !is_private(answer) && !is_firewall(answer)).then(|| {
            violated(
                format!("{what} at {}: status {}", answer.url, answer.status),
                "200",
                if what == "JWKS" {
                    "publish it there with `signpost sync`, or correct `jwks_uri`"
                } else {
                    "publish it there with `signpost sync`; the name is `openid-configuration`, below `.well-known`"
                },
            )
        })
    })
}

fn the_server_is_well(case: &Context) -> CheckResult {
    answers(case, |what, answer| {
        (answer.status == 429 || answer.status >= 500 || (201..300).contains(&answer.status)).then(|| {
            violated(
                format!("{what} at {}: status {}", answer.url, answer.status),
                "200",
                "fix the server errors; intermittent errors make Entra fail intermittently",
            )
        })
    })
}
