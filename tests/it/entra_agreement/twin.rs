//! The twin itself: the format of its answers, and its cache.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::json;
use signpost::clock;

use super::situation::{CLIENT, HOST, Keys, Situation, Trust};
use crate::support::entra_twin::{Answer, Directory, Endpoint, EntraTwin, TENANT, exchange_form};
use crate::support::scripted::Scripted;

const AN_HOUR: i64 = 3600;

fn directory(situation: &Situation, server: &Scripted) -> Directory {
    let credentials = situation.credentials.iter().map(Trust::json).collect();
    Directory {
        now: situation.now,
        jwks_seconds: 3600,
        internet: vec![(HOST.to_owned(), server.url())],
        applications: vec![(CLIENT.to_owned(), credentials)],
    }
}

/// Serves the situation's documents, until they are replaced.
fn serve(situation: &Situation) -> (Scripted, Arc<Mutex<BTreeMap<String, super::situation::Document>>>) {
    let mut documents = BTreeMap::new();
    situation.publish(&mut documents);
    let documents = Arc::new(Mutex::new(documents));
    let shared = Arc::clone(&documents);
    let server = Scripted::start(move |seen| {
        let documents = shared.lock().expect("no answer panicked");
        documents.get(&seen.path).map_or((404, String::new()), |it| (200, it.text()))
    });
    (server, documents)
}

/// Microsoft, client credentials grant and error codes.
#[test]
fn the_twin_answers_in_the_documented_shape() {
    let keys = Keys::generate();
    let situation = Situation::right(&keys, "twin", clock::now().as_second());
    let (server, _) = serve(&situation);
    let twin = EntraTwin::start(directory(&situation, &server));
    let token = situation.token();
    let right = exchange_form(CLIENT, &token);
    let answer = twin.request(TENANT, &right).expect_status(200).json();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3599)));
    assert!(answer["access_token"].is_string() && answer["ext_expires_in"].is_u64());

    let refuses = |tenant: &str, name: &str, value: &str, code: u64| {
        let form = right.map(|(key, given)| (key, if key == name { value } else { given }));
        let response = twin.request(tenant, &form);
        let answer = response.json();
        assert_eq!(answer["error_codes"], json!([code]), "{}", response.text());
        let expected = if answer["error"] == "invalid_client" { 401 } else { 400 };
        assert_eq!(response.status, expected, "{}", response.text());
        let description = answer["error_description"].as_str().expect("text");
        assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
        for member in ["timestamp", "trace_id", "correlation_id"] {
            let value = answer[member].as_str().expect("text");
            assert!(description.contains(value), "{member} is not in: {description}");
        }
        assert!(!response.header("rests-on").unwrap_or_default().is_empty(), "{code} rests on nothing");
    };
    refuses("nobody.example", "", "", 90_002);
    refuses("nobody", "", "", 900_023);
    refuses("no%20name", "", "", 900_023);
    refuses("<tenant>", "", "", 90_013);
    refuses("00000000-0000-0000-0000-000000000000", "", "", 900_021);
    refuses(TENANT, "client_id", "another", 700_016);
    refuses(TENANT, "client_id", "", 900_144);
    refuses(TENANT, "grant_type", "user_fic", 900_144);
    refuses(TENANT, "grant_type", "token", 70_003);
    refuses(TENANT, "scope", "", 90_014);
    refuses(TENANT, "scope", "https://graph.microsoft.com/User.Read", 1_002_012);
    refuses(TENANT, "scope", "https://nobody.example/.default", 500_011);
    refuses(TENANT, "client_assertion", "", 50_027);
    refuses(TENANT, "client_assertion_type", "jwt", 7_000_216);
    refuses(TENANT, "client_assertion", "no.jwt", 50_027);
}

/// Microsoft, client credentials grant: the parameters are in the body. Reports: what stands in the URL does not
/// count; 90002 at the authority of a test cloud.
#[test]
fn the_twin_reads_the_host_and_no_query() {
    let keys = Keys::generate();
    let situation = Situation::right(&keys, "twin", clock::now().as_second());
    let (server, _) = serve(&situation);
    let twin = EntraTwin::start(directory(&situation, &server));
    let token = situation.token();
    let form = exchange_form(CLIENT, &token);
    let code = |host, query| Answer::of(&twin.ask(&Endpoint { host, tenant: TENANT, query }, &form)).code;
    assert_eq!(code("login.microsoftonline.com", "client_id=another&scope=another"), None);
    assert_eq!(code("login.windows-ppe.net", ""), Some(90_002));
}

#[test]
fn the_twin_knows_a_new_key_only_when_its_cache_is_old() {
    let keys = Keys::generate();
    let mut situation = Situation::right(&keys, "twin", clock::now().as_second());
    situation.claims["exp"] = json!(situation.now + 2 * AN_HOUR);
    let (server, documents) = serve(&situation);
    let twin = EntraTwin::start(directory(&situation, &server));
    assert_eq!(twin.exchange(CLIENT, &situation.token()).code, None);
    assert_eq!(server.seen().len(), 2, "both documents");

    situation.key()["kid"] = json!("new");
    situation.header["kid"] = json!("new");
    situation.publish(&mut documents.lock().expect("no answer panicked"));
    assert_eq!(twin.exchange(CLIENT, &situation.token()).code, Some(7_000_272));
    assert_eq!(server.seen().len(), 2, "nothing is read again");

    twin.set_time(situation.now + AN_HOUR);
    assert_eq!(twin.exchange(CLIENT, &situation.token()).code, None);
    assert_eq!(server.seen().len(), 4, "both documents once more");
}
