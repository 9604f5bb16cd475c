//! `signpost verify` and the independent twin of Entra reach the same verdicts.
//!
//! Both read the same documents, in situations with one or more faults. Where the twin makes a choice of its
//! own, because no document defines the behaviour (`docs/entra.md`), the product may be stricter. Whatever it
//! accepts, the twin accepts too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use http::StatusCode;
use serde_json::{Value, json};
use signpost::{
    clock,
    core::{
        entra::TokenRequest,
        jose::token::UnverifiedToken,
        verification::{
            Cloud, Credential, Evidence, Expectation, Finding, Level, Party, Question, VerificationOutcome,
            VerificationReport, judge,
        },
    },
    reconcile::document_read,
    relying_party::{Reach, RelyingParty},
};

use tempfile::TempDir;

use crate::support::{
    child::with_environment,
    components::variable,
    dice::Dice,
    entra_twin::{Answer, Directory, EntraTwin, TENANT, exchange_form, family},
    in_process::InProcess,
    nginx::{Location, Nginx},
    signpost::Signpost,
};

mod exchange;
mod faults;
mod situation;
mod twin;

use faults::FAULTS;
use situation::{HOSTS, Keys, Situation, Trust};

const WITHIN: Duration = Duration::from_mins(1);
const PAIRS: usize = 350;
const TRIPLES: usize = 175;
/// Number of situations that are also checked by the program; a process for each would be too slow.
const PROGRAMS: usize = 40;
/// Faults that time alone worsens or repairs.
const OF_THE_MOMENT: [&str; 3] = ["not yet valid", "valid in a moment", "soon to expire"];

/// A fault, by its index in the table, and its variant.
type Choice = (usize, usize);

/// A situation, and both verdicts.
struct Compared {
    what: String,
    choices: Vec<Choice>,
    twin: Answer,
    /// The twin's answer when the credential is made to match the token.
    beyond: Answer,
    report: VerificationReport,
    /// The same, with the only credential given by flags.
    by_flags: Option<VerificationReport>,
    /// The request, with the token.
    request: String,
    token: String,
    credentials: Vec<Trust>,
}

#[test]
fn the_judges_agree_with_the_twin_of_entra() {
    let folder = TempDir::new().expect("a temporary folder");
    let ca_file = folder.path().join("ca.crt");
    let environment = [("SSL_CERT_FILE", ca_file.to_str().expect("text"))];
    with_environment("entra_agreement::the_judges_agree_with_the_twin_of_entra", &environment, || {
        let choices = situations();
        assert!(choices.len() >= 750, "{} situations", choices.len());
        let (compared, _server, nginx) = compare(&choices);
        let alone: BTreeMap<Choice, &Compared> =
            compared.iter().filter(|it| it.choices.len() == 1).map(|it| (it.choices[0], it)).collect();
        let mut disagreements: Vec<_> = compared.iter().flat_map(|it| it.disagreements(&alone)).collect();
        let every = compared.len() / PROGRAMS;
        let sample = compared.iter().step_by(every).filter(|it| !it.is_of_the_moment()).collect::<Vec<_>>();
        disagreements.extend(sample.iter().filter_map(|it| it.differs_from_the_program(&nginx)));
        assert!(
            disagreements.is_empty(),
            "{} of {} situations:\n{}",
            disagreements.len(),
            compared.len(),
            disagreements.join("\n")
        );
    });
}

/// No fault, each fault alone in each variant, and pairs and triples of different faults.
fn situations() -> Vec<Vec<Choice>> {
    let alone =
        FAULTS.iter().enumerate().flat_map(|(fault, it)| (0..it.variants).map(move |n| vec![(fault, n)]));
    let mut all: Vec<_> = [Vec::new()].into_iter().chain(alone).collect();
    let mut dice = Dice::new(20_261_121);
    for size in std::iter::repeat_n(2, PAIRS).chain(std::iter::repeat_n(3, TRIPLES)) {
        let mut faults = BTreeSet::new();
        while faults.len() < size {
            faults.insert(dice.below(FAULTS.len()));
        }
        all.push(faults.into_iter().map(|fault| (fault, dice.below(FAULTS[fault].variants))).collect());
    }
    all
}

/// Compares both verdicts in every situation.
fn compare(choices: &[Vec<Choice>]) -> (Vec<Compared>, InProcess, Nginx) {
    let (keys, now) = (Keys::generate(), clock::now());
    let situations: Vec<_> = choices
        .iter()
        .enumerate()
        .map(|(number, choices)| {
            let mut situation = Situation::right(&keys, &format!("s{number}"), now.as_second());
            situation.client = format!("{number:08x}-1111-4111-8111-111111111111");
            for &(fault, variant) in choices {
                (FAULTS[fault].apply)(&mut situation, variant);
            }
            situation
        })
        .collect();

    let mut documents = BTreeMap::new();
    for situation in &situations {
        situation.publish(&mut documents);
    }
    situation::publish_shared(&keys, &mut documents);
    let documents = Arc::new(documents);
    let server = InProcess::serve(Router::new().fallback(move |request: Request| {
        let documents = Arc::clone(&documents);
        async move {
            let document = documents.get(request.uri().path());
            document.map_or_else(
                || axum::response::IntoResponse::into_response(StatusCode::NOT_FOUND),
                situation::Document::response,
            )
        }
    }));
    let nginx = Nginx::start_for(&HOSTS, &[("/", Location::Proxy(format!("{}/", server.url())))]);
    let ca_file = variable("SSL_CERT_FILE").expect("it is set");
    fs::copy(nginx.ca_file(), ca_file).expect("the folder can be written");

    let beyond = |number: usize| format!("beyond-{number}");
    let applications = situations.iter().enumerate().flat_map(|(number, situation)| {
        let asked = situation.credentials.iter().map(Trust::json).collect();
        let matching = json!([situation.credential_of_the_token().json()]);
        [(situation.client.clone(), Value::Array(asked)), (beyond(number), matching)]
    });
    let twin = EntraTwin::start(Directory {
        now: now.as_second(),
        jwks_seconds: 0,
        internet: HOSTS.iter().map(|host| ((*host).to_owned(), server.url())).collect(),
        applications: applications.collect(),
    });
    let address = nginx.address().parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stranger = runtime.block_on(RelyingParty::new(Reach::Anywhere, Some(address), None));
    let stranger = stranger.expect("the CA is there");
    let compared = situations.iter().zip(choices).enumerate().map(|(number, (situation, choices))| {
        let token = situation.token();
        let request = request(situation, &token);
        let (report, by_flags) = runtime.block_on(judged(situation, &request, &stranger));
        Compared {
            what: what(choices),
            choices: choices.clone(),
            twin: twin.exchange(&situation.client, &token),
            beyond: twin.exchange(&beyond(number), &token),
            report,
            by_flags,
            credentials: situation.credentials.clone(),
            request,
            token,
        }
    });
    let compared = compared.collect();
    (compared, server, nginx)
}

fn what(choices: &[Choice]) -> String {
    let name = |&(fault, variant): &Choice| format!("{} ({variant})", FAULTS[fault].name);
    choices.iter().map(name).collect::<Vec<_>>().join(" + ")
}

/// The request that the twin is asked, as `--request` reads it.
fn request(situation: &Situation, token: &str) -> String {
    let form = exchange_form(&situation.client, token);
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    format!("POST https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token\n{form}\n")
}

async fn judged(
    situation: &Situation<'_>,
    request: &str,
    stranger: &RelyingParty,
) -> (VerificationReport, Option<VerificationReport>) {
    let expected = Expectation::default();
    // The twin's time, however long the previous situations have taken.
    let now = jiff::Timestamp::from_second(situation.now).expect("a time of this century");
    let mut evidence = Evidence::none(now);
    let (request, token) = TokenRequest::parse(request).expect("a request");
    evidence.token = token.map(|token| UnverifiedToken::parse(&token));
    evidence.request = Some(request);
    evidence.credentials = Some(situation.credentials.iter().map(Trust::credential).collect());
    if let Some(issuer) = document_read::issuer(&evidence, &expected) {
        document_read::read(&mut evidence, &issuer, stranger).await;
    }
    let question = |expected| Question { party: Party::Entra, cloud: Cloud::Public, expected };
    let report = judge(&evidence, &question(expected));
    // Without these, an assertion of the application itself is like any other.
    evidence.credentials = None;
    evidence.request = None;
    let by_flags = match &situation.credentials[..] {
        [only] if only.expression.is_none() && !situation.is_of_the_application() => {
            let Trust { issuer, subject, audience, expression: _ } = only.clone();
            let (issuer, subject, audience) = (Some(issuer), Some(subject), Some(audience));
            Some(judge(&evidence, &question(Expectation { issuer, subject, audience })))
        }
        _ => None,
    };
    (report, by_flags)
}

impl Trust {
    fn json(&self) -> Value {
        match &self.expression {
            Some(expression) => {
                json!({"issuer": self.issuer, "expression": expression, "audience": self.audience})
            }
            None => json!({"issuer": self.issuer, "subject": self.subject, "audience": self.audience}),
        }
    }

    fn credential(&self) -> Credential {
        Credential {
            name: "credential".to_owned(),
            issuer: self.issuer.clone(),
            subject: self.expression.is_none().then(|| self.subject.clone()),
            audiences: vec![self.audience.clone()],
            expression: self.printed_expression(),
            created: None,
        }
    }

    /// The expression, as Microsoft Graph prints it.
    fn printed_expression(&self) -> Option<Value> {
        let expression = self.expression.as_ref()?;
        Some(json!({"value": expression, "languageVersion": 1}))
    }
}

fn families(codes: &[u32]) -> impl Iterator<Item = u64> {
    codes.iter().map(|&code| family(code.into()))
}

/// The findings that lead to an answer of Entra, without our own rules.
fn refusals(report: &VerificationReport) -> impl Iterator<Item = &Finding> {
    report.findings.iter().filter(|it| it.level == Level::Error && !it.predicted_codes.is_empty())
}

impl Compared {
    /// The differences between the product and the twin; empty means agreement.
    fn disagreements(&self, alone: &BTreeMap<Choice, &Compared>) -> Vec<String> {
        let twin = self.twin.code.map(family);
        let is_decided = self.twin.undocumented.is_empty();
        let mut found = Vec::new();
        if self.twin.rests_on.is_empty() {
            found.push("the twin's answer rests on nothing".to_owned());
        }
        if twin.is_some() && self.report.outcome == VerificationOutcome::Accepted {
            found.push("false green".to_owned());
        }
        match twin {
            Some(code) if is_decided => {
                for report in [Some(&self.report), self.by_flags.as_ref()].into_iter().flatten() {
                    let first = report.likely_first().and_then(|it| families(it.predicted_codes).next());
                    if self.choices.len() == 1 && first != Some(code) {
                        found.push(format!("likely first is {first:?}"));
                    }
                }
                if !refusals(&self.report).any(|it| families(it.predicted_codes).any(|it| it == code)) {
                    found.push("not predicted".to_owned());
                }
            }
            None if is_decided && refusals(&self.report).next().is_some() => {
                found.push("false red".to_owned());
            }
            _ => {}
        }
        if is_decided {
            let explained = self.explained(alone);
            for finding in refusals(&self.report) {
                if !families(finding.predicted_codes).any(|code| explained.contains(&code)) {
                    found.push(format!("{} is predicted without a reason", finding.id));
                }
            }
        }
        let told: Vec<_> = self.report.findings.iter().map(|it| (it.id, it.predicted_codes)).collect();
        let say = |it| format!("{}: {it}: {:?}, judges {told:?}", self.what, self.twin);
        found.into_iter().map(say).collect()
    }

    /// The twin's codes for this situation, for each of its faults alone, and with a matching credential.
    fn explained(&self, alone: &BTreeMap<Choice, &Compared>) -> BTreeSet<u64> {
        let faults: Vec<_> = self.choices.iter().map(|choice| alone[choice]).collect();
        let besides = self.choices.iter().flat_map(|(fault, _)| FAULTS[*fault].besides).copied();
        let answers = faults.iter().copied().chain([self]).flat_map(|it| [it.twin.code, it.beyond.code]);
        // An open question may have the same verdict here as alone.
        let open = faults.iter().filter(|it| !it.twin.undocumented.is_empty());
        let open = open.flat_map(|it| refusals(&it.report)).flat_map(|it| families(it.predicted_codes));
        answers.flatten().map(family).chain(besides).chain(open).collect()
    }

    /// Whether the verdict changes within a minute: the program uses the machine's clock.
    fn is_of_the_moment(&self) -> bool {
        self.choices.iter().any(|(fault, _)| OF_THE_MOMENT.contains(&FAULTS[*fault].name))
    }

    /// The difference between the program's verdict and the function's.
    fn differs_from_the_program(&self, nginx: &Nginx) -> Option<String> {
        let folder = TempDir::new().expect("a temporary folder");
        let file = |name: &str, text: String| {
            let file = folder.path().join(name);
            fs::write(&file, text).expect("the folder can be written");
            file.to_str().expect("text").to_owned()
        };
        let request = file("request", self.request.clone());
        let credentials = self.credentials.iter().map(|it| {
            let subject = it.expression.is_none().then_some(&it.subject);
            json!({
                "name": "credential", "issuer": it.issuer, "subject": subject, "audiences": [it.audience],
                "claimsMatchingExpression": it.printed_expression(),
            })
        });
        let credentials = file("credentials", Value::Array(credentials.collect()).to_string());
        let address = nginx.address();
        let mut arguments = vec![
            "verify",
            "--for",
            "entra",
            "--output",
            "json",
            "--allow-private",
            "--connect-to",
            &address,
            "--request",
            &request,
            "--credentials",
            &credentials,
        ];
        // As a kubelet writes it; a line break at its end would not be part of it.
        let token = file("token", self.token.clone());
        if !self.token.ends_with('\n') {
            arguments.extend(["--token", &token]);
        }
        let told = Signpost::new(arguments).env("SSL_CERT_FILE", nginx.ca_file()).finish(WITHIN);
        let report: Value = serde_json::from_str(&told.stdout).expect("it prints JSON");
        let ids = |findings: &Value| -> BTreeSet<String> {
            let findings = findings.as_array().expect("a list").iter();
            findings.map(|it| it["id"].as_str().expect("text").to_owned()).collect()
        };
        let said = ids(&report["reports"][0]["findings"]);
        let here: BTreeSet<_> = self.report.findings.iter().map(|it| it.id.to_owned()).collect();
        (said != here).then(|| format!("{}: the program says {said:?}, the judges {here:?}", self.what))
    }
}
