use serde_json::{Value, json};

use super::{COULD_NOT, Transcript};

/// A key without a known private half.
fn rsa(kid: &str, last: u8) -> Value {
    let modulus = [&[0xa5; 255], &[last | 1][..]].concat();
    let n = openssl::base64::encode_block(&modulus).replace('+', "-").replace('/', "_").replace('=', "");
    json!({"use": "sig", "kty": "RSA", "kid": kid, "alg": "RS256", "n": n, "e": "AQAB"})
}

fn with(mut key: Value, member: &str, value: Value) -> Value {
    key[member] = value;
    key
}

#[test]
fn documents_that_are_no_usable_jwks_are_refused() {
    let mut it = Transcript::new();
    let mut refuses = |what: &str, document: String| {
        it.write("jwks.json", document);
        let sync = "sync --issuer https://k8s.example --source jwks.json --target out";
        it.refuses_silently(sync, COULD_NOT, |it| it);
        let jwks = "jwks --issuer https://k8s.example --source jwks.json --output-dir out";
        it.refuses(what, jwks, COULD_NOT);
    };
    let good = || rsa("a", 1);
    let set = |keys: Vec<Value>| json!({ "keys": keys }).to_string();
    refuses("empty", set(vec![]));
    refuses("keys are null", json!({"keys": null}).to_string());
    refuses("another document", json!({"issuer": "https://k8s.example"}).to_string());
    refuses("no JSON", "keys: []".to_owned());
    refuses("HTML", "<!DOCTYPE html><title>Sign in</title>".to_owned());
    refuses("cut off", r#"{"keys":[{"kty":"RSA","#.to_owned());
    refuses("a private member", set(vec![good(), with(rsa("b", 3), "d", json!("AQAB"))]));
    refuses("one kid for two keys", set(vec![good(), rsa("a", 3)]));
    refuses("a modulus that is no number", set(vec![with(good(), "n", json!("not base64url!"))]));
    refuses("no modulus", set(vec![with(good(), "n", Value::Null)]));
    refuses("a short modulus", set(vec![with(good(), "n", json!("qqqq"))]));
    refuses("an empty kid", set(vec![rsa("", 1)]));
    refuses("a key that is no object", json!({"keys": ["a"]}).to_string());
    refuses("no key type", json!({"keys": [{"kid": "a"}]}).to_string());
    refuses("keys of other kinds alone", set(vec![json!({"kty": "AKP", "kid": "a", "alg": "ML-DSA-65"})]));
    let twice = set(vec![good()]).replace("\"use\"", "\"alg\":\"RS256\",\"use\"");
    refuses("a member twice", twice.clone());
    let key = twice.strip_prefix("{\"keys\":[").and_then(|rest| rest.strip_suffix("]}"));
    refuses("a key with a member twice", key.expect("a set of one").to_owned());
    refuses("101 keys", set((0..101).map(|index| rsa(&format!("key-{index}"), 2 * index)).collect()));
    it.compare("jwks");
}
