//! The signing node, and the timing of its rotation.

use super::{COULD_NOT, Transcript};

fn refuses(it: &mut Transcript, what: &str, issuer: &str) {
    let head =
        "data_dir: /nowhere\nissuers:\n  - issuer: https://k8s.example\n    sources: [{kind: api-server}]\n";
    it.write("signer.yaml", format!("{head}    {issuer}\n"));
    it.refuses(what, "signer --config signer.yaml", COULD_NOT);
}

#[test]
fn what_a_signer_is_told_is_checked() {
    let mut it = Transcript::new();
    refuses(&mut it, "no signer", "margin: 1h");
    refuses(&mut it, "a signer that is no mapping", "signer: /run/signer.sock");
    refuses(&mut it, "nobody to sign for", "signer: {node: cp-1}");
    refuses(&mut it, "a socket in the working directory", "signer: {socket: signer.sock}");
    refuses(&mut it, "a socket as gRPC names it", "signer: {socket: 'unix:///run/signer.sock'}");
    refuses(&mut it, "a socket without a name", "signer: {socket: '@'}");
    let long = format!("signer: {{socket: /run/{}}}", "s".repeat(110));
    refuses(&mut it, "a socket longer than the kernel allows", &long);
    refuses(&mut it, "a mode of nobody", "signer: {socket: '@s', mode: '0066'}");
    refuses(&mut it, "a mode that is a number", "signer: {socket: '@s', mode: 660}");
    refuses(&mut it, "a mode in letters", "signer: {socket: '@s', mode: 'u=rw'}");
    refuses(&mut it, "a group by its name", "signer: {socket: '@s', group: kube}");
    refuses(&mut it, "users by their names", "signer: {socket: '@s', users: [kube, '-1', '65532']}");
    refuses(&mut it, "a node that Kubernetes has not", "signer: {socket: '@s', node: CP_1}");
    refuses(&mut it, "audiences in a word", "signer: {socket: '@s', api_audiences: kubernetes}");
    refuses(&mut it, "a hint that is none", "signer: {socket: '@s', refresh_hint: 0s}");
    refuses(&mut it, "a hint once a day", "signer: {socket: '@s', refresh_hint: 24h}");
    refuses(&mut it, "a key that Entra refuses", "signer: {socket: '@s', key_type: es256}");
    refuses(&mut it, "a short key", "signer: {socket: '@s', key_type: rs256-1024}");
    refuses(
        &mut it,
        "keys of before without a file",
        "signer: {socket: '@s', additional_verification_keys: [{exclude: true}]}",
    );
    refuses(
        &mut it,
        "keys of before by themselves",
        "signer: {socket: '@s', additional_verification_keys: [/etc/sa.pub, {file: sa.pub}]}",
    );
    refuses(&mut it, "a key of an issuer", "signer: {socket: '@s', margin: 1h}");
    refuses(
        &mut it,
        "tokens that Kubernetes cannot make",
        "max_token_lifetime: 9m\n    signer: {socket: '@s'}",
    );
    it.write("two.yaml", "data_dir: /nowhere\nissuers:\n  - {issuer: 'https://a.example', sources: [{kind: api-server}], signer: {socket: '@a'}}\n  - {issuer: 'https://b.example', sources: [{kind: api-server}], signer: {socket: '@b'}}\n");
    it.refuses("two at once", "signer --config two.yaml", COULD_NOT);
    refuses(
        &mut it,
        "everything at once",
        "signer: {sokcet: '@s', mode: rw, group: kube, users: [kube], node: '', refresh_hint: never, key_type: rsa, additional_verification_keys: [{}]}",
    );
    it.refuses("flags", "signer --issuer https://k8s.example --socket signer.sock --node CP_1", COULD_NOT);
    it.compare("signers");
}

#[test]
fn times_of_a_rotation_are_checked() {
    let mut it = Transcript::new();
    let mut wrong = |what: &str, issuer: &str| {
        let head = "data_dir: /nowhere\nissuers:\n  - issuer: https://k8s.example\n";
        let sources = "    sources: [{kind: announcements, directory: /a, every: 5m}]\n";
        it.write("rotation.yaml", format!("{head}{sources}    {issuer}\n"));
        it.refuses(what, "run --config rotation.yaml", COULD_NOT);
    };
    wrong("a word", "rotate_after: monthly");
    wrong("days", "rotate_after: 30d");
    wrong("before its successor is ready", "rotate_after: 25h");
    wrong("before anybody has read the last one", "propagation: 9m");
    wrong("as long as a copy lives", "jwks_max_age: 1h\n    propagation: 1h\n    rotate_after: 2h");
    wrong("more keys than anybody reads", "max_token_lifetime: 8760h\n    rotate_after: 26h");
    wrong("a window that is none", "rotate_within: sunday");
    wrong("a window without an end", "rotate_within: {opens: '0 2 * * SUN'}");
    wrong("a window without a beginning", "rotate_within: {for: 4h}");
    wrong("too few fields", "rotate_within: {opens: '0 2 *', for: 4h}");
    wrong("too many fields", "rotate_within: {opens: '0 0 2 * * SUN', for: 4h}");
    wrong("an hour that is none", "rotate_within: {opens: '0 24 * * SUN', for: 4h}");
    wrong("a nickname", "rotate_within: {opens: '@weekly', for: 4h}");
    wrong("a day that never comes", "rotate_within: {opens: '0 2 31 2 *', for: 4h}");
    wrong("a moment", "rotate_within: {opens: '0 2 * * SUN', for: 0s}");
    wrong("a fortnight", "rotate_within: {opens: '0 2 * * SUN', for: 336h}");
    wrong("shorter than a poll", "rotate_within: {opens: '0 2 * * SUN', for: 5m}");
    wrong("a zone by its letters", "rotate_within: {opens: '0 2 * * SUN', for: 4h, time_zone: CEST}");
    wrong("a zone that is an offset", "rotate_within: {opens: '0 2 * * SUN', for: 4h, time_zone: '+02:00'}");
    wrong(
        "a zone outside of the database",
        "rotate_within: {opens: '0 2 * * SUN', for: 4h, time_zone: '../../etc/passwd'}",
    );
    wrong("another word", "rotate_within: {schedule: '0 2 * * SUN', for: 4h}");
    wrong(
        "everything at once",
        "rotate_after: 1h\n    propagation: 1s\n    rotate_within: {opens: sunday, for: long, time_zone: Amsterdam}",
    );
    it.compare("rotations");
}

#[test]
fn what_is_to_be_verified_is_checked() {
    let mut it = Transcript::new();
    let mut wrong = |what: &str, issuer: &str| {
        let head = "data_dir: /nowhere\nissuers:\n  - issuer: https://k8s.example\n";
        it.write("verify.yaml", format!("{head}    {issuer}\n"));
        it.refuses(what, "run --config verify.yaml", COULD_NOT);
    };
    let cluster = |verify: &str| format!("sources: [{{kind: api-server}}]\n    verify: {verify}");
    wrong("a word", &cluster("entra"));
    wrong("never", &cluster("{every: 0s}"));
    wrong("once a week", &cluster("{every: 168h}"));
    wrong("a party that is none", &cluster("{for: azure}"));
    wrong("two parties", &cluster("{for: [entra, aws]}"));
    wrong("a cloud that is closed", &cluster("{cloud: germany}"));
    wrong("a cloud of somebody else", &cluster("{for: aws, cloud: public}"));
    wrong("for whom Google wants it", &cluster("{for: gcp}"));
    wrong("for nobody", &cluster("{audience: ''}"));
    wrong("an account without a namespace", &cluster("{service_account: signpost}"));
    wrong("a misspelt key", &cluster("{audiences: me}"));
    wrong("nobody who gives tokens", "sources: [{kind: files, paths: [/srv/sa.pub]}]\n    verify: {}");
    wrong(
        "everything at once",
        "sources: [{kind: files, paths: [/srv/sa.pub]}]\n    verify: {every: often, for: gcp, cloud: china, service_account: x, allow_private: 1}",
    );
    it.compare("verifications");
}
