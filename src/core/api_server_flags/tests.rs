use super::*;

const GOOD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  - name: sidecar
    image: example/other:v1.20.0
    command: [other]
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.37.1
    command:
    - kube-apiserver
    - --advertise-address=10.0.0.1
    - --service-account-issuer=https://issuer.example
    - --service-account-signing-endpoint=/run/signpost/signer.sock
    - --service-account-max-token-expiration=24h0m0s
    volumeMounts:
    - {mountPath: /etc/kubernetes/pki, name: certs, readOnly: true}
    - {mountPath: /run/signpost, name: signer}
  hostNetwork: true
  volumes:
  - {name: certs, hostPath: {path: /etc/kubernetes/pki, type: DirectoryOrCreate}}
  - {name: signer, hostPath: {path: /run/signpost, type: Directory}}
";

fn found(text: &str, socket: &str) -> Vec<Finding> {
    let signer = Signer {
        socket: &SocketName::parse(socket).expect("a socket"),
        issuer: &Issuer::parse("https://issuer.example").expect("an issuer"),
        api_audiences: &BTreeSet::from(["https://issuer.example".to_owned()]),
        max_token_lifetime: Duration::from_hours(24),
    };
    check(&Launch::parse(text).expect(text), &signer)
}

/// What is wrong with the good manifest after a change, as `about: observed`.
#[track_caller]
fn wrong_with(before: &str, after: &str) -> String {
    assert!(GOOD.contains(before), "{before}");
    let findings = found(&GOOD.replacen(before, after, 1), "/run/signpost/signer.sock");
    let wrong: Vec<_> = findings.iter().filter(|finding| !finding.fits).collect();
    assert!(wrong.iter().all(|finding| finding.fix.is_some()));
    wrong
        .iter()
        .map(|finding| format!("{}: {}", finding.about, finding.observed))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn an_api_server_that_fits_has_nothing_wrong() {
    assert_eq!(wrong_with("10.0.0.1", "10.0.0.2"), "");
    assert_eq!(found(GOOD, "/run/signpost/signer.sock").len(), 7);
}

#[test]
fn whatever_kube_apiserver_would_exit_over_is_found() {
    let endpoint = "--service-account-signing-endpoint=/run/signpost/signer.sock";
    let issuer = "--service-account-issuer=https://issuer.example";
    let lifetime = "expiration=24h0m0s";
    for (before, after, expected) in [
        (endpoint, "--v=2", "endpoint: --service-account-signing-endpoint is missing"),
        (
            "endpoint=/run",
            "endpoint=unix:///run",
            "endpoint: `unix:///run/signpost/signer.sock` has a scheme",
        ),
        (
            "--advertise-address=10.0.0.1",
            "--service-account-key-file=/sa.pub",
            "key files: --service-account-key-file beside",
        ),
        (
            "--advertise-address=10.0.0.1",
            "--service-account-signing-key-file=/sa.key",
            "key files: --service-account-signing-key-file beside",
        ),
        (
            issuer,
            "--service-account-issuer=https://other.example",
            "issuer: tokens say `https://other.example`",
        ),
        (
            issuer,
            "--service-account-issuer=https://issuer.example/",
            "issuer: tokens say `https://issuer.example/`",
        ),
        (
            lifetime,
            "expiration=48h",
            "lifetime: --service-account-max-token-expiration=48h is more than the 86400 s",
        ),
        (lifetime, "expiration=30m", "lifetime: --service-account-max-token-expiration=30m is less than 1h"),
        (
            lifetime,
            "expiration=long",
            "lifetime: --service-account-max-token-expiration=`long` is no duration",
        ),
        (
            "--advertise-address=10.0.0.1",
            "--api-audiences=api",
            "audiences: `https://issuer.example` is not of",
        ),
        (
            "--advertise-address=10.0.0.1",
            "--api-audiences=api,https://issuer.example",
            "audiences: `api` is unknown to the signer",
        ),
        (
            "{mountPath: /run/signpost, name: signer}",
            "{mountPath: /x, name: signer}",
            "is in no hostPath volume",
        ),
        (
            "hostPath: {path: /run/signpost,",
            "hostPath: {path: /run/other,",
            "socket: the pod finds `/run/other/signer.sock`",
        ),
        ("{mountPath: /run/signpost, ", "{mountPath: /run/signpost/signer.sock, ", "is mounted by itself"),
        (
            "kube-apiserver:v1.37.1",
            "kube-apiserver:v1.33.0",
            "version: Kubernetes 1.33 asks no signer for `v1`",
        ),
        (
            "--advertise-address=10.0.0.1",
            "--feature-gates=A=true,ExternalServiceAccountTokenSigner=false",
            "version: the feature gate ExternalServiceAccountTokenSigner is off",
        ),
    ] {
        let wrong = wrong_with(before, after);
        assert!(wrong.contains(expected), "{after}: {wrong}");
    }
    assert_eq!(wrong_with(lifetime, "expiration=0s"), "");
}

#[test]
fn a_command_line_is_read_in_every_form() {
    let line = "/usr/bin/kube-apiserver --service-account-issuer https://issuer.example --v=2 \
                --service-account-signing-endpoint=@signpost";
    for text in [line.to_owned(), line.replace(' ', "\0"), line.replace(' ', "\n")] {
        let findings = found(&text, "@signpost");
        assert!(findings.iter().all(|finding| finding.fits), "{findings:?}");
        assert_eq!(findings.len(), 5, "nothing is said of a pod: {findings:?}");
    }
    let findings = found(line, "@other");
    assert_eq!(findings[0].observed, "`@signpost`, the signer listens at `@other`");
}

#[test]
fn a_name_without_a_file_needs_the_network_of_the_machine() {
    let text = GOOD.replace("=/run/signpost/signer.sock", "=@signpost");
    assert!(found(&text, "@signpost").iter().all(|finding| finding.fits));
    let findings = found(&text.replace("hostNetwork: true", "hostNetwork: false"), "@signpost");
    assert!(findings.iter().any(|finding| finding.about == "socket" && !finding.fits));
}

#[test]
fn what_is_no_api_server_is_refused() {
    assert_eq!(
        Launch::parse("kind: Pod\nspec: {containers: [{command: [etcd]}]}"),
        Err(NoApiServer::Container)
    );
    for text in ["", "kube-apiserver", "a: b"] {
        assert_eq!(Launch::parse(text), Err(NoApiServer::Flags), "{text}");
    }
}
