use super::{COULD_NOT, Transcript};

const FAULTS: &str = r#"
data_dir: /nowhere
issuers:
  - issuer: https://k8s.example
    sources:
      - {kind: url}
      - {kind: url, name: plain, url: "http://10.0.0.1/openid/v1/jwks"}
      - {kind: url, name: user, url: "https://me:SECRET@10.0.0.1/openid/v1/jwks"}
      - {kind: url, name: query, url: "https://10.0.0.1/openid/v1/jwks?sig=SECRET"}
      - {kind: url, name: fragment, url: "https://10.0.0.1/openid/v1/jwks#keys"}
      - {kind: url, name: file, url: "file:///etc/jwks.json"}
      - {kind: url, name: token, url: "https://10.0.0.1/jwks", bearer_token_file: token}
      - {kind: url, name: inline, url: "https://10.0.0.1/jwks", bearer_token: SECRET}
      - {kind: url, name: ca, url: "https://10.0.0.1/jwks", ca_file: ./ca.crt}
      - {kind: url, name: twice, url: "https://10.0.0.1/jwks"}
      - {kind: url, name: twice, url: "https://10.0.0.2/jwks"}
      - {kind: api-server, name: both, discover: true, instances: [{url: "https://10.0.0.1:6443"}]}
      - {kind: api-server, name: maybe, discover: maybe}
      - {kind: files, name: files, paths: [/keys], optional: 1}
"#;

#[test]
fn all_faults_of_sources_are_named_at_once() {
    let mut it = Transcript::new();
    it.write("faults.yaml", FAULTS);
    it.refuses("many faults", "config check --config faults.yaml", COULD_NOT);
    it.refuses("a URL without its word", "jwks --source https://10.0.0.1/openid/v1/jwks", COULD_NOT);
    it.refuses("a word without its URL", "jwks --source url:", COULD_NOT);
    it.refuses("a URL without encryption", "jwks --source url:http://10.0.0.1/openid/v1/jwks", COULD_NOT);
    it.refuses("nobody there", "jwks --source url:http://127.0.0.1:1/openid/v1/jwks", COULD_NOT);
    it.compare("sources");
}
