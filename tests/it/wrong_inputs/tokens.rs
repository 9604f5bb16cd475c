use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::{Value, json};

use super::{COULD_NOT, NO, Transcript};
use crate::support::port::Port;

const ISSUER: &str = "https://k8s.example";
struct Cluster {
    key: PKey<Private>,
    kid: String,
}

impl Cluster {
    fn claims() -> Value {
        let now = signpost::clock::now().as_second();
        json!({
            "iss": ISSUER,
            "sub": "system:serviceaccount:team:app",
            "aud": ["api://AzureADTokenExchange"],
            "iat": now - 60,
            "exp": now + 3540,
        })
    }

    fn header(&self) -> Value {
        json!({"alg": "RS256", "kid": self.kid})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).expect("RS256");
        let signature = signer.sign_oneshot_to_vec(input.as_bytes()).expect("it is an RSA key");
        format!("{input}.{}", encode(signature))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    openssl::base64::encode_block(bytes.as_ref()).replace('+', "-").replace('/', "_").replace(['=', '\n'], "")
}

fn with(mut value: Value, member: &str, new: Value) -> Value {
    value[member] = new;
    value
}

fn without(mut value: Value, member: &str) -> Value {
    value.as_object_mut().expect("an object").remove(member);
    value
}

#[test]
fn tokens_that_a_relying_party_would_refuse_are_refused_with_the_fix() {
    let mut it = Transcript::new();
    let key = Rsa::generate(2048).and_then(PKey::from_rsa).expect("OpenSSL makes RSA keys");
    it.write("sa.pub", key.public_key_to_pem().expect("a key has PEM"));
    it.succeeds("jwks --source sa.pub --issuer https://k8s.example --output-dir public");
    let jwks: Value = serde_json::from_str(&it.succeeds("jwks --source sa.pub").stdout).expect("JSON");
    let cluster = Cluster { key, kid: jwks["keys"][0]["kid"].as_str().expect("a kid").to_owned() };
    it.replace(&cluster.kid, "KID");
    let good = cluster.sign(&cluster.header(), &Cluster::claims());
    let documents = "--discovery public/.well-known/openid-configuration --jwks public/openid/v1/jwks";
    let verify = format!("verify --token - {documents} --issuer {ISSUER}");
    let mut refuses = |what: &str, token: &str| it.refuses_with(what, &verify, NO, |it| it.stdin(token));
    let claims = Cluster::claims;

    refuses("no signature", good.rsplit_once('.').expect("three parts").0);
    refuses("one word", "token");
    refuses("quotation marks", &format!("\"{good}\""));
    refuses("Bearer", &format!("Bearer {good}"));
    refuses("not base64url", &good.replacen('.', "=.", 1));
    refuses("not JSON", &format!("{}.{}.{}", encode("a"), encode("b"), encode("c")));
    let header = cluster.header().to_string().replacen('{', r#"{"alg":"none","#, 1);
    refuses(
        "an algorithm twice",
        &format!("{}.{}.{}", encode(header), encode(claims().to_string()), encode("c")),
    );
    refuses("too long", &"a".repeat(20_001));
    let old = with(claims(), "iat", json!(1_699_999_000));
    refuses("expired", &cluster.sign(&cluster.header(), &with(old, "exp", json!(1_700_000_000))));
    refuses(
        "from the future",
        &cluster.sign(&cluster.header(), &with(claims(), "nbf", json!(4_102_444_800_i64))),
    );
    let slash = with(claims(), "iss", json!(format!("{ISSUER}/")));
    refuses("a slash too many", &cluster.sign(&cluster.header(), &slash));
    refuses("ES256", &cluster.sign(&with(cluster.header(), "alg", json!("ES256")), &claims()));
    let drawing = with(cluster.header(), "typ", json!("\u{1b}[2J\naccepted: \u{202e}"));
    refuses("a type that draws on the terminal", &cluster.sign(&drawing, &claims()));
    refuses("without kid", &cluster.sign(&without(cluster.header(), "kid"), &claims()));
    refuses("of an unknown key", &cluster.sign(&with(cluster.header(), "kid", json!("other")), &claims()));
    let (rest, signature) = good.rsplit_once('.').expect("three parts");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    refuses("a changed signature", &format!("{rest}.{first}{}", &signature[1..]));
    let legacy = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:team:app"});
    refuses("a legacy token from a Secret", &cluster.sign(&cluster.header(), &legacy));
    for nothing in ["", "\n\n"] {
        it.refuses_with("nothing at all", &verify, COULD_NOT, |it| it.stdin(nothing));
    }
    it.refuses_with(
        "another audience and subject, for programs",
        &format!("{verify} --audience sts.amazonaws.com --subject somebody --output json"),
        NO,
        |it| it.stdin(&good),
    );
    assert!(!it.text.contains(&signature[..20]), "a token is shown");
    it.compare("tokens");
}

#[test]
fn what_cannot_be_read_is_no_verdict() {
    let mut it = Transcript::new();
    let nobody = Port::free();
    it.replace(nobody.address(), "ADDRESS");
    it.refuses("a missing token", "verify --token gone", COULD_NOT);
    it.write("token", "a.b.c");
    it.refuses("a missing JWKS", "verify --token token --jwks gone", COULD_NOT);
    it.refuses("a directory for a token", "verify --token .", COULD_NOT);
    let ask = format!("verify --issuer http://{}", nobody.address());
    it.refuses("nobody there", &ask, COULD_NOT);
    it.compare("unread");
}
