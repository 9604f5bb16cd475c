use super::*;
use crate::core::tests::{known, rsa_key};

const MARGIN: Duration = Duration::from_mins(1);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn api_servers() -> Observations {
    let names = ["one", "two"].map(ToOwned::to_owned).into();
    Observations::new([Endpoints { names, all: true, verify: true }, Endpoints::one("files")])
}

fn record(heard: &mut Observations, source: usize, endpoint: &str, present: Option<i64>) {
    let answer = SourceAnswer::Keys(Vec::new());
    let observation = SourceObservation { answer, server_time: present.map(at), notes: Vec::new() };
    heard.record(Observation::Source { source, endpoint, observation: Some(&observation) });
}

#[test]
fn our_clock_is_trusted_while_an_api_server_agrees_and_none_disagrees() {
    let mut heard = api_servers();
    assert_eq!(heard.trusted(at(1000), MARGIN), None, "nobody was asked");
    record(&mut heard, 0, "one", Some(1000));
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)));
    record(&mut heard, 0, "two", Some(1050));
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)), "within the margin");
    record(&mut heard, 0, "two", Some(1070));
    assert_eq!(heard.trusted(at(1000), MARGIN), None);
    assert_eq!(heard.disagreeing(at(1000), MARGIN).collect::<Vec<_>>(), ["two"]);
    record(&mut heard, 0, "two", None);
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)), "who fails says nothing");
    record(&mut heard, 0, "one", None);
    assert_eq!(heard.trusted(at(1000), MARGIN), None, "nobody is left to ask");
}

#[test]
fn a_clock_that_was_set_since_they_spoke_is_noticed() {
    let mut heard = api_servers();
    record(&mut heard, 0, "one", Some(1000));
    for now in [1000 - 3600, 1000 + 3600] {
        assert_eq!(heard.trusted(at(now), MARGIN), None);
        assert_eq!(heard.disagreeing(at(now), MARGIN).collect::<Vec<_>>(), ["one"]);
    }
}

#[test]
fn without_api_servers_there_is_nobody_to_ask() {
    let mut heard = Observations::new([Endpoints::one("files"), Endpoints::one("hub")]);
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)));
    record(&mut heard, 1, "hub", Some(5000));
    assert_eq!(heard.trusted(at(1000), MARGIN), None, "another server may know better");
}

#[test]
fn what_a_place_shows_is_dated_as_soon_as_our_clock_is_trusted() {
    let mut heard = api_servers();
    let key = rsa_key(0);
    let look = TargetObservation {
        revision_after: Some("1".to_owned()),
        ..TargetObservation::of_own_listener([key.kid().clone()].into())
    };
    let observation =
        Observation::Target { target: "blob", observation: &look, unmanaged_keys: &[], cache_lifetime: None };
    let begun = known(&[], std::slice::from_ref(&key));
    let shown = |ledger: &Ledger| ledger.entries()[key.kid()].shown.get("blob").copied();

    let undated = begun.observe_target("blob", &look, None);
    heard.stored(observation, false);
    assert_eq!(shown(&heard.date(undated.clone(), None)), None);
    let dated = heard.date(undated.clone(), Some(at(1000)));
    assert_eq!(shown(&dated), Some(at(1000)));
    assert_eq!(heard.date(dated.clone(), Some(at(1001))), dated, "once");
    heard.stored(observation, true);
    assert_eq!(shown(&heard.date(undated, Some(at(1002)))), None, "a later look has its own time");
}
