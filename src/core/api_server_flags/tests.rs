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
        has_additional_keys: false,
        listens: None,
    };
    check(&ApiServerConfig::parse(text).expect(text), &signer)
}

#[test]
fn a_signer_that_does_not_listen_yet_is_noted() {
    let socket = SocketName::parse("/run/signpost/signer.sock").expect("a socket");
    let issuer = Issuer::parse("https://issuer.example").expect("an issuer");
    let api_audiences = BTreeSet::from(["https://issuer.example".to_owned()]);
    let launch = ApiServerConfig::parse(GOOD).expect("good");
    let endpoint = |listens| {
        let max_token_lifetime = Duration::from_hours(24);
        let signer = Signer {
            socket: &socket,
            issuer: &issuer,
            api_audiences: &api_audiences,
            max_token_lifetime,
            has_additional_keys: false,
            listens,
        };
        check(&launch, &signer).swap_remove(0)
    };
    for unknown in [None, Some(true)] {
        assert_eq!(
            (endpoint(unknown).observed.as_str(), endpoint(unknown).fix),
            ("`/run/signpost/signer.sock`", None)
        );
    }
    let noted = endpoint(Some(false));
    assert!(noted.fits, "it may be started next");
    assert_eq!(noted.observed, "`/run/signpost/signer.sock`, where nothing listens yet");
    assert!(noted.fix.is_some_and(|fix| fix.contains("start `signpost signer` first")));
}

/// The findings about the good manifest after a change, as `about: observed`.
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
    assert_eq!(found(GOOD, "/run/signpost/signer.sock").len(), 8);
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
            "key files: --service-account-key-file is set: kube-apiserver exits",
        ),
        (
            "--advertise-address=10.0.0.1",
            "--service-account-signing-key-file=/sa.key",
            "key files: --service-account-signing-key-file is set: kube-apiserver exits",
        ),
        (
            issuer,
            "--service-account-issuer=https://other.example",
            "issuer: tokens have issuer `https://other.example`",
        ),
        (
            issuer,
            "--service-account-issuer=https://issuer.example/",
            "issuer: tokens have issuer `https://issuer.example/`",
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
            "lifetime: --service-account-max-token-expiration=`long` is not a duration",
        ),
        (
            "--advertise-address=10.0.0.1",
            "--api-audiences=api",
            "audiences: `https://issuer.example` is not an audience of",
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
        ("{mountPath: /run/signpost, ", "{mountPath: /run/signpost/signer.sock, ", "is mounted as a file"),
        (
            "kube-apiserver:v1.37.1",
            "kube-apiserver:v1.31.9",
            "version: Kubernetes 1.31 does not support \
            external signers",
        ),
        (
            "kube-apiserver:v1.37.1",
            "kube-apiserver:v1.33.0",
            "version: Kubernetes 1.33 uses an external signer only with the feature gate",
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
        assert_eq!(findings.len(), 6, "nothing is said of a pod: {findings:?}");
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
fn kubernetes_of_1_32_and_1_33_fits_once_its_gate_is_open() {
    for version in ["v1.32.0", "v1.33.5-eks-1"] {
        let text = GOOD.replace("v1.37.1", version).replace(
            "--advertise-address=10.0.0.1",
            "--feature-gates=Other=false,ExternalServiceAccountTokenSigner=true",
        );
        let findings = found(&text, "/run/signpost/signer.sock");
        assert!(findings.iter().all(|finding| finding.fits), "{findings:?}");
    }
}

/// kubelet reads the first document of a file, and comments are not flags.
#[test]
fn a_manifest_is_read_as_kubelet_reads_it() {
    let socket = "/run/signpost/signer.sock";
    let commented = GOOD
        .replace("    - kube-apiserver\n", "    - kube-apiserver\n    # - --service-account-key-file=/x\n");
    assert_ne!(commented, GOOD);
    let good = found(GOOD, socket);
    for text in [
        format!("---{GOOD}"),
        format!("{GOOD}---\n"),
        format!("{GOOD}...\n"),
        format!("{GOOD}---\nkind: Pod\nspec: {{containers: [{{command: [etcd]}}]}}\n"),
        commented,
    ] {
        assert_eq!(found(&text, socket), good, "{text}");
    }
    let line = "# --service-account-key-file=/x\n--service-account-issuer=https://issuer.example\n\
                --service-account-signing-endpoint=@signpost \\\n  --v=2\n";
    let findings = found(line, "@signpost");
    assert!(findings.iter().all(|finding| finding.fits), "{findings:?}");
}

#[test]
fn what_to_do_about_audiences_can_be_done_whether_they_are_set_or_not() {
    let text = GOOD.replace("--advertise-address=10.0.0.1", "--api-audiences=api,other");
    let findings = found(&text, "/run/signpost/signer.sock");
    let fixes: Vec<_> = findings.iter().filter(|finding| !finding.fits).map(|finding| &finding.fix).collect();
    assert_eq!(fixes, [&Some("set `signer.api_audiences: [\"api\", \"other\"]`".to_owned())]);
}

#[test]
fn what_cannot_be_seen_in_the_manifest_is_said() {
    let noted = |text: &str| -> Vec<_> {
        let findings = found(text, "/run/signpost/signer.sock").into_iter();
        findings
            .filter(|finding| finding.fits && finding.fix.is_some())
            .map(|finding| finding.about)
            .collect()
    };
    assert_eq!(noted(GOOD), ["secrets"]);
    let unlimited = GOOD.replace("    - --service-account-max-token-expiration=24h0m0s\n", "");
    assert_eq!(noted(&unlimited), ["lifetime", "secrets"]);
}

#[test]
fn what_is_no_api_server_is_refused() {
    let refused = |text: &str| ApiServerConfig::parse(text).expect_err(text);
    assert_eq!(refused("kind: Pod\nspec: {containers: [{command: [etcd]}]}"), NoApiServer::Container);
    for text in ["", "kube-apiserver", "# --v=2"] {
        assert_eq!(refused(text), NoApiServer::Flags, "{text}");
    }
    assert_eq!(refused("a: b"), NoApiServer::Kind { kind: String::new() });
    assert_eq!(refused("kind: Deployment"), NoApiServer::Kind { kind: "Deployment".to_owned() });
    let configuration =
        refused("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\napiServer: {}");
    assert!(configuration.hint().expect("a hint").contains("patch"), "{configuration}");
    for text in [GOOD.replace("spec:", "spec"), "ExecStart=/bin/true --v=2".to_owned(), "[1".to_owned()] {
        assert!(matches!(refused(&text), NoApiServer::Neither { .. }), "{text}");
    }
}
