use serde_json::{Value, json};

use super::{COULD_NOT, Transcript};
use crate::support::port::Port;

fn kubeconfig(cluster: &Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": "sesame"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    })
    .to_string()
}

#[test]
fn clusters_that_cannot_be_asked_are_named_with_what_to_do() {
    let nobody = Port::free();
    let server = format!("https://{}", nobody.address());
    let mut it = Transcript::new();
    it.replace(nobody.address(), "ADDRESS");
    let path = it.path("kubeconfig");
    let mut refuses = |what: &str, content: Option<String>, context: &str| {
        if let Some(content) = content {
            it.write("kubeconfig", content);
        }
        let sync = format!("sync --issuer https://k8s.example --source {context} --target out");
        it.refuses_silently(&sync, COULD_NOT, |it| it.env("KUBECONFIG", &path));
        let jwks = format!("jwks --issuer https://k8s.example --source {context} --output-dir out");
        it.refuses_with(what, &jwks, COULD_NOT, |it| it.env("KUBECONFIG", &path));
    };
    refuses("no cluster around", None, "kubernetes");
    refuses("a missing kubeconfig", None, "kubernetes:test");
    refuses("no YAML", Some("clusters: [\n".to_owned()), "kubernetes:test");
    refuses("another shape", Some("clusters: sesame\n".to_owned()), "kubernetes:test");
    refuses("an unknown context", Some(kubeconfig(&json!({"server": server}))), "kubernetes:production");
    refuses(
        "an authority that is no base64",
        Some(kubeconfig(&json!({"server": server, "certificate-authority-data": "%%%"}))),
        "kubernetes:test",
    );
    refuses(
        "an authority that is missing",
        Some(kubeconfig(&json!({"server": server, "certificate-authority": "/nowhere/ca.crt"}))),
        "kubernetes:test",
    );
    refuses("a server that is no URL", Some(kubeconfig(&json!({"server": "a b"}))), "kubernetes:test");
    refuses("nobody there", Some(kubeconfig(&json!({"server": server}))), "kubernetes:test");
    let with_plugin = |exec: &Value| {
        let mut config: Value = serde_json::from_str(&kubeconfig(&json!({"server": server}))).expect("JSON");
        config["users"][0]["user"] = json!({"exec": exec});
        Some(config.to_string())
    };
    let plugin = |command: &str, more: &Value| {
        let mut exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never",
            "args": ["--secret", "sesame"], "env": [{"name": "CLIENT_SECRET", "value": "sesame"}],
        });
        exec.as_object_mut().expect("it is one").extend(more.as_object().expect("it is one").clone());
        with_plugin(&exec)
    };
    refuses("a credential plugin that is not there", plugin("kubelogin", &json!({})), "kubernetes:test");
    let install = json!({"installHint": "kubelogin is needed.\nSee https://aka.ms/aks/kubelogin"});
    refuses(
        "a credential plugin whose makers say how to have it",
        plugin("kubelogin", &install),
        "kubernetes:test",
    );
    refuses("a credential plugin that fails", plugin("false", &json!({})), "kubernetes:test");
    refuses("a credential plugin that says nothing", plugin("true", &json!({})), "kubernetes:test");
    let proxied = json!({"server": server, "proxy-url": "http://user:sesame@[proxy"});
    refuses("a proxy that is no URL", Some(kubeconfig(&proxied)), "kubernetes:test");
    assert!(!it.text.contains("sesame"), "a credential is shown: {}", it.text);
    it.write("kubeconfig", kubeconfig(&json!({"server": server})));
    it.refuses_with(
        "a token from nobody",
        "token --source kubernetes:test --service-account team/app",
        COULD_NOT,
        |it| it.env("KUBECONFIG", &path),
    );
    it.compare("kubeconfigs");
}
