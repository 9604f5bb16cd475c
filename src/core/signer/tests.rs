use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::*;
use crate::core::tests::{at, kid, rsa_key};

mod history;

const MARGIN: Duration = Duration::from_secs(10);
const LIFETIME: Duration = Duration::from_mins(10);
const EPOCH: Timestamp = Timestamp::UNIX_EPOCH;

fn empty() -> Journal {
    let issuer = Issuer::parse("https://issuer.example").expect("an issuer");
    Journal::new(NodeName::parse("node-1").expect("a name"), issuer, at(0))
}

/// The order that is given as the `index`th.
fn order(index: usize) -> DesiredState {
    ordered(index, i64::try_from(index).expect("small"))
}

fn ordered(index: usize, second: i64) -> DesiredState {
    DesiredState { sign: Some(kid(index)), at: at(second), ..DesiredState::default() }
}

fn revoke(index: usize) -> DesiredState {
    DesiredState { revoked: BTreeSet::from([kid(index)]), ..DesiredState::default() }
}

/// Does every step that is due; new keys are numbered from `made` on.
fn settle(
    mut journal: Journal,
    orders: &DesiredState,
    now: Timestamp,
    made: &mut usize,
) -> (Journal, Vec<SignerStep>) {
    let mut steps = Vec::new();
    while let Some(step) = journal.next_step(orders, now, MARGIN) {
        journal = journal.after(&carried_out(&step, made), now).expect("in order");
        steps.push(step);
        assert!(steps.len() < 100, "it never ends: {steps:?}");
    }
    (journal, steps)
}

fn carried_out(step: &SignerStep, made: &mut usize) -> Done {
    match step.clone() {
        SignerStep::Generate => {
            *made += 1;
            Done::Generated(rsa_key(*made - 1))
        }
        step => Done::Step(step),
    }
}

fn claims(json: &str) -> Result<Claims, UnreadableClaims> {
    Claims::read(&Base64UrlUnpadded::encode_string(json.as_bytes()))
}

fn permit(
    journal: &Journal,
    orders: &DesiredState,
    aud: &str,
    exp: i64,
) -> Result<SigningDecision, SigningRefusal> {
    let claims = claims(&format!(r#"{{"aud":{aud},"exp":{exp},"sub":"x"}}"#)).expect("readable");
    let inside = BTreeSet::from(["api".to_owned(), "other-api".to_owned()]);
    journal.decide(orders, &claims, &inside, at(1000), LIFETIME)
}

#[test]
fn a_first_start_makes_two_keys_and_signs_with_the_older_for_the_api_server_alone() {
    let (journal, steps) = settle(empty(), &DesiredState::default(), at(5), &mut 0);
    let begin = SignerStep::Begin { kid: kid(0), ordered: None };
    assert_eq!(steps, [SignerStep::Generate, begin, SignerStep::Generate]);
    assert_eq!(journal.signing(), Some(&kid(0)));
    assert_eq!(
        permit(&journal, &DesiredState::default(), r#"["else"]"#, 1500),
        Err(SigningRefusal::NotReady)
    );
    assert!(permit(&journal, &DesiredState::default(), r#"["api"]"#, 1500).is_ok());
}

#[test]
fn an_order_for_the_key_that_signs_lets_it_sign_for_everybody() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &DesiredState::default(), at(5), made);
    let (journal, steps) = settle(journal, &order(0), at(6), made);
    assert_eq!(steps, [SignerStep::Allow { kid: kid(0), ordered: EPOCH }]);
    let permit = permit(&journal, &order(0), r#""else""#, 1500);
    assert_eq!(permit, Ok(SigningDecision { kid: kid(0), exp: at(1500), external: true }));
}

#[test]
fn a_rotation_begins_with_the_new_key_before_it_stops_the_old_one_and_makes_a_spare() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &order(0), at(5), made);
    let (journal, steps) = settle(journal, &order(1), at(6), made);
    let begin = SignerStep::Begin { kid: kid(1), ordered: Some(at(1)) };
    assert_eq!(steps, [begin, SignerStep::Stop { kid: kid(0) }, SignerStep::Generate]);
    // The publisher changed its decision.
    let (journal, steps) = settle(journal, &ordered(0, 2), at(7), made);
    assert_eq!(
        steps,
        [SignerStep::Begin { kid: kid(0), ordered: Some(at(2)) }, SignerStep::Stop { kid: kid(1) }]
    );
    assert_eq!(journal.signing(), Some(&kid(0)));
}

#[test]
fn what_was_ordered_goes_on_without_orders() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &order(0), at(5), made);
    let (after, steps) = settle(journal.clone(), &DesiredState::default(), at(6), made);
    assert_eq!((after, steps), (journal, vec![]));
}

#[test]
fn a_revoked_key_stops_although_no_other_is_ready() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &order(0), at(5), made);
    let revoked = revoke(0);
    let claims = permit(&journal, &revoked, r#""api""#, 1500);
    assert_eq!(claims, Err(SigningRefusal::NoKey), "not for a moment");
    let (journal, steps) = settle(journal, &revoked, at(6), made);
    let (begin, stop) = (SignerStep::Begin { kid: kid(1), ordered: None }, SignerStep::Stop { kid: kid(0) });
    assert_eq!(steps, [begin, stop, SignerStep::Destroy { kid: kid(0) }, SignerStep::Generate]);
    assert_eq!(permit(&journal, &revoked, r#""else""#, 1500), Err(SigningRefusal::NotReady));

    let both = DesiredState { revoked: BTreeSet::from([kid(0), kid(1), kid(2)]), ..DesiredState::default() };
    assert_eq!(journal.next_step(&both, at(7), MARGIN), Some(SignerStep::Stop { kid: kid(1) }));
    let (journal, _) = settle(journal, &both, at(7), made);
    assert_eq!(journal.signing(), Some(&kid(3)));
}

#[test]
fn an_order_that_cannot_be_obeyed_is_refused_with_its_reason() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &order(0), at(5), made);
    let (mut journal, _) = settle(journal, &order(1), at(6), made);
    let refused = |journal: &Journal, orders: &DesiredState| {
        let step = SignerStep::Refuse { ordered: orders.at };
        assert_eq!(journal.next_step(orders, at(7), MARGIN), Some(step), "as if there were no order");
        orders.key(journal, at(7), MARGIN).expect_err("refused").to_string()
    };
    assert_eq!(refused(&journal, &ordered(9, 2)), format!("key `{}` does not belong to this node", kid(9)));
    journal.keys.get_mut(&kid(0)).expect("held").excluded_from_discovery = true;
    let withdrawn = format!("key `{}` is excluded from discovery", kid(0));
    assert_eq!(refused(&journal, &ordered(0, 3)), withdrawn);
    journal.keys.get_mut(&kid(0)).expect("held").lost = true;
    assert_eq!(refused(&journal, &ordered(0, 4)), format!("the private key of `{}` is missing", kid(0)));
    let orders = DesiredState { at: at(5), sign: Some(kid(2)), ..revoke(2) };
    assert_eq!(orders.key(&journal, at(7), MARGIN), Err(RefusedOrder::Revoked { kid: kid(2) }));
}

/// Once a publisher knows that an order was processed, it removes the key when its last token has expired.
#[test]
fn a_refusal_is_told_and_is_for_good() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &order(0), at(5), made);
    let lost = journal.with_private_keys([rsa_key(0)], at(6), LIFETIME).0;
    let (told, steps) = settle(lost, &order(1), at(7), &mut 2);
    assert_eq!(
        (steps, told.observed_order()),
        (vec![SignerStep::Refuse { ordered: at(1) }, SignerStep::Generate], Some(at(1)))
    );
    assert_eq!(
        told.announcement().version(),
        StatementVersion { at: at(7) + Duration::from_millis(1), observed_order: Some(at(1)) }
    );
    let found = told.with_private_keys([0, 1, 2].map(rsa_key), at(8), LIFETIME).0;
    let settled = RefusedOrder::Settled { kid: kid(1), at: at(1) };
    assert_eq!(order(1).key(&found, at(8), MARGIN), Err(settled));
    assert_eq!(found.next_step(&order(1), at(8), MARGIN), None);
    assert!(ordered(1, 2).key(&found, at(8), MARGIN).is_ok(), "asked anew");
}

#[test]
fn every_announcement_is_later_than_the_one_before_by_whatever_clock() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &DesiredState::default(), at(100), made);
    let first = journal.announcement().version().at;
    let (journal, steps) = settle(journal, &order(0), at(50), made);
    assert_eq!((steps.len(), journal.announcement().version().at > first), (1, true));
    let same = journal.after(&Done::ExpiryReserved { kid: kid(0), external: true, until: at(900) }, at(200));
    assert_eq!(same.expect("in order").announcement(), journal.announcement(), "nobody waits for it");
}

#[test]
fn a_ledger_that_was_restored_makes_no_node_go_back() {
    let dated = |index, second| DesiredState { at: at(second), ..order(index) };
    let made = &mut 0;
    let (journal, _) = settle(empty(), &dated(0, 100), at(100), made);
    let (journal, _) = settle(journal, &dated(1, 200), at(200), made);
    let backup = dated(0, 199);
    let older = backup.key(&journal, at(300), MARGIN);
    assert_eq!(older, Err(RefusedOrder::Older { kid: kid(0), at: at(199), heard: at(200) }));
    assert_eq!(journal.next_step(&backup, at(201), MARGIN), None);
    // An order that changes nothing is followed too.
    let (journal, steps) = settle(journal, &dated(1, 300), at(300), made);
    assert_eq!(steps[0], SignerStep::Allow { kid: kid(1), ordered: at(300) });
    let (journal, steps) = settle(journal, &dated(2, 280), at(301), made);
    assert_eq!((journal.signing(), steps), (Some(&kid(1)), vec![]));
}

#[test]
fn an_order_from_the_future_does_not_silence_those_of_the_present() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &order(0), at(5), made);
    let orders = DesiredState { at: at(16), ..order(1) };
    let early = orders.key(&journal, at(5), MARGIN).expect_err("early").to_string();
    let clocks = "is in the future: the clocks of this node and the publisher disagree";
    assert_eq!(early, format!("the order of 1970-01-01T00:00:16Z for key `{}` {clocks}", kid(1)));
    assert_eq!(orders.key(&journal, at(6), MARGIN), Ok(Some(&kid(1))));
}

#[test]
fn an_order_of_the_present_is_obeyed_although_one_of_the_future_was() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &ordered(0, 900), at(900), made);
    assert_eq!(journal.observed_order(), Some(at(900)));
    // The clock was ahead, and is correct now.
    let (journal, steps) = settle(journal, &ordered(0, 900), at(5), made);
    assert_eq!((journal.signing(), steps), (Some(&kid(0)), vec![]), "it goes on");
    let (journal, steps) = settle(journal, &ordered(1, 6), at(6), made);
    assert_eq!(steps[0], SignerStep::Begin { kid: kid(1), ordered: Some(at(6)) });
    assert_eq!(journal.observed_order(), Some(at(6)));
    let older = ordered(0, 5);
    let refused = RefusedOrder::Older { kid: kid(0), at: at(5), heard: at(6) };
    assert_eq!(older.key(&journal, at(7), MARGIN), Err(refused), "as ever");
}

#[test]
fn a_retired_key_is_shown_then_withdrawn_then_destroyed() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &order(0), at(5), made);
    let cover = |external, until| Done::ExpiryReserved { kid: kid(0), external, until: at(until) };
    let journal = journal.after(&cover(true, 100), at(6)).expect("in order");
    let journal = journal.after(&cover(false, 500), at(6)).expect("in order");
    let (journal, _) = settle(journal, &order(1), at(7), made);
    let stage = Stage::Retired { since: at(7), latest_exp: Some(at(100)) };
    assert_eq!(journal.announcement().keys()[&kid(0)].stage, stage);
    assert_eq!(journal.next_step(&order(1), at(109), MARGIN), None);
    let late = ordered(0, 3);
    assert!(late.key(&journal, at(109), MARGIN).is_ok());
    let refused = late.key(&journal, at(110), MARGIN);
    assert_eq!(refused, Err(RefusedOrder::Excluded { kid: kid(0) }), "it may be public no more");
    let (journal, steps) = settle(journal, &order(1), at(110), made);
    assert_eq!(steps, [SignerStep::Exclude { kid: kid(0) }]);
    assert_eq!(journal.changed(), at(110));
    let excluded = |journal: &Journal| {
        let set = journal.verification_set(&BTreeSet::new()).expect("a set");
        set.iter().filter(|key| key.exclude).map(|key| key.jwk.kid().clone()).collect::<Vec<_>>()
    };
    assert_eq!(excluded(&journal), [kid(0)]);
    assert_eq!(journal.next_step(&order(1), at(509), MARGIN), None);
    let (journal, steps) = settle(journal, &order(1), at(510), made);
    assert_eq!(steps, [SignerStep::Destroy { kid: kid(0) }]);
    assert_eq!(journal.keys().len(), 2);
}

#[test]
fn a_token_for_the_api_server_alone_names_only_its_audiences() {
    let (journal, _) = settle(empty(), &DesiredState::default(), at(5), &mut 0);
    for (aud, inside) in [
        (r#""api""#, true),
        (r#"["api"]"#, true),
        (r#"["api","other-api"]"#, true),
        (r#"["api","else"]"#, false),
        (r#""""#, false),
        (r#""API""#, false),
    ] {
        assert_eq!(permit(&journal, &DesiredState::default(), aud, 1500).is_ok(), inside, "{aud}");
    }
}

#[test]
fn a_token_that_lives_too_long_is_refused() {
    let (journal, _) = settle(empty(), &DesiredState::default(), at(5), &mut 0);
    let until = |exp| permit(&journal, &DesiredState::default(), r#""api""#, exp).map(|permit| permit.exp);
    assert_eq!(until(1610), Ok(at(1610)), "ten seconds of leeway");
    assert_eq!(until(1611), Err(SigningRefusal::TooLong));
    assert_eq!(until(253_402_200_000), Err(SigningRefusal::TooLong));
}

#[test]
fn claims_that_cannot_be_read_are_refused() {
    let deep = format!(r#"{{"aud":"a","exp":1,"x":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    for (json, why) in [
        ("", UnreadableClaims::Members),
        ("[]", UnreadableClaims::Members),
        (r#"{"aud":"a"}"#, UnreadableClaims::Members),
        (r#"{"exp":1}"#, UnreadableClaims::Members),
        (r#"{"aud":1,"exp":1}"#, UnreadableClaims::Members),
        (r#"{"aud":["a",1],"exp":1}"#, UnreadableClaims::Members),
        (r#"{"aud":"a","exp":"1"}"#, UnreadableClaims::Members),
        (r#"{"aud":"a","exp":1.5}"#, UnreadableClaims::Members),
        (r#"{"aud":"a","exp":null}"#, UnreadableClaims::Members),
        (r#"{"aud":"api","aud":"else","exp":1}"#, UnreadableClaims::Members),
        (r#"{"aud":"a","exp":1,"sub":"a","sub":"b"}"#, UnreadableClaims::Members),
        (r#"{"aud":"a","exp":1,"x":{"y":1,"y":1}}"#, UnreadableClaims::Members),
        (r#"["a",1]"#, UnreadableClaims::Members),
        (&deep, UnreadableClaims::Members),
        (r#"{"aud":[],"exp":1}"#, UnreadableClaims::NoAudience),
        (r#"{"aud":"a","exp":9223372036854775807}"#, UnreadableClaims::NoTime),
    ] {
        assert_eq!(claims(json), Err(why), "{json}");
    }
    for text in ["e30=", "{}", "e+/0", "e30\n"] {
        assert_eq!(Claims::read(text), Err(UnreadableClaims::Encoding), "{text}");
    }
}

#[test]
fn the_horizon_moves_in_strides_and_never_back() {
    let (journal, _) = settle(empty(), &order(0), at(5), &mut 0);
    let permit = |exp| SigningDecision { kid: kid(0), exp: at(exp), external: true };
    let done = journal.reserve_expiry(&permit(100)).expect("nothing is covered yet");
    assert_eq!(done, Done::ExpiryReserved { kid: kid(0), external: true, until: at(160) });
    let journal = journal.after(&done, at(6)).expect("in order");
    assert_eq!(journal.reserve_expiry(&permit(160)), None);
    assert!(journal.reserve_expiry(&permit(161)).is_some());
    let inside = SigningDecision { external: false, ..permit(100) };
    assert!(journal.reserve_expiry(&inside).is_some(), "it is for others, and counts for them alone");
    let earlier = Done::ExpiryReserved { kid: kid(0), external: true, until: at(50) };
    assert_eq!(journal.after(&earlier, at(7)), Ok(journal.clone()));
}

#[test]
fn keys_of_before_stand_in_the_verification_set_as_the_operator_says() {
    let made = &mut 0;
    let (journal, _) = settle(empty(), &DesiredState::default(), at(5), made);
    let legacy = vec![
        VerificationOnlyKey { jwk: rsa_key(50), exclude: true },
        VerificationOnlyKey { jwk: rsa_key(0), exclude: true },
    ];
    let journal = journal.with_additional_keys(legacy.clone(), at(6));
    assert_eq!(journal.changed(), at(6));
    assert_eq!(journal.with_additional_keys(legacy, at(7)).changed(), at(6), "nothing new");
    let set = journal.verification_set(&BTreeSet::new()).expect("a set");
    let kids: Vec<_> = set.iter().map(|key| key.jwk.kid()).collect();
    assert!(kids.is_sorted() && kids.len() == 3);
    let excluded: Vec<_> = set.iter().filter(|key| key.exclude).map(|key| key.jwk.kid().clone()).collect();
    assert_eq!(excluded, [kid(50)], "one that signs is shown");
    let revoked = BTreeSet::from([kid(0), kid(1)]);
    assert_eq!(journal.verification_set(&revoked), None, "nothing that may be shown");
}

#[test]
fn a_journal_survives_being_stored() {
    let (journal, _) = settle(empty(), &order(0), at(5), &mut 0);
    let json = journal.to_json();
    assert_eq!(Journal::parse(&json), Ok(journal));
    let text = String::from_utf8(json).expect("JSON is text");
    let newer = text.replace("\"version\": 2", "\"version\": 3");
    assert_eq!(Journal::parse(newer.as_bytes()), Err(InvalidDocument::Newer { kind: "journal", version: 3 }));
    let misnamed = text.replace(&format!("\"{}\": {{", kid(1)), "\"other\": {");
    let reason = format!("entry `other` holds key `{}`", kid(1));
    assert_eq!(Journal::parse(misnamed.as_bytes()), Err(InvalidDocument::damaged("journal", &reason)));
    let signing =
        text.replace(&format!("\"signing\": \"{}\"", kid(0)), &format!("\"signing\": \"{}\"", kid(1)));
    let reason = format!("key `{}` signs, but is not active", kid(1));
    assert_eq!(Journal::parse(signing.as_bytes()), Err(InvalidDocument::damaged("journal", &reason)));
    for damaged in [&text[..text.len() / 2], "", "[]"] {
        assert!(matches!(Journal::parse(damaged.as_bytes()), Err(InvalidDocument::Damaged { .. })));
    }
}

#[test]
fn of_a_key_that_nobody_recorded_the_worst_is_assumed() {
    let (journal, findings) = empty().with_private_keys([rsa_key(7)], at(100), LIFETIME);
    assert_eq!(findings, [RecoveryFinding::Unrecorded { kid: kid(7) }]);
    let worst = Some(at(710));
    let held = &journal.keys()[&kid(7)];
    assert_eq!(held.stage, Stage::Retired { since: at(100), latest_exp: worst });
    assert_eq!((held.latest_exp_bound, held.latest_internal_exp_bound), (worst, worst));
    // The publisher still orders it: it signs again, without an effect outside.
    let (journal, _) = settle(journal, &order(7), at(101), &mut 0);
    assert_eq!(journal.signing(), Some(&kid(7)));
}

#[test]
fn a_private_key_that_is_gone_retires_or_is_forgotten() {
    let (journal, _) = settle(empty(), &order(0), at(5), &mut 0);
    let (journal, findings) = journal.with_private_keys([], at(6), LIFETIME);
    assert_eq!(findings.len(), 2);
    assert_eq!(journal.signing(), None);
    assert_eq!(journal.keys()[&kid(0)].stage, Stage::Retired { since: at(6), latest_exp: None });
    assert!(journal.keys().len() == 1, "the standby had not signed");
    let (again, findings) = journal.with_private_keys([], at(7), LIFETIME);
    assert_eq!((again, findings), (journal, vec![]));
}

#[test]
fn whoever_writes_orders_cannot_make_a_node_hold_keys_without_end() {
    let made = &mut 0;
    let (mut journal, _) = settle(empty(), &DesiredState::default(), at(5), made);
    for round in 0..60 {
        let orders = order(round.min(*made - 1));
        (journal, _) = settle(journal, &orders, at(100), made);
    }
    assert_eq!(journal.keys().len(), 32);
    let (journal, _) = settle(journal, &revoke(31), at(100), made);
    assert!(journal.signing().is_some(), "there is always room for one that signs");
}

#[test]
fn a_socket_is_written_as_kube_apiserver_takes_it() {
    for name in ["/run/signpost/signer.sock", "@signpost"] {
        assert_eq!(SocketName::parse(name).expect(name).to_string(), name);
    }
    let long = format!("/{}", "a".repeat(102));
    for (name, why) in [
        ("unix:///run/s.sock", "has a scheme"),
        ("s.sock", "expected an absolute path"),
        ("/run/", "expected an absolute path"),
        ("", "expected an absolute path"),
        ("@", "has no name"),
        (&long, "too long"),
    ] {
        let error = SocketName::parse(name).expect_err(name).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_node_that_was_taken_for_gone_says_once_that_it_lives() {
    let mut made = 0;
    let (journal, _) = settle(empty(), &DesiredState::default(), at(5), &mut made);
    let forgotten_at = |second| DesiredState { forgotten: Some(at(second)), ..DesiredState::default() };
    assert_eq!(journal.next_step(&forgotten_at(4), at(20), MARGIN), None, "it has spoken since");
    let (speaking, steps) = settle(journal.clone(), &forgotten_at(6), at(20), &mut made);
    assert_eq!(steps, [SignerStep::Reassert { after: at(6) }]);
    assert!(speaking.announcement().content_eq(&journal.announcement()));
    assert!(speaking.announcement().version().at > at(6));
    assert_eq!(speaking.changed(), journal.changed(), "nothing else is news");
    // A clock may be behind that of the publisher; a forged later time silences no node.
    let (speaking, _) = settle(journal.clone(), &forgotten_at(30), at(20), &mut made);
    assert!(speaking.announcement().version().at > at(30));
    assert_eq!(journal.next_step(&forgotten_at(31), at(20), MARGIN), None);
}

#[test]
fn a_node_that_has_lost_its_last_announcement_announces_again_until_that_counts() {
    let mut made = 0;
    let (journal, _) = settle(empty(), &DesiredState::default(), at(5), &mut made);
    let announced_at = |time| DesiredState { announced: Some(time), ..DesiredState::default() };
    let said = journal.announcement().version().at;
    assert_eq!(journal.next_step(&announced_at(said), at(20), MARGIN), None, "that is the last one");
    let (speaking, steps) = settle(journal.clone(), &announced_at(at(7)), at(6), &mut made);
    assert_eq!(
        steps,
        [SignerStep::Reassert { after: at(7) }],
        "its clock was ahead, and its journal is gone"
    );
    assert!(speaking.announcement().version().at > at(7));
    assert_eq!(journal.next_step(&announced_at(at(31)), at(20), MARGIN), None, "a forged one");
}
