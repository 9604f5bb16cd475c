//! Single faults, and oddities that are no faults.

use serde_json::{Value, json};

use super::situation::{
    AUDIENCE, ENTRA, ENTRA_ELSEWHERE, ENTRA_USGOV, ENTRA_V1, EXCHANGE, GITHUB, KID, Redirect, SUBJECT,
    Situation, Trust,
};
use crate::support::entra_twin::TENANT;

/// One fault, in several variants.
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) variants: usize,
    /// Applies the fault; the number is that of the variant.
    pub(super) apply: fn(&mut Situation, usize),
    /// Codes of further faults that it causes, which the twin never reaches.
    pub(super) besides: &'static [u64],
}

const fn fault(name: &'static str, variants: usize, apply: fn(&mut Situation, usize)) -> Fault {
    Fault { name, variants, apply, besides: &[] }
}

impl Fault {
    const fn besides(mut self, codes: &'static [u64]) -> Self {
        self.besides = codes;
        self
    }
}

const STATUSES: [u16; 8] = [400, 401, 403, 404, 410, 429, 500, 503];

pub(super) const FAULTS: &[Fault] = &[
    // The header.
    fault("alg is another", 8, |it, n| {
        let names = ["ES256", "HS256", "PS256", "EdDSA", "none", "rs256", "RS384", "RS512"];
        it.header["alg"] = json!(names[n]);
    })
    // The signature is not one of that algorithm.
    .besides(&[7_000_274]),
    fault("alg is not there", 1, |it, _| remove(&mut it.header, "alg")),
    fault("typ is another", 4, |it, n| {
        it.header["typ"] = json!(["at+jwt", "JOSE", "application/at+jwt", "jwt-bearer"][n]);
    }),
    fault("typ is right", 2, |it, n| it.header["typ"] = json!(["JWT", "http://openid.net/specs/jwt/1.0"][n])),
    fault("kid is not there", 1, |it, _| remove(&mut it.header, "kid")),
    fault("kid is empty", 1, |it, _| it.header["kid"] = json!("")),
    fault("kid is another", 4, |it, n| {
        it.header["kid"] = json!(["unknown", "The-Key-That-Signs", "the-key-that-signs ", "/"][n]);
    }),
    fault("kid is of another key", 1, |it, _| it.header["kid"] = json!("another")),
    fault("the header has a member twice", 3, |it, n| it.header_text = Some(TWICE_IN_HEADER[n])),
    fault("the header has more", 1, |it, _| it.header["jku"] = json!("https://elsewhere.example")),
    // The claims.
    fault("a claim is there twice", 4, |it, n| it.claims_text = Some(TWICE_IN_CLAIMS[n])),
    fault("a claim is not there", 4, |it, n| remove(&mut it.claims, ["iss", "aud", "sub", "exp"][n])),
    fault("a claim is not there that nobody needs", 2, |it, n| {
        remove(&mut it.claims, ["nbf", "jti"][n]);
    }),
    fault("iat is not there", 1, |it, _| remove(&mut it.claims, "iat")),
    fault("a claim is empty", 3, |it, n| it.claims[["iss", "aud", "sub"][n]] = json!(""))
        .besides(&[700_211, 700_212, 700_213]),
    fault("it is of another kind", 3, |it, n| {
        let (name, value) = [("iss", json!(5)), ("sub", json!(["x"])), ("exp", json!("soon"))][n].clone();
        it.claims[name] = value;
    }),
    fault("expired", 4, |it, n| it.claims["exp"] = json!(it.now - [330, 3600, 86_400, 1_700_000_000][n])),
    fault("expired a moment ago", 2, |it, n| it.claims["exp"] = json!(it.now - [60, 240][n])),
    fault("not yet valid", 3, |it, n| {
        it.claims["nbf"] = json!(it.now + [360, 1800, 2900][n]);
    }),
    fault("valid in a moment", 2, |it, n| it.claims["nbf"] = json!(it.now + [90, 240][n])),
    fault("soon to expire", 1, |it, _| it.claims["exp"] = json!(it.now + 60)),
    fault("lives for too long", 3, |it, n| {
        let issued = it.now - 600;
        it.claims["exp"] = json!(issued + [90_001, 604_800, 31_536_000][n]);
    }),
    fault("lives for as long as may be", 2, |it, n| {
        let issued = it.now - 600;
        it.claims["exp"] = json!(issued + [90_000, 86_400][n]);
    }),
    fault("a legacy token", 1, |it, _| {
        it.claims = json!({"iss": "kubernetes/serviceaccount", "sub": SUBJECT});
    })
    // Its issuer is not a URL, and not that of any credential.
    .besides(&[700_211, 700_021]),
    fault("the issuer is no URL", 1, |it, _| {
        it.claims["iss"] = json!("cluster.local");
        "cluster.local".clone_into(&mut it.trust().issuer);
    }),
    fault("sub is another", 5, |it, n| {
        let others = [
            "system:serviceaccount:team:other",
            "system:serviceaccount:other:app",
            "system:serviceaccount:team:app ",
            "system:serviceaccount:team:app/",
            "someone",
        ];
        it.claims["sub"] = json!(others[n]);
    }),
    fault("sub differs in case", 2, |it, n| {
        it.claims["sub"] = json!(["system:serviceaccount:team:App", "System:serviceaccount:TEAM:app"][n]);
    }),
    fault("aud is another", 6, |it, n| {
        let others = [
            "api://AzureADTokenExchangeUSGov",
            "https://kubernetes.default.svc",
            "api://azureadtokenexchange",
            "api://AzureADTokenExchange/",
            " api://AzureADTokenExchange",
            "api://AKSIdentityBinding",
        ];
        it.claims["aud"] = json!([others[n]]);
    }),
    fault("aud is no list", 1, |it, _| it.claims["aud"] = it.claims["aud"][0].clone()),
    fault("aud has several", 2, |it, n| {
        let ours = it.claims["aud"][0].clone();
        it.claims["aud"] =
            [json!([ours, "sts.amazonaws.com"]), json!(["sts.amazonaws.com", ours])][n].clone();
    }),
    fault("iss is another", 9, |it, n| {
        let ours = it.issuer.clone();
        let others = [
            format!("{ours}/"),
            ours.to_uppercase().replacen("HTTPS", "https", 1),
            format!("{ours} "),
            format!(" {ours}"),
            "https://oidc.example/other".to_owned(),
            "https://kubernetes.default.svc.cluster.local".to_owned(),
            "https://kubernetes.default.svc".to_owned(),
            ours.replacen("https", "http", 1),
            ours.replacen("oidc.example", "OIDC.example", 1),
        ];
        it.claims["iss"] = json!(others[n]);
    }),
    fault("iss has white space everywhere", 1, |it, _| {
        let spaced = format!("{} ", it.issuer);
        it.claims["iss"] = json!(spaced);
        it.discovery["issuer"] = json!(spaced);
        it.trust().issuer = spaced;
    }),
    fault("iss has a slash everywhere", 1, |it, _| {
        let slashed = format!("{}/", it.issuer);
        it.claims["iss"] = json!(slashed);
        it.discovery["issuer"] = json!(slashed);
        it.trust().issuer = slashed;
    }),
    fault("the issuer is Entra", 3, |it, n| {
        let entra = [ENTRA, ENTRA_V1, "https://login.windows.net/common"][n];
        it.claims["iss"] = json!(entra);
        entra.clone_into(&mut it.trust().issuer);
    })
    .besides(&[700_214]),
    fault("the issuer is on plain http", 1, |it, _| {
        let plain = it.issuer.replacen("https", "http", 1);
        it.claims["iss"] = json!(plain);
        it.discovery["issuer"] = json!(plain);
        it.trust().issuer = plain;
    }),
    fault("the token is of a managed identity", 4, |it, n| {
        it.come_from([ENTRA, ENTRA, ENTRA_ELSEWHERE, ENTRA_USGOV][n], OBJECT);
        of_a_managed_identity(&mut it.claims);
        if n == 1 {
            it.claims["aud"] = json!([AUDIENCE]);
        }
    })
    // Its audience is the exchange's: no other issuer's credential has it, and a credential for Entra no other.
    .besides(&[700_212, 700_214]),
    fault("a token of Entra that it does not take", 7, |it, n| {
        it.come_from(if n == 2 { ENTRA_V1 } else { ENTRA }, OBJECT);
        of_a_managed_identity(&mut it.claims);
        match n {
            0 => {
                it.claims["idtyp"] = json!("user");
                it.claims["scp"] = json!("user_impersonation");
            }
            1 => it.claims["xms_ficinfo"] = json!("CAAQABgAIAAoAjAA"),
            2 => {}
            3 => it.claims["aud"] = json!(["https://graph.microsoft.com"]),
            4 => {
                remove(&mut it.claims, "xms_mirid");
                it.claims["azpacr"] = json!("1");
            }
            5 => EXCHANGE.clone_into(&mut it.trust().audience),
            _ => {
                it.claims["aud"] = json!(["api://of-ours"]);
                "api://of-ours".clone_into(&mut it.trust().audience);
            }
        }
    })
    .besides(&[700_212, 700_214]),
    fault("the application signs itself", 3, |it, n| {
        it.claims["iss"] = json!(it.client);
        if n > 0 {
            it.claims["sub"] = json!(it.client);
        }
        if n > 1 {
            it.claims["aud"] =
                json!([format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token")]);
        }
    }),
    // The text of the token.
    fault("the signature is empty", 1, |it, _| {
        it.damage = Some(|token| token[..signature_at(&token)].to_owned());
    })
    // An empty signature does not verify.
    .besides(&[7_000_274]),
    fault("the token is damaged", 7, |it, n| it.damage = Some(DAMAGES[n])),
    fault("the token is something else", 3, |it, n| it.damage = Some(NO_TOKENS[n])),
    fault("the signature was changed", 2, |it, n| it.damage = Some(FORGERIES[n])),
    fault("a stranger signed it", 1, |it, _| it.sign_as_a_stranger()),
    // The credentials.
    fault("there is no credential", 1, |it, _| it.credentials.clear())
        // Credentials that another fault adds match nothing of ours.
        .besides(&[700_211, 700_212, 700_213]),
    fault("the credential has another issuer", 5, |it, n| {
        let ours = it.issuer.clone();
        let others = [
            format!("{ours}/"),
            ours.to_uppercase().replacen("HTTPS", "https", 1),
            format!("{ours} "),
            "https://oidc.example/other".to_owned(),
            ours.replacen("https", "http", 1),
        ];
        others[n].clone_into(&mut it.trust().issuer);
    }),
    fault("the credential has another subject", 4, |it, n| {
        let others = [
            "system:serviceaccount:team:other",
            "system:serviceaccount:team:app ",
            "system:serviceaccount:team:*",
            "system:serviceaccount:TEAM:app",
        ];
        others[n].clone_into(&mut it.trust().subject);
    }),
    fault("the credential has another audience", 3, |it, n| {
        let others =
            ["api://AzureADTokenExchangeChina", "api://azureADTokenExchange", "api://AzureADTokenExchange "];
        others[n].clone_into(&mut it.trust().audience);
    }),
    fault("another audience on both sides", 1, |it, _| {
        it.claims["aud"] = json!(["api://AzureADTokenExchange-Modified"]);
        "api://AzureADTokenExchange-Modified".clone_into(&mut it.trust().audience);
    }),
    fault("there are other credentials too", 3, |it, n| {
        let ours = it.trust().clone();
        let subject = |subject: &str| Trust { subject: subject.to_owned(), ..ours.clone() };
        let issuer = |issuer: &str| Trust { issuer: issuer.to_owned(), ..ours.clone() };
        let others = [
            vec![subject("system:serviceaccount:team:other")],
            vec![issuer("https://oidc.example/other"), issuer("https://oidc.example")],
            vec![issuer("https://oidc.example/other"), subject("system:serviceaccount:other:app")],
        ];
        it.credentials.splice(0..0, others[n].clone());
    }),
    fault("the credential has an expression", 3, |it, n| {
        let expressions = [
            "claims['sub'] eq 'system:serviceaccount:team:app'",
            "claims['sub'] matches 'system:serviceaccount:other:*'",
            "claims.sub == 'system:serviceaccount:team:app'",
        ];
        it.trust().expression = Some(expressions[n].to_owned());
    })
    // Another subject does not fulfil it.
    .besides(&[7_002_131]),
    fault("an expression for GitHub", 10, |it, n| {
        it.come_from(GITHUB, JOB);
        it.claims["job_workflow_ref"] = json!("team/flows/.github/workflows/build.yml@refs/heads/main");
        it.claims["actor"] = json!("someone");
        let expressions = [
            "claims['sub'] eq 'repo:team/app:ref:refs/heads/main'",
            "claims['sub'] matches 'repo:team/*:ref:refs/heads/*'",
            "claims['sub'] matches 'repo:team/ap?:ref:*' and claims['job_workflow_ref'] matches 'team/flows/*'",
            "claims['sub'] eq 'repo:team/app:ref:refs/heads/other'",
            "claims['sub'] matches 'repo:team/*:environment:*'",
            "claims['sub'] matches 'repo:team/*' and claims['job_workflow_ref'] eq 'team/flows'",
            "claims['sub'] eq 'repo:Team/app:ref:refs/heads/main'",
            "claims['sub'] == 'repo:team/app:ref:refs/heads/main'",
            "claims['sub'] startsWith 'repo:team/app'",
            "claims['actor'] eq 'someone'",
        ];
        it.trust().expression = Some(expressions[n].to_owned());
    }),
    fault("an expression beside a subject", 3, |it, n| {
        it.come_from(GITHUB, JOB);
        let expressions = ["'repo:team/other:*'", "'repo:team/app:*'", "'repo:team/other:*'"];
        if n > 0 {
            "repo:team/app:environment:production".clone_into(&mut it.trust().subject);
        }
        let expression = Some(format!("claims['sub'] matches {}", expressions[n]));
        let flexible = Trust { expression, ..it.trust().clone() };
        it.credentials.push(flexible);
    }),
    // The discovery document.
    fault("discovery has another status", 8, |it, n| it.serving_discovery.status = STATUSES[n]),
    fault("discovery is no JSON", 5, |it, n| it.serving_discovery.body = Some(NO_JSON[n])),
    fault("discovery has a member twice", 2, |it, n| it.serving_discovery.body = Some(TWICE_IN_DISCOVERY[n])),
    fault("discovery lacks a member", 5, |it, n| {
        let names = [
            "jwks_uri",
            "issuer",
            "response_types_supported",
            "subject_types_supported",
            "id_token_signing_alg_values_supported",
        ];
        remove(&mut it.discovery, names[n]);
    }),
    fault("discovery has an empty member", 4, |it, n| {
        let (name, empty) = [
            ("subject_types_supported", json!([])),
            ("authorization_endpoint", json!("")),
            ("jwks_uri", json!("")),
            ("response_types_supported", json!([])),
        ][n]
            .clone();
        it.discovery[name] = empty;
    }),
    fault("discovery has another issuer", 4, |it, n| {
        let ours = it.issuer.clone();
        let others = [
            format!("{ours}/"),
            ours.to_uppercase(),
            "https://kubernetes.default.svc".to_owned(),
            format!("{ours} "),
        ];
        it.discovery["issuer"] = json!(others[n]);
    }),
    fault("jwks_uri leads nowhere", 5, |it, n| {
        let uris = [
            it.issuer.replacen("https", "http", 1) + "/openid/v1/jwks",
            "https://10.96.0.1/openid/v1/jwks".to_owned(),
            "https://nowhere.example/openid/v1/jwks".to_owned(),
            format!("{}/no/such/path", it.issuer),
            "/openid/v1/jwks".to_owned(),
        ];
        it.discovery["jwks_uri"] = json!(uris[n]);
    }),
    fault("discovery redirects", 2, |it, n| it.serving_discovery.redirect = Some(REDIRECTS[n])),
    fault("discovery has another type", 3, |it, n| it.serving_discovery.content_type = TYPES[n]),
    fault("discovery does not name RS256", 1, |it, _| {
        it.discovery["id_token_signing_alg_values_supported"] = json!(["ES256"]);
    }),
    fault("discovery has more", 2, |it, n| {
        let (name, value) = [
            ("claims_supported", json!(["sub", "iss"])),
            ("authorization_endpoint", json!("https://oidc.example/authorize")),
        ][n]
            .clone();
        it.discovery[name] = value;
    }),
    // The keys.
    fault("the JWKS has another status", 8, |it, n| it.serving_jwks.status = STATUSES[n]),
    fault("the JWKS is no JSON", 5, |it, n| it.serving_jwks.body = Some(NO_JSON[n])),
    fault("the JWKS is no JWKS", 4, |it, n| it.serving_jwks.body = Some(NO_JWKS[n])),
    fault("the JWKS has a member twice", 2, |it, n| it.serving_jwks.body = Some(TWICE_IN_JWKS[n])),
    fault("the JWKS is empty", 1, |it, _| it.keys().clear()),
    fault("the key is not there", 1, |it, _| it.keys().retain(|key| key["kid"] != KID)),
    fault("the key is malformed", 5, |it, n| {
        let (name, value) =
            [("n", json!("***")), ("n", json!("")), ("n", json!(5)), ("e", json!("")), ("e", json!("*"))][n]
                .clone();
        it.key()[name] = value;
    }),
    fault("the key lacks a member", 3, |it, n| remove(it.key(), ["n", "e", "kid"][n])),
    fault("another key is malformed", 2, |it, n| {
        if let Some(first) = it.keys().first_mut() {
            first["n"] = [json!("***"), json!(5)][n].clone();
        }
    }),
    fault("use is not sig", 3, |it, n| match n {
        0 => remove(it.key(), "use"),
        1 => it.key()["use"] = json!("enc"),
        _ => it.key()["use"] = json!("SIG"),
    }),
    fault("the key has no alg", 1, |it, _| remove(it.key(), "alg")),
    fault("the key has another alg", 2, |it, n| it.key()["alg"] = json!(["RS512", "PS256"][n])),
    fault("the key has more", 2, |it, n| {
        let (name, value) = [("x5t", json!("abc")), ("key_ops", json!(["verify"]))][n].clone();
        it.key()[name] = value;
    }),
    fault("the key is another of the same name", 1, |it, _| {
        let other = it.key_of_a_stranger(KID);
        *it.key() = other;
    }),
    fault("the name stands twice", 2, |it, n| {
        let other = it.key_of_a_stranger(KID);
        let at = [0, it.keys().len()][n];
        it.keys().insert(at, other);
    }),
    fault("there are keys of other kinds", 3, |it, n| {
        let others = [
            json!({"use": "sig", "kty": "EC", "kid": "ec", "alg": "ES256", "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}),
            json!({"use": "sig", "kty": "OKP", "kid": "okp", "alg": "EdDSA", "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            json!({"use": "sig", "kty": "AKP", "kid": "akp", "alg": "ML-DSA-44", "pub": "AAAA"}),
        ];
        it.keys().insert(0, others[n].clone());
    }),
    fault("there are too many keys", 2, |it, n| {
        let others: Vec<_> = (0..100).map(|i| it.key_of_a_stranger(&format!("other-{i}"))).collect();
        let at = [0, it.keys().len()][n];
        it.keys().splice(at..at, others);
    }),
    fault("there are as many keys as may be", 1, |it, _| {
        let others: Vec<_> = (0..98).map(|i| it.key_of_a_stranger(&format!("other-{i}"))).collect();
        it.keys().splice(0..0, others);
    }),
    fault("the key is weak", 1, |it, _| it.sign_weakly())
        // Issuers that situations share do not publish it.
        .besides(&[7_000_274]),
    fault("the private key is public", 1, |it, _| it.key()["d"] = json!("AQAB")),
    fault("the JWKS redirects", 2, |it, n| it.serving_jwks.redirect = Some(REDIRECTS[n])),
    fault("the JWKS has another type", 3, |it, n| it.serving_jwks.content_type = TYPES[n]),
];

/// The subject of a job of GitHub, and the object ID of a managed identity.
const JOB: &str = "repo:team/app:ref:refs/heads/main";
const OBJECT: &str = "55555555-5555-4555-8555-555555555555";

fn of_a_managed_identity(claims: &mut Value) {
    let name = "/subscriptions/group/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity";
    let members = [
        ("oid", json!(OBJECT)),
        ("aud", json!([EXCHANGE])),
        ("idtyp", json!("app")),
        ("azpacr", json!("2")),
        ("xms_mirid", json!(name)),
    ];
    for (member, value) in members {
        claims[member] = value;
    }
}

const REDIRECTS: [Redirect; 2] = [Redirect::ToTheDocument, Redirect::Round];
const TYPES: [&str; 3] = ["text/plain", "application/octet-stream", "application/jwk-set+json"];
const NO_JSON: [fn(String) -> Vec<u8>; 5] = [
    |_| b"<!doctype html><title>Not Found</title>".to_vec(),
    |text| text.as_bytes()[..text.len() / 2].to_vec(),
    |_| Vec::new(),
    |_| b"[]".to_vec(),
    |text| [b"\xef\xbb\xbf", text.as_bytes()].concat(),
];

const NO_JWKS: [fn(String) -> Vec<u8>; 4] = [
    |_| b"{}".to_vec(),
    |_| br#"{"keys":{}}"#.to_vec(),
    |_| br#"{"keys":["one"]}"#.to_vec(),
    |_| br#"{"keys":null}"#.to_vec(),
];

/// One member twice: parsers differ in which of the two they use.
const TWICE_IN_HEADER: [fn(String) -> String; 3] = [
    |text| first(&text, r#""alg":"none""#),
    |text| last(&text, r#""alg":"none""#),
    |text| last(&text, r#""kid":"another""#),
];
const TWICE_IN_CLAIMS: [fn(String) -> String; 4] = [
    |text| first(&text, r#""sub":"system:serviceaccount:team:other""#),
    |text| last(&text, r#""sub":"system:serviceaccount:team:other""#),
    |text| first(&text, r#""exp":1"#),
    |text| last(&text, r#""aud":["https://kubernetes.default.svc"]"#),
];
const TWICE_IN_DISCOVERY: [fn(String) -> Vec<u8>; 2] = [
    |text| first(&text, r#""issuer":"https://elsewhere.example""#).into_bytes(),
    |text| last(&text, r#""jwks_uri":"https://elsewhere.example/jwks""#).into_bytes(),
];
const TWICE_IN_JWKS: [fn(String) -> Vec<u8>; 2] =
    [|text| first(&text, r#""keys":[]"#).into_bytes(), |text| last(&text, r#""keys":[]"#).into_bytes()];

/// The object with another member before the existing ones.
fn first(object: &str, member: &str) -> String {
    object.replacen('{', &format!("{{{member},"), 1)
}

/// The object with another member after the existing ones.
fn last(object: &str, member: &str) -> String {
    let members = object.strip_suffix('}').expect("an object");
    format!("{members},{member}}}")
}

const DAMAGES: [fn(String) -> String; 7] = [
    |token| token[..signature_at(&token) - 1].to_owned(),
    |token| format!("{token}\n"),
    |token| format!(" {token}"),
    |token| format!("\"{token}\""),
    |token| format!("{token}.{token}"),
    |token| token.replacen("eyJ", "!!!", 1),
    |token| format!("Bearer {token}"),
];
const NO_TOKENS: [fn(String) -> String; 3] =
    [|_| "-----BEGIN".to_owned(), |_| "e30".to_owned(), |_| "W10.W10.AA".to_owned()];
const FORGERIES: [fn(String) -> String; 2] = [
    |token| {
        let at = signature_at(&token) + 4;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &token[..at], &token[at + 1..])
    },
    |token| format!("{}AAAA", &token[..signature_at(&token)]),
];

fn signature_at(token: &str) -> usize {
    token.rfind('.').expect("a JWT") + 1
}

fn remove(value: &mut Value, member: &str) {
    value.as_object_mut().expect("an object").remove(member);
}
