use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

mod delegation;
mod histories;
mod services;

const ISSUER: &str = "https://oidc.example.com/c1";
const OLD: &str = "https://old.example.com/c1";
const AUDIENCE: &str = "api://AzureADTokenExchange";

fn account(name: &str) -> ServiceAccount {
    ServiceAccount::new("team", name).expect("a valid name")
}

fn desired(name: &str) -> DesiredCredential {
    DesiredCredential::of_account(ISSUER, &account(name), AUDIENCE, None).expect("valid")
}

fn credential(name: &str, issuer: &str, subject: &str, audience: &str) -> Credential {
    Credential {
        name: name.to_owned(),
        issuer: issuer.to_owned(),
        subject: Some(subject.to_owned()),
        audiences: vec![audience.to_owned()],
        expression: None,
        created: None,
    }
}

fn none() -> BTreeSet<Removal> {
    BTreeSet::new()
}

#[test]
fn what_is_missing_is_created_and_what_is_there_stays() {
    let (app, web) = (desired("app"), desired("web"));
    let there = credential("made-by-hand", ISSUER, &app.subject, AUDIENCE);
    let plan = plan(&[app, web.clone()], &[there], &none());
    assert_eq!(plan.changes, [Change::Create(web)]);
    assert_eq!(plan.unchanged, ["made-by-hand"], "its name does not matter");
    assert!(plan.others.is_empty() && plan.conflicts.is_empty());
}

#[test]
fn an_audience_is_corrected_in_place() {
    let app = desired("app");
    let there = credential("it", ISSUER, &app.subject, "api://other");
    let plan = plan(std::slice::from_ref(&app), &[there], &none());
    let was = vec!["api://other".to_owned()];
    assert_eq!(plan.changes, [Change::SetAudience { name: "it".to_owned(), was, credential: app }]);
}

#[test]
fn what_nearly_agrees_stays_and_is_shown() {
    let app = desired("app");
    for (issuer, subject, member) in [
        ("https://oidc.example.com/c1/", "system:serviceaccount:team:app", "issuer"),
        (ISSUER, "system:serviceaccount:team:App", "subject"),
        (ISSUER, "system:serviceaccount:team: app", "subject"),
        (ISSUER, "system:serviceaccount:team:\u{430}pp", "subject"),
    ] {
        let there = credential("typo", issuer, subject, AUDIENCE);
        let plan = plan(std::slice::from_ref(&app), &[there], &none());
        assert_eq!(plan.changes, [Change::Create(app.clone())], "{issuer} {subject}");
        assert_eq!(plan.others[0].nearly[0].member, member, "{issuer} {subject}");
    }
    let there = credential("neighbour", ISSUER, "system:serviceaccount:team:app2", AUDIENCE);
    assert!(
        plan(&[app], &[there], &none()).others[0].nearly.is_empty(),
        "another service account is no slip"
    );
}

#[test]
fn a_flexible_credential_is_listed_and_left_alone() {
    let flexible = Credential {
        subject: None,
        expression: Some(serde_json::json!({"value": "claims['sub'] eq 'x'", "languageVersion": 1})),
        ..credential("flexible", ISSUER, "", AUDIENCE)
    };
    let plan = plan(&[desired("app")], &[flexible], &none());
    assert_eq!(plan.others[0].expression.as_deref(), Some("claims['sub'] eq 'x'"));
    assert_eq!(plan.changes.len(), 1);
}

#[test]
fn conflicts_are_told_and_nothing_is_written() {
    let app = desired("app");
    let taken = credential(&app.name.to_uppercase(), OLD, &app.subject, AUDIENCE);
    let told = plan(std::slice::from_ref(&app), &[taken], &none());
    assert!(matches!(&told.conflicts[..], [Conflict::NameTaken { .. }]) && told.changes.is_empty());

    let full: Vec<_> =
        (0..20).map(|it| credential(&format!("it-{it}"), OLD, &format!("subject-{it}"), AUDIENCE)).collect();
    let told = plan(std::slice::from_ref(&app), &full, &none());
    assert_eq!(told.conflicts, [Conflict::TooMany { there: 20, wanted: 21 }]);
    let room = BTreeSet::from([Removal::of(&full[3])]);
    let told = plan(std::slice::from_ref(&app), &full, &room);
    assert!(matches!(&told.changes[..], [Change::Remove(_), Change::Create(_)]), "room is made first");
    assert!(told.conflicts.is_empty());

    let wanted = credential("it", ISSUER, &app.subject, AUDIENCE);
    let removal = Removal::of(&wanted);
    let told =
        plan(std::slice::from_ref(&app), std::slice::from_ref(&wanted), &BTreeSet::from([removal.clone()]));
    assert_eq!(told.conflicts, [Conflict::Desired { removal: removal.clone() }]);
    let other = DesiredCredential { audience: "api://other".to_owned(), ..app.clone() };
    let told = plan(&[app.clone(), other.clone()], &[], &none());
    assert_eq!(told.conflicts, [Conflict::Contradiction { credential: other }]);
    let named = DesiredCredential { name: "mine".to_owned(), ..app.clone() };
    assert_eq!(plan(&[named.clone(), app.clone()], &[], &none()).changes, [Change::Create(named)]);
    let odd = credential("../../x?y=", OLD, "subject", AUDIENCE);
    let told = plan(&[], std::slice::from_ref(&odd), &BTreeSet::from([Removal::of(&odd)]));
    assert_eq!(told.conflicts, [Conflict::OddName { name: odd.name }]);
    let edited = Credential { issuer: OLD.to_owned(), ..wanted };
    let told = plan(&[], &[edited], &BTreeSet::from([removal.clone()]));
    assert_eq!(told.conflicts, [Conflict::Changed { removal }], "somebody has made it another");
}

#[test]
fn names_are_those_that_entra_accepts_and_follow_from_what_they_trust() {
    let long = ServiceAccount::new(&"n".repeat(63), &format!("a.{}", "b".repeat(240))).expect("valid");
    let credential = DesiredCredential::of_account(ISSUER, &long, AUDIENCE, None).expect("valid");
    assert_eq!(credential.name.len(), 120);
    assert_eq!(desired("app").name, desired("app").name);
    assert!(desired("app").name.starts_with("team-app-"), "{}", desired("app").name);
    let elsewhere = DesiredCredential::of_account(OLD, &account("app"), AUDIENCE, None).expect("valid");
    assert_ne!(desired("app").name, elsewhere.name);
    for name in ["ab", "-abc", "a b c", "Zürich", &"x".repeat(121)] {
        let made = DesiredCredential::of_account(ISSUER, &account("app"), AUDIENCE, Some(name));
        assert!(matches!(made, Err(InvalidDesired::Name { .. })), "{name}");
    }
    for issuer in [
        "https://kubernetes.default.svc.cluster.local",
        "https://10.0.0.1",
        "http://oidc.example.com",
        "https://127.0.0.1:8443",
        "https://login.microsoftonline.com/x",
        "x",
    ] {
        let made = DesiredCredential::of_account(issuer, &account("app"), AUDIENCE, None);
        assert!(matches!(made, Err(InvalidDesired::Issuer { .. })), "{issuer}");
    }
}

#[test]
fn a_moved_issuer_gets_its_credentials_before_the_old_ones_go() {
    let present = [
        credential("app", OLD, "system:serviceaccount:team:app", AUDIENCE),
        credential("web", OLD, "system:serviceaccount:team:web", AUDIENCE),
        credential("app-new", ISSUER, "system:serviceaccount:team:app", AUDIENCE),
    ];
    assert!(moved_away(&present, OLD, OLD).0.is_empty(), "nothing is its own counterpart");
    let flexible =
        ["a", "b"].map(|name| Credential { subject: None, ..credential(name, name, "", AUDIENCE) });
    assert_eq!(
        moved_away(&flexible, "a", "b"),
        (BTreeSet::new(), vec!["a".to_owned()]),
        "no subject, no counterpart"
    );
    let (gone, left) = moved_away(&present, OLD, ISSUER);
    assert_eq!(gone.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["app"]);
    assert_eq!(left, ["web"], "it has no counterpart yet");
    let moved: Vec<_> = present[..2]
        .iter()
        .map(|it| DesiredCredential::moved(it, ISSUER).expect("a subject").expect("valid"))
        .collect();
    let plan = plan(&moved, &present, &none());
    assert_eq!(plan.changes, [Change::Create(desired("web"))]);
    assert_eq!(plan.unchanged, ["app-new"]);
}

#[test]
fn a_credential_dangles_only_if_its_service_account_is_of_this_issuer_and_gone() {
    let present = [
        credential("app", ISSUER, "system:serviceaccount:team:app", AUDIENCE),
        credential("gone", ISSUER, "system:serviceaccount:team:gone", AUDIENCE),
        credential("elsewhere", OLD, "system:serviceaccount:team:gone", AUDIENCE),
        credential("pipeline", ISSUER, "repo:team/app:ref:refs/heads/main", AUDIENCE),
    ];
    let elsewhere = dangling(&present, ISSUER, Some("other"), &BTreeSet::new());
    assert!(elsewhere.is_empty(), "other namespaces were not looked at");
    let found = dangling(&present, ISSUER, None, &BTreeSet::from([account("app")]));
    assert_eq!(found.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["gone"]);
}

#[test]
fn a_cluster_and_its_identities_are_set_side_by_side() {
    let used = |name: &str, client_id: Option<&str>| Account {
        account: account(name),
        client_id: client_id.map(str::to_owned),
        pods: 1,
        labelled_pods: 1,
    };
    let accounts = [
        used("app", Some("A")),
        used("web", Some("A")),
        used("job", Some("B")),
        used("bare", None),
        used("api", Some("A")),
    ];
    let every = accounts.iter().map(|it| it.account.clone()).collect();
    let credentials = std::collections::BTreeMap::from([(
        "A".to_owned(),
        vec![
            credential("app", ISSUER, "system:serviceaccount:team:app", AUDIENCE),
            credential("web", &format!("{ISSUER}/"), "system:serviceaccount:team:web", AUDIENCE),
            credential("gone", ISSUER, "system:serviceaccount:team:gone", AUDIENCE),
            credential("pipeline", "https://ci.example.com", "repo:x", AUDIENCE),
        ],
    )]);
    let found = inventory(ISSUER, AUDIENCE, &accounts, None, &every, &credentials).expect("valid");
    let trust: Vec<_> = found
        .accounts
        .iter()
        .map(|it| serde_json::to_value(&it.trust).expect("JSON")["trust"].clone())
        .collect();
    assert_eq!(trust, ["trusted", "nearly", "unknown", "no_client_id", "missing"]);
    assert_eq!(found.dangling["A"], ["gone"]);
    let others: Vec<_> = found.others["A"].iter().map(|it| it.name.as_str()).collect();
    assert_eq!(others, ["web", "pipeline"]);
}

fn stopped(application: &mut Application, now: Timestamp, answer: &ServiceAnswer) -> Option<Stop> {
    let mut now = now;
    for _ in 0..100 {
        match application.next(now) {
            Work::List => application.record(&Work::List, ServiceAnswer::Listed(Vec::new()), now),
            Work::WaitUntil(at) => now = at,
            Work::Stopped(stop) => return Some(stop),
            Work::Done => return None,
            work @ Work::Write(_) => application.record(&work, answer.clone(), now),
        }
    }
    panic!("it neither ends nor stops");
}

#[test]
fn a_refusal_stops_at_once_and_a_busy_service_after_some_attempts() {
    let begin = || Application::new(vec![desired("app")], none(), Pace::EveryFourSeconds);
    let refused = ServiceAnswer::Refused { message: "no".to_owned(), hint: None };
    let stop = stopped(&mut begin(), Timestamp::UNIX_EPOCH, &refused);
    assert_eq!(stop, Some(Stop::Refused { message: "no".to_owned(), hint: None }));
    let busy = ServiceAnswer::Busy { retry_after: None, message: "busy".to_owned() };
    let stop = stopped(&mut begin(), Timestamp::UNIX_EPOCH, &busy);
    assert!(matches!(stop, Some(Stop::NoProgress { .. })));
}

#[test]
fn what_the_service_demands_is_waited_for() {
    let mut application = Application::new(vec![desired("app")], none(), Pace::Sequential);
    let now = Timestamp::UNIX_EPOCH;
    application.record(&Work::List, ServiceAnswer::Listed(Vec::new()), now);
    let work = application.next(now);
    let retry_after = Some(SignedDuration::from_secs(17));
    application.record(&work, ServiceAnswer::Busy { retry_after, message: "busy".to_owned() }, now);
    let until = now.checked_add(SignedDuration::from_secs(17)).expect("in range");
    assert_eq!(application.next(now), Work::WaitUntil(until));
    assert_eq!(application.next(until), Work::List);
}

#[test]
fn a_name_is_looked_at_again_just_before_it_is_written_to() {
    let there = credential("one", OLD, "subject", AUDIENCE);
    let removals = BTreeSet::from([Removal::of(&there)]);
    let mut application = Application::new(Vec::new(), removals, Pace::Sequential);
    let now = Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_hours(9)).expect("in range");
    application.record(&Work::List, ServiceAnswer::Listed(vec![there.clone()]), now);
    assert_eq!(application.next(now), Work::Write(Write::Delete("one".to_owned())));
    let later = now.checked_add(SignedDuration::from_secs(60)).expect("in range");
    assert_eq!(application.next(later), Work::List, "somebody thought about it");
    let replaced = Credential { subject: Some("somebody".to_owned()), ..there };
    application.record(&Work::List, ServiceAnswer::Listed(vec![replaced]), later);
    assert_eq!(application.next(later), Work::Stopped(Stop::Conflicts), "it is another's now");
}

#[test]
fn a_lost_answer_counts_once_the_list_shows_what_was_done() {
    let app = desired("app");
    let mut application = Application::new(vec![app.clone()], none(), Pace::EveryFourSeconds);
    let mut now = Timestamp::UNIX_EPOCH;
    application.record(&Work::List, ServiceAnswer::Listed(Vec::new()), now);
    let work = application.next(now);
    application.record(&work, ServiceAnswer::NoAnswer { reason: "lost".to_owned() }, now);
    while let Work::WaitUntil(at) = application.next(now) {
        now = at;
    }
    application.record(&Work::List, ServiceAnswer::Listed(vec![Credential::from(&app)]), now);
    assert_eq!(application.next(now), Work::Done);
    assert_eq!(application.written().collect::<Vec<_>>(), [&Write::Create(app)]);
}

#[test]
fn a_clock_that_is_set_back_makes_no_wait_longer() {
    let mut application =
        Application::new(vec![desired("app"), desired("web")], none(), Pace::EveryFourSeconds);
    let now = Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_hours(9)).expect("in range");
    application.record(&Work::List, ServiceAnswer::Listed(Vec::new()), now);
    let work = application.next(now);
    application.record(&work, ServiceAnswer::Done, now);
    let before = now.checked_sub(SignedDuration::from_hours(1)).expect("in range");
    let Work::WaitUntil(at) = application.next(before) else { panic!("it waits") };
    assert_eq!(at.duration_since(before), Pace::EveryFourSeconds.between_writes());
}

#[test]
fn a_list_that_lags_behind_undoes_no_write_at_graph_and_is_the_truth_at_azure() {
    for (pace, again) in [(Pace::Sequential, "web"), (Pace::EveryFourSeconds, "app")] {
        let mut application = Application::new(vec![desired("app"), desired("web")], none(), pace);
        let mut now = Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_hours(9)).expect("in range");
        application.record(&Work::List, ServiceAnswer::Listed(Vec::new()), now);
        let first = application.next(now);
        application.record(&first, ServiceAnswer::Done, now);
        application.record(&first, ServiceAnswer::Conflict { message: "somebody writes".to_owned() }, now);
        while let Work::WaitUntil(at) = application.next(now) {
            now = at;
        }
        assert_eq!(application.next(now), Work::List);
        application.record(&Work::List, ServiceAnswer::Listed(Vec::new()), now);
        assert_eq!(application.next(now), Work::Write(Write::Create(desired(again))), "{pace:?}");
    }
}
