use std::fs;

use super::{COULD_NOT, Transcript};

const MANY_FAULTS: &str = r#"
lsten: 0.0.0.0:8080
admin_listen: 9090
data_dir: relative/dir
issuers:
  - issuer: https://k8s.example?tenant=1
    profile: entr
    jwks_max_age: 2h
    max_token_lifetime: 1 day
    allow_issuer_mismatch: perhaps
    sources:
      - {kind: api-sever}
      - {kind: api-server, probe: signpost, instances: [{url: "https://10.0.0.1:6443", servername: x}]}
      - {kind: files, paths: [], path: /x}
      - kind: files
        paths: [sa.pub]
    targets:
      - {url: "az://account"}
      - {url: "ftp://x/y"}
      - {url: "s3://bucket", public_url: "not a url"}
    schedule: "* * * *"
"#;

const GOOD: &str =
    "data_dir: /nowhere\nissuers:\n  - issuer: https://k8s.example\n    sources: [{kind: embedded}]\n";

#[test]
fn all_faults_of_a_configuration_are_named_at_once() {
    let mut it = Transcript::new();
    it.write("faults.yaml", MANY_FAULTS);
    for verb in ["config check", "run", "sync", "jwks --output-dir out"] {
        it.refuses_silently(&format!("{verb} --config faults.yaml"), COULD_NOT, |it| it);
    }
    it.refuses("many faults", "config check --config faults.yaml", COULD_NOT);
    it.refuses("faults in flags and file", "config show --config faults.yaml --listen x", COULD_NOT);
    it.write("list.yaml", "- a\n- b\n");
    it.refuses("a list", "config check --config list.yaml", COULD_NOT);
    it.write("empty.yaml", "");
    it.refuses("an empty file", "config check --config empty.yaml", COULD_NOT);
    it.write("syntax.yaml", "listen: 0.0.0.0:80\nissuers: [\n  a: b\n");
    it.refuses("no YAML", "config check --config syntax.yaml", COULD_NOT);
    it.write("tab.yaml", "issuers:\n\t- issuer: https://k8s.example\n");
    it.refuses("a tab", "config check --config tab.yaml", COULD_NOT);
    it.write("twice.yaml", format!("{GOOD}data_dir: /other\n"));
    it.refuses("a key twice", "config check --config twice.yaml", COULD_NOT);
    it.write("latin.yaml", b"data_dir: /caf\xe9\n");
    it.refuses("no UTF-8", "config check --config latin.yaml", COULD_NOT);
    it.write("control.yaml", "data_dir: \"\\u001b[31m\"\nissuers: []\n");
    it.refuses("characters that draw on a terminal", "config check --config control.yaml", COULD_NOT);
    it.refuses("a missing file", "config check --config gone.yaml", COULD_NOT);
    fs::create_dir(it.path("folder")).expect("the folder is ours");
    it.refuses("a file without an end", "config check --config /dev/zero", COULD_NOT);
    it.refuses("a directory", "config check --config folder", COULD_NOT);
    it.compare("configurations");
}

#[test]
fn events_are_about_a_pod() {
    let mut it = Transcript::new();
    let refuses = |it: &mut Transcript, what: &str, events: &str| {
        it.write("events.yaml", format!("{GOOD}events: {events}\n"));
        it.refuses(what, "run --config events.yaml", COULD_NOT);
    };
    refuses(&mut it, "a pod without a namespace", "{pod: signpost-0}");
    refuses(&mut it, "a pod that is none", "{pod: signpost/Signpost_0}");
    refuses(&mut it, "a UID without a pod", "{pod_uid: 6f1c6f0c, kubeconfig: ~/.kube/config}");
    refuses(&mut it, "another word", "{pod: signpost/signpost-0, namespace: signpost}");
    refuses(&mut it, "on", "true");
    it.write("good.yaml", GOOD);
    it.refuses("a flag", "run --config good.yaml --events-pod signpost", COULD_NOT);
    it.compare("events");
}
