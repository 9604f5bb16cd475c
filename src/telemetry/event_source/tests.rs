use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::{
    core::{
        entra::{ExchangeAnswer, answer::tests::refused_by_entra},
        events::{
            aggregator::{SendOutcome, Totals},
            event::{Event, Reason},
        },
        jose::jwk_set::Profile,
        ledger::{
            Ledger, Lineage,
            merge::{SourceAnswer, SourceReport, merge},
        },
        tests::{retention, rsa_key, terms},
        verification::{Party, Verdict, VerificationOutcome},
    },
    telemetry::{event_source::EventQueue, status::StatusStore},
};

/// The events sent from now on, each once, in order.
fn sent_events(queue: &EventQueue) -> Vec<Event> {
    let mut sent = Vec::new();
    while let Some(series) = queue.next().now_or_never() {
        queue.after(&series, SendOutcome::Sent);
        assert_eq!(series.count, 1, "{:?} is recorded more than once", series.event);
        sent.push(series.event);
    }
    sent
}

/// The same, as reason and subject.
fn sent(queue: &EventQueue) -> Vec<(Reason, String)> {
    sent_events(queue).into_iter().map(|event| (event.reason, event.subject)).collect()
}

fn reasons(queue: &EventQueue) -> Vec<Reason> {
    sent_events(queue).into_iter().map(|event| event.reason).collect()
}

fn status_store() -> (StatusStore, EventQueue) {
    let queue = EventQueue::default();
    (StatusStore::with_events(queue.clone()), queue)
}

#[test]
fn only_changes_for_the_worse_and_back_are_told_of_sources_and_targets() {
    let (status_store, queue) = status_store();
    let issuer = terms().issuer;
    let source = |up: bool, public: Option<bool>| {
        status_store.source(&issuer, "kubernetes", |status| {
            (status.up, status.signing_key_public) = (up, public);
            status.answers += 1;
        });
    };
    let target = |up: bool| {
        status_store.target(&issuer, "blob", |status| {
            (status.up, status.error) = (up, (!up).then(|| "access denied".to_owned()));
            status.checks += 1;
        });
    };
    source(true, Some(true));
    target(true);
    assert_eq!(sent(&queue), [], "all is well from the start");
    for _ in 0..3 {
        source(false, Some(true));
        target(false);
    }
    source(true, Some(false));
    target(true);
    source(true, Some(true));
    let (kubernetes, blob) = (|| "kubernetes".to_owned(), || "blob".to_owned());
    assert_eq!(
        sent(&queue),
        [
            (Reason::SourceFailed, kubernetes()),
            (Reason::TargetFailed, blob()),
            (Reason::SourceRecovered, kubernetes()),
            (Reason::SigningKeyNotPublic, kubernetes()),
            (Reason::TargetRecovered, blob()),
            (Reason::SigningKeyPublic, kubernetes()),
        ]
    );
    assert_eq!(queue.totals(), Totals { sent: 6, failed: 0, dropped: 0 });
}

#[test]
fn what_never_worked_is_told_and_a_note_says_why() {
    let (status_store, queue) = status_store();
    status_store.target(&terms().issuer, "blob", |status| {
        status.error = Some("access denied".to_owned());
        status.checks += 1;
    });
    let note = "target `blob` failed, retrying: access denied (issuer `https://issuer.example/c1`)";
    assert_eq!(sent_events(&queue).iter().map(Event::note).collect::<Vec<_>>(), [note]);
}

#[test]
fn an_alarm_is_told_when_it_begins_and_when_it_is_over() {
    let (status_store, queue) = status_store();
    let alarms = |alarms: &[&str]| {
        let alarms = alarms.iter().map(ToString::to_string).collect();
        status_store.issuer(&terms().issuer, |status| status.alarms = alarms);
    };
    alarms(&["clocks disagree"]);
    alarms(&["clocks disagree", "two keys under one kid"]);
    assert_eq!(reasons(&queue), [Reason::AlarmRaised; 2]);
    alarms(&[]);
    assert_eq!(reasons(&queue), [Reason::AlarmResolved; 2]);
}

#[test]
fn what_happened_to_keys_before_the_start_is_not_told_again() {
    let (status_store, queue) = status_store();
    let ledger = |keys: usize, before: &Ledger| {
        let keys = (0..keys).map(rsa_key).collect();
        let report = SourceReport { source: "a".to_owned(), answer: SourceAnswer::Keys(keys) };
        before.observe(&merge(before, &[report]), jiff::Timestamp::UNIX_EPOCH, &retention()).ledger
    };
    let empty = Ledger::new(terms().issuer, Lineage::from_random([0; 8]));
    let one = ledger(1, &empty);
    let show = |ledger: &Ledger| status_store.ledger(Arc::new(ledger.clone()), Profile::Entra);
    show(&one);
    assert_eq!(sent(&queue), []);
    let two = ledger(2, &one);
    show(&two);
    show(&two);
    assert_eq!(sent(&queue), [(Reason::KeyAppeared, rsa_key(1).kid().to_string())]);
}

#[test]
fn a_configuration_or_a_certificate_that_is_refused_is_told_once() {
    let (status_store, queue) = status_store();
    let now = jiff::Timestamp::UNIX_EPOCH;
    status_store.configuration_read(now);
    status_store.tls(|tls| tls.not_after = Some(now));
    assert_eq!(sent(&queue), []);
    for _ in 0..2 {
        status_store.configuration_refused(now, "`listen` is missing");
        status_store.tls(|tls| tls.error = Some("no such file".to_owned()));
    }
    status_store.configuration_read(now);
    status_store.tls(|tls| tls.error = None);
    assert_eq!(
        reasons(&queue),
        [
            Reason::ConfigurationRejected,
            Reason::CertificateRejected,
            Reason::ConfigurationAccepted,
            Reason::CertificateAccepted
        ]
    );
}

#[test]
fn a_ledger_that_cannot_be_stored_is_told_once_with_the_error() {
    let (status_store, queue) = status_store();
    let error = |error: Option<&str>| {
        let error = error.map(str::to_owned);
        status_store.issuer(&terms().issuer, |status| status.ledger.error = error);
    };
    error(None);
    error(Some("access denied"));
    error(Some("no answer"));
    error(None);
    assert_eq!(reasons(&queue), [Reason::LedgerFailed, Reason::LedgerRecovered]);
}

#[test]
fn tokens_that_would_not_be_accepted_are_told_once_and_so_is_their_recovery() {
    let (status_store, queue) = status_store();
    let issuer = terms().issuer;
    let judged = |outcome| {
        let judgement = Verdict { party: Party::Entra, outcome, likely_code: None, findings: Vec::new() };
        status_store.verified(&issuer, jiff::Timestamp::UNIX_EPOCH, judgement);
    };
    judged(VerificationOutcome::Accepted);
    status_store.unverified(&issuer, "away");
    judged(VerificationOutcome::Accepted);
    assert_eq!(sent(&queue), [], "all is well");
    for _ in 0..3 {
        judged(VerificationOutcome::Refused);
        status_store.unverified(&issuer, "away");
    }
    judged(VerificationOutcome::Accepted);
    let reasons = [Reason::VerificationFailed, Reason::VerificationRecovered];
    assert_eq!(sent(&queue), reasons.map(|reason| (reason, String::new())));
    assert_eq!(reasons.map(Reason::type_name), ["Warning", "Normal"]);
    status_store.reset(&issuer);
    judged(VerificationOutcome::Accepted);
    assert_eq!(sent(&queue), [], "another configuration begins anew");
}

#[test]
fn a_refusal_of_entra_is_told_once_and_so_is_its_end() {
    let (status_store, queue) = status_store();
    let issuer = terms().issuer;
    let answered = |answer| status_store.exchanged(&issuer, jiff::Timestamp::UNIX_EPOCH, answer);
    answered(ExchangeAnswer::Accepted);
    status_store.not_exchanged(&issuer, "busy");
    assert_eq!(sent(&queue), [], "no answer is no refusal");
    for code in [700_213, 700_213, 7_000_272] {
        answered(refused_by_entra(code));
        status_store.not_exchanged(&issuer, "busy");
    }
    answered(ExchangeAnswer::Accepted);
    let told = [
        (Reason::ExchangeRefused, "AADSTS700213"),
        (Reason::ExchangeAccepted, ""),
        // After the first of each reason.
        (Reason::ExchangeRefused, "AADSTS7000272"),
    ];
    assert_eq!(sent(&queue), told.map(|(reason, subject)| (reason, subject.to_owned())));
}
