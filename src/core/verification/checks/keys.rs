//! Rules of the JWKS (RFC 7517), of the signing key in it, and of the signature.

use super::{
    BESIDE_THE_OTHER, Basis, Check, CheckResult, CheckStage, Context, ENTRA, EVERYBODY, Error, KEYS,
    NOT_KUBERNETES, Note, SIGNATURE, Warning, holds, quoted, violated,
};

use crate::core::{
    jose::{
        jwk::{Algorithm, InvalidJwk, PRIVATE_MEMBERS},
        jwk_set::MAX_KEYS,
        public_key::InvalidPublicKey,
    },
    verification::{Party, context::PublishedKey},
};

const PUBLISH: &str = "publish it again with `signpost sync`";
/// More keys than a cluster needs: old ones were probably not removed.
const MANY: usize = 10;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: KEYS,
        rule: "the JWKS is a JSON object with public keys in `keys`, and the one that the token names is well-formed",
        level: Error,
        parties: EVERYBODY,
        codes: &[900_612],
        basis: Basis::observed("answer to a bad JWKS"),
        step: CheckStage::Key,
        judge: can_be_read,
    },
    Check {
        id: "JWKS-PRIVATE",
        rule: "it contains no private key: anyone who reads it can forge tokens",
        level: Error,
        parties: EVERYBODY,
        codes: &[],
        basis: Basis::inferred("RFC 7517 section 9.2"),
        step: CheckStage::Key,
        judge: holds_no_private_key,
    },
    Check {
        id: "JWKS-COUNT",
        rule: "the key that the token names is among the first 100: Entra and AWS read no more",
        level: Error,
        parties: &[Party::Entra, Party::Aws],
        codes: &[7_000_272],
        basis: Basis::documented("workload identity federation"),
        step: CheckStage::Key,
        judge: is_among_those_that_are_read,
    },
    Check {
        id: "JWKS-DUP",
        rule: "the kid of the token names one key there, not two different ones",
        level: Error,
        parties: NOT_KUBERNETES,
        codes: &[7_000_274],
        basis: Basis::inferred("RFC 7517 section 4.5"),
        step: CheckStage::Key,
        judge: names_one_key,
    },
    Check {
        id: "JWKS-KID",
        rule: "the key that the token names is in it; Entra may also answer so while it caches an older one",
        level: Error,
        parties: EVERYBODY,
        codes: &[7_000_272],
        basis: Basis::observed("azure-workload-identity #1232"),
        step: CheckStage::Key,
        judge: has_the_key,
    },
    Check {
        id: "JWKS-USE",
        rule: "`use` of that key is `sig`, as Entra expects",
        level: Error,
        parties: ENTRA,
        codes: &[700_027, 7_000_272],
        basis: Basis::documented("workload identity federation with SPIFFE"),
        step: CheckStage::Key,
        judge: key_is_for_signatures,
    },
    Check {
        id: "KEY-SIZE",
        rule: "an RSA key that signs has 2048 bits at least",
        level: Error,
        parties: EVERYBODY,
        codes: &[900_612],
        basis: Basis::inferred("RFC 7518 section 3.3"),
        step: CheckStage::Key,
        judge: key_is_strong,
    },
    Check {
        id: SIGNATURE,
        rule: "the signature verifies with that key, by the algorithm that key and token name",
        level: Error,
        parties: EVERYBODY,
        codes: &[7_000_274],
        basis: Basis::observed("Microsoft.Identity.Web tests"),
        step: CheckStage::Signature,
        judge: signature_verifies,
    },
    Check {
        id: "JWKS-ODD",
        rule: "its other keys are well-formed too: implementations of RFC 7517 skip malformed ones, others fail",
        level: Warning,
        parties: EVERYBODY,
        codes: &[900_612],
        basis: Basis::inferred("RFC 7517 section 5"),
        step: CheckStage::Key,
        judge: has_no_odd_keys,
    },
    Check {
        id: "JWKS-ALG",
        rule: "no other kinds of keys are in it; what Entra makes of them is not documented",
        level: Warning,
        parties: ENTRA,
        codes: &[900_612],
        basis: Basis::inferred("not documented"),
        step: CheckStage::Key,
        judge: has_rs256_keys_alone,
    },
    Check {
        id: "JWKS-MANY",
        rule: "it has at most 10 keys; Entra and AWS read only the first 100",
        level: Warning,
        parties: EVERYBODY,
        codes: &[],
        basis: Basis::inferred("workload identity federation"),
        step: CheckStage::Key,
        judge: has_few_keys,
    },
    Check {
        id: "JWKS-KIDHASH",
        rule: "the kid of that key is the one that Kubernetes derives",
        level: Note,
        parties: EVERYBODY,
        codes: &[],
        basis: Basis::documented("Kubernetes, jwt.go"),
        step: CheckStage::Key,
        judge: kid_is_derived,
    },
];

fn can_be_read(case: &Context) -> CheckResult {
    let keys = match &case.jwks {
        None => return CheckResult::NotApplicable,
        Some(Err(error)) => return cannot_be_read(case, error),
        Some(Ok(keys)) => keys,
    };
    let signing = case.signing_key();
    let is_decisive = |key: &PublishedKey| signing.is_some_and(|signing| std::ptr::eq(signing, key));
    let all_are_odd = keys.iter().all(|key| key.malformation().is_some());
    let broken = odd(keys).find(|(key, _)| all_are_odd || is_decisive(key));
    match broken {
        Some((_, error)) => cannot_be_read(case, &error),
        // It is readable; the rule of the token's key reports what is missing.
        None if keys.is_empty() && case.token().is_some() => CheckResult::NotApplicable,
        None if keys.is_empty() => cannot_be_read(case, "it has no keys"),
        None => holds(match keys.len() {
            1 => "JWKS with 1 key".to_owned(),
            count => format!("JWKS with {count} keys"),
        }),
    }
}

/// The malformed keys, each with the reason in words.
fn odd(keys: &[PublishedKey]) -> impl Iterator<Item = (&PublishedKey, String)> {
    keys.iter().enumerate().filter_map(|(index, key)| {
        let error = key.malformation()?;
        let words = match key.kid() {
            Some(kid) => format!("key `{kid}`: {error}"),
            None => format!("key {}: {error}", index + 1),
        };
        Some((key, words))
    })
}

fn has_no_odd_keys(case: &Context) -> CheckResult {
    let signing = case.signing_key();
    let keys = case.keys().unwrap_or_default();
    let is_other = |key: &PublishedKey| signing.is_none_or(|signing| !std::ptr::eq(signing, key));
    let others: Vec<_> = odd(keys).filter(|(key, _)| is_other(key)).map(|(_, words)| words).collect();
    if others.is_empty() || keys.iter().all(|key| key.malformation().is_some()) {
        return CheckResult::NotApplicable;
    }
    violated(
        format!("keys that cannot be used are in the JWKS: {}", others.join("; ")),
        "only well-formed keys",
        "have the publisher omit them; `signpost sync` never publishes one",
    )
}

fn cannot_be_read(case: &Context, why: &str) -> CheckResult {
    let origin = case.evidence.jwks.origin();
    violated(format!("the JWKS at {origin} cannot be used: {why}"), "a JWKS of public keys", PUBLISH)
}

fn holds_no_private_key(case: &Context) -> CheckResult {
    let private = |key: &PublishedKey| {
        let member = PRIVATE_MEMBERS.iter().find(|member| key.members.contains_key(**member))?;
        Some((key.kid().unwrap_or("none").to_owned(), *member))
    };
    match case.keys().and_then(|keys| keys.iter().find_map(private)) {
        Some((kid, member)) => violated(
            format!("the private key of kid `{kid}` is public: it has the member `{member}`"),
            "only public keys",
            "replace the signing key at once, and remove the old one from `--service-account-key-file` too: anyone who reads the JWKS can forge tokens. Then recreate every pod, and publish without the old key",
        ),
        None => CheckResult::NotApplicable,
    }
}

fn is_among_those_that_are_read(case: &Context) -> CheckResult {
    let kid = case.signing_key().and_then(PublishedKey::kid);
    let (Some(kid), Some(keys)) = (kid, case.keys()) else { return CheckResult::NotApplicable };
    match keys.iter().position(|key| key.kid() == Some(kid)) {
        Some(place) if place >= MAX_KEYS => violated(
            format!("kid `{kid}` is key {} of {} in the JWKS", place + 1, keys.len()),
            format!("within the first {MAX_KEYS}"),
            "remove the keys whose last tokens have expired",
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn names_one_key(case: &Context) -> CheckResult {
    let Some(key) = case.signing_key() else { return CheckResult::NotApplicable };
    let of_same_name = case.keys().unwrap_or_default().iter().filter(|other| other.kid() == key.kid());
    if of_same_name.map(|other| &other.jwk).all(|other| *other == key.jwk) {
        return CheckResult::NotApplicable;
    }
    violated(
        format!("kid `{}` names two different keys in the JWKS", key.kid().unwrap_or_default()),
        "one key of that name",
        "remove the one that does not sign",
    )
}

fn has_the_key(case: &Context) -> CheckResult {
    let kid = case.token().and_then(|token| token.header().kid.as_ref());
    let (Some(kid), Some(keys)) = (kid, case.keys()) else { return CheckResult::NotApplicable };
    if case.signing_key().is_some() {
        return holds("the key that signed is published");
    }
    violated(
        format!("kid `{kid}` is not published"),
        match keys.iter().filter_map(PublishedKey::kid).collect::<Vec<_>>() {
            kids if kids.is_empty() => "the kid in the JWKS, which lists no kid".to_owned(),
            kids => format!("the kid in the JWKS, which lists {}", quoted(kids)),
        },
        "publish the keys of the cluster that made this token with `signpost sync`, and keep them current with `signpost run`",
    )
}

fn key_is_for_signatures(case: &Context) -> CheckResult {
    let Some(key) = case.signing_key() else { return CheckResult::NotApplicable };
    let kid = key.kid().unwrap_or_default();
    match key.members.get("use") {
        Some(value) if value == "sig" => holds("the key is for signatures"),
        Some(value) => violated(format!("key `{kid}` has `use` {value}"), "`use` \"sig\"", PUBLISH),
        None => violated(format!("key `{kid}` has no `use`"), "`use` \"sig\"", PUBLISH),
    }
}

fn key_is_strong(case: &Context) -> CheckResult {
    match case.signing_key().map(|key| (key.kid(), &key.jwk)) {
        Some((Some(kid), Err(InvalidJwk::Key(InvalidPublicKey::Weak { bits })))) => violated(
            format!("key `{kid}` has {bits} bits"),
            "2048 at least",
            format!("have kube-apiserver sign with a larger key, {BESIDE_THE_OTHER}"),
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn signature_verifies(case: &Context) -> CheckResult {
    let (Some(token), Some(key)) = (case.token(), case.signing_key()) else {
        return CheckResult::NotApplicable;
    };
    let Ok(jwk) = &key.jwk else { return CheckResult::NotApplicable };
    let (named, published) = (token.header().alg.as_str(), jwk.algorithm().name());
    if named != published {
        return violated(
            format!("the token says `{named}`, the published key is for `{published}`"),
            "the same algorithm",
            "publish the key that signed this token",
        );
    }
    if key.verifies(token) {
        return holds("the signature verifies with the published key");
    }
    violated(
        "the signature does not verify with the published key",
        "the key that signed, and the token as it was signed",
        "publish the key that signed this token; if it is published, the token was changed on its way",
    )
}

fn has_rs256_keys_alone(case: &Context) -> CheckResult {
    let other = |key: &&PublishedKey| match &key.jwk {
        Ok(jwk) => jwk.algorithm() != Algorithm::RS256,
        Err(error) => matches!(error, InvalidJwk::Unknown { .. }),
    };
    let others: Vec<_> = case.keys().unwrap_or_default().iter().filter(other).collect();
    if others.is_empty() {
        return CheckResult::NotApplicable;
    }
    let name = |key: &&PublishedKey| {
        let kind = key.text("alg").or(key.text("crv")).or(key.text("kty")).unwrap_or("unknown");
        format!("{kind} {}", key.kid().unwrap_or("without kid"))
    };
    violated(
        format!("keys of other kinds are in the JWKS: {}", quoted(others.iter().map(name))),
        "only RS256 keys",
        "publish with profile `entra`, which leaves the others out, unless another relying party verifies tokens signed with them",
    )
}

fn has_few_keys(case: &Context) -> CheckResult {
    match case.keys().map(<[_]>::len) {
        Some(count) if count > MANY => violated(
            format!("the JWKS has {count} keys"),
            format!("at most {MANY}"),
            "remove the keys whose last tokens have expired",
        ),
        _ => CheckResult::NotApplicable,
    }
}

fn kid_is_derived(case: &Context) -> CheckResult {
    match case.signing_key().map(|key| (key, &key.jwk)) {
        Some((key, Ok(jwk))) if !jwk.has_derived_kid() => violated(
            format!(
                "kid `{}` is not the one that Kubernetes derives from the key",
                key.kid().unwrap_or_default()
            ),
            format!("`{}`, unless an external signer chose another", jwk.public_key().kid()),
            "nothing, where an external signer chooses its own key IDs",
        ),
        _ => CheckResult::NotApplicable,
    }
}
