use super::*;
use crate::core::tests::{known, rsa_key};

const MARGIN: Duration = Duration::from_mins(1);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn api_servers() -> Heard {
    let names = ["one", "two"].map(ToOwned::to_owned).into();
    Heard::new([Voices { names, all: true, verify: true }, Voices::one("files")])
}

fn saying(present: Option<i64>) -> Hearing {
    Hearing { answer: Answer::Keys(Vec::new()), server_time: present.map(at), notes: Vec::new() }
}

#[test]
fn our_clock_is_trusted_while_an_api_server_agrees_and_none_disagrees() {
    let mut heard = api_servers();
    assert_eq!(heard.trusted(at(1000), MARGIN), None, "nobody was asked");
    heard.take(0, "one", saying(Some(1000)));
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)));
    heard.take(0, "two", saying(Some(1050)));
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)), "within the margin");
    heard.take(0, "two", saying(Some(1070)));
    assert_eq!(heard.trusted(at(1000), MARGIN), None);
    assert_eq!(heard.disagreeing(at(1000), MARGIN).collect::<Vec<_>>(), ["two"]);
    heard.take(0, "two", saying(None));
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)), "who fails says nothing");
    heard.take(0, "one", saying(None));
    assert_eq!(heard.trusted(at(1000), MARGIN), None, "nobody is left to ask");
}

#[test]
fn a_clock_that_was_set_since_they_spoke_is_noticed() {
    let mut heard = api_servers();
    heard.take(0, "one", saying(Some(1000)));
    for now in [1000 - 3600, 1000 + 3600] {
        assert_eq!(heard.trusted(at(now), MARGIN), None);
        assert_eq!(heard.disagreeing(at(now), MARGIN).collect::<Vec<_>>(), ["one"]);
    }
}

#[test]
fn without_api_servers_there_is_nobody_to_ask() {
    let mut heard = Heard::new([Voices::one("files"), Voices::one("hub")]);
    assert_eq!(heard.trusted(at(1000), MARGIN), Some(at(1000)));
    heard.take(1, "hub", saying(Some(5000)));
    assert_eq!(heard.trusted(at(1000), MARGIN), None, "another server may know better");
}

#[test]
fn what_a_place_shows_is_dated_as_soon_as_our_clock_is_trusted() {
    let mut heard = api_servers();
    let key = rsa_key(0);
    let look = Look { left: Some("1".to_owned()), ..Look::at_our_own([key.kid().clone()].into()) };
    let begun = known(&[], std::slice::from_ref(&key));
    let shown = |ledger: &Ledger| ledger.entries()[key.kid()].shown.get("blob").copied();

    let undated = begun.shown("blob", &look, None);
    heard.looked("blob", &look, false);
    assert_eq!(shown(&heard.date(undated.clone(), None)), None);
    let dated = heard.date(undated.clone(), Some(at(1000)));
    assert_eq!(shown(&dated), Some(at(1000)));
    assert_eq!(heard.date(dated.clone(), Some(at(1001))), dated, "once");
    heard.looked("blob", &look, true);
    assert_eq!(shown(&heard.date(undated, Some(at(1002)))), None, "a later look has its own time");
}
