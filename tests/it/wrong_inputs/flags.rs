use std::fs;
use std::net::TcpListener;

use super::{COULD_NOT, NO, Transcript};

#[test]
fn wrong_flags_are_named_with_what_was_expected() {
    let mut it = Transcript::new();
    it.write("sa.pub", "not read");
    it.refuses("unknown verb", "snyc --dry-run", COULD_NOT);
    it.refuses("no verb at all like it", "publish", COULD_NOT);
    it.refuses("a verb of two that are alike", "rotate statu", COULD_NOT);
    it.refuses("another, of which one writes", "rotate strat", COULD_NOT);
    it.refuses("and another", "config chek", COULD_NOT);
    it.refuses("the beginning of a verb that looks", "rotate stat", COULD_NOT);
    it.refuses("the beginning of two verbs", "rotate sta", COULD_NOT);
    it.refuses("an unknown flag where a kid may stand", "rotate revoke --sign-with-newkey abcd", COULD_NOT);
    it.refuses("no namespace", "verify --all --namespace ../../api", COULD_NOT);
    it.refuses("an unset variable", "verify --token - --audience=", COULD_NOT);
    it.refuses("unknown flag", "run --isuer https://k8s.example", COULD_NOT);
    it.refuses("an argument too many", "sync now", COULD_NOT);
    it.refuses("missing flag", "verify", COULD_NOT);
    it.refuses("missing value", "verify --token", COULD_NOT);
    it.refuses("flag given twice", "verify --token a --token b", COULD_NOT);
    it.refuses("missing argument", "ledger adopt", COULD_NOT);
    it.refuses("flags that exclude each other", "sync --dry-run --adopt", COULD_NOT);
    it.refuses("flag that needs another", "verify --token a --discovery b", COULD_NOT);
    it.refuses("unknown word", "verify --token a --output yaml", COULD_NOT);
    it.refuses("no duration", "token --expiration soon", COULD_NOT);
    it.refuses("no time at all", "token --expiration 0s", COULD_NOT);
    it.refuses("no service account", "token --service-account app", COULD_NOT);
    it.refuses("no address", "run --listen localhost", COULD_NOT);
    it.refuses("no log filter", "run --log signpost=loud", COULD_NOT);
    it.refuses("unknown scheme of a source", "jwks --source gs://bucket/jwks", COULD_NOT);
    it.refuses("misspelt source", "jwks --source kubernets:kind", COULD_NOT);
    it.refuses("source without context", "jwks --source kubernetes:", COULD_NOT);
    it.refuses("no glob", "jwks --source [a", COULD_NOT);
    it.refuses("unknown source of a token", "token --source azure", COULD_NOT);
    it.refuses("token of a cluster for nobody", "token", COULD_NOT);
    it.refuses("unknown profile", "jwks --source sa.pub --profile azure", COULD_NOT);
    it.refuses("no issuer for the discovery document", "jwks --source sa.pub --output-dir out", COULD_NOT);
    it.refuses("no issuer", "verify --issuer k8s.example", NO);
    it.refuses("nothing to judge", "verify --for aws", COULD_NOT);
    it.refuses("a namespace and not all of it", "verify --namespace team", COULD_NOT);
    it.refuses("no pod", "verify --pod app-0", COULD_NOT);
    it.refuses("unknown source of a verdict", "verify --pod team/app-0 --source azure", COULD_NOT);
    it.refuses("a token of two", "verify --token a --service-account team/app", COULD_NOT);
    it.refuses("nobody's rules", "verify --token a --for okta", COULD_NOT);
    it.refuses("no address to connect to", "verify --token a --connect-to localhost", COULD_NOT);
    it.refuses("no patience", "verify --token a --wait soon", COULD_NOT);
    it.refuses("a file does not change", "verify --jwks sa.pub --wait 1m", COULD_NOT);
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", "A".repeat(20));
    it.replace(token.clone(), "TOKEN");
    it.refuses("a token for all to see", &format!("verify --token {token}"), COULD_NOT);
    it.write("credentials", r#"{"issuer": "https://k8s.example"}"#);
    it.refuses("no credentials", "verify --jwks sa.pub --credentials credentials", COULD_NOT);
    it.refuses("no ledger", "verify --jwks sa.pub --ledger credentials", COULD_NOT);
    it.refuses(
        "many faults at once",
        "sync --issuer http://k8s.example --source , --target gs://bucket --target ftp://host --schedule never --listen 80",
        COULD_NOT,
    );
    it.compare("flags");
}

#[test]
fn an_address_in_use_is_named_and_nothing_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let mut it = Transcript::new();
    it.replace(address.clone(), "ADDRESS");
    it.replace(std::process::id().to_string(), "PROCESS");
    it.replace(fs::read_to_string("/proc/self/comm").expect("it has a name").trim(), "NAME");
    it.refuses(
        "public port in use",
        &format!("run --listen {address} --issuer https://k8s.example --source embedded"),
        COULD_NOT,
    );
    it.refuses(
        "admin port in use",
        &format!(
            "run --listen 127.0.0.1:0 --issuer https://k8s.example --source embedded --admin-listen {address}"
        ),
        COULD_NOT,
    );
    it.refuses(
        "not an address of this machine",
        "run --issuer https://k8s.example --source embedded --listen 192.0.2.1:8080",
        COULD_NOT,
    );
    it.compare("addresses");
}
