//! Pods as real webhooks and users create them.

use serde_json::{Value, json};

use super::scene::{AUDIENCE, CLIENT, NOW, Scene};
use crate::core::verification::{Finding, Level, VerificationOutcome, VerificationReport};

/// The first error or warning: its check, and its code.
type First = Option<(&'static str, Option<u32>)>;

/// `tests/vectors/webhook-pods`, with the expected outcome and first finding of each.
const PODS: &[(&str, &str, VerificationOutcome, First)] = &[
    (
        "plain",
        include_str!("../../../../tests/vectors/webhook-pods/plain.json"),
        VerificationOutcome::Accepted,
        None,
    ),
    (
        "skip",
        include_str!("../../../../tests/vectors/webhook-pods/skip.json"),
        VerificationOutcome::Accepted,
        None,
    ),
    (
        "envfrom",
        include_str!("../../../../tests/vectors/webhook-pods/envfrom.json"),
        VerificationOutcome::Accepted,
        None,
    ),
    (
        "tenant",
        include_str!("../../../../tests/vectors/webhook-pods/tenant.json"),
        VerificationOutcome::Accepted,
        None,
    ),
    (
        "otherclient",
        include_str!("../../../../tests/vectors/webhook-pods/otherclient.json"),
        VerificationOutcome::Accepted,
        None,
    ),
    (
        "init",
        include_str!("../../../../tests/vectors/webhook-pods/init.json"),
        VerificationOutcome::Accepted,
        Some(("POD-OTHER", None)),
    ),
    (
        "initonly",
        include_str!("../../../../tests/vectors/webhook-pods/initonly.json"),
        VerificationOutcome::Refused,
        Some(("POD-ENV", Some(7_000_218))),
    ),
    (
        "nosaann",
        include_str!("../../../../tests/vectors/webhook-pods/nosaann.json"),
        VerificationOutcome::Accepted,
        Some(("SA-ANNOT", None)),
    ),
    (
        "emptyclient",
        include_str!("../../../../tests/vectors/webhook-pods/emptyclient.json"),
        VerificationOutcome::Accepted,
        Some(("SA-ANNOT", None)),
    ),
    (
        "emptytenantann",
        include_str!("../../../../tests/vectors/webhook-pods/emptytenantann.json"),
        VerificationOutcome::Refused,
        Some(("POD-TENANT", None)),
    ),
    (
        "emptyhost",
        include_str!("../../../../tests/vectors/webhook-pods/emptyhost.json"),
        VerificationOutcome::Refused,
        Some(("AUTH-HOST", Some(50_049))),
    ),
    (
        "binding",
        include_str!("../../../../tests/vectors/webhook-pods/binding.json"),
        VerificationOutcome::Unknown,
        Some(("POD-AUD", Some(700_212))),
    ),
    (
        "labelonsa",
        include_str!("../../../../tests/vectors/webhook-pods/labelonsa.json"),
        VerificationOutcome::Refused,
        Some(("POD-LABEL", Some(7_000_218))),
    ),
    (
        "ownwrongpath",
        include_str!("../../../../tests/vectors/webhook-pods/ownwrongpath.json"),
        VerificationOutcome::Refused,
        Some(("POD-ENV", Some(7_000_218))),
    ),
    (
        "owninit",
        include_str!("../../../../tests/vectors/webhook-pods/owninit.json"),
        VerificationOutcome::Refused,
        Some(("POD-ENV", Some(7_000_218))),
    ),
    (
        "ownsubpath",
        include_str!("../../../../tests/vectors/webhook-pods/ownsubpath.json"),
        VerificationOutcome::Accepted,
        Some(("POD-SUBPATH", Some(700_024))),
    ),
    (
        "own600",
        include_str!("../../../../tests/vectors/webhook-pods/own600.json"),
        VerificationOutcome::Accepted,
        Some(("POD-SHORT", Some(700_024))),
    ),
    (
        "ownnoclientid",
        include_str!("../../../../tests/vectors/webhook-pods/ownnoclientid.json"),
        VerificationOutcome::Accepted,
        Some(("SA-ANNOT", None)),
    ),
    (
        "ownnohost",
        include_str!("../../../../tests/vectors/webhook-pods/ownnohost.json"),
        VerificationOutcome::Accepted,
        None,
    ),
    (
        "owntrail",
        include_str!("../../../../tests/vectors/webhook-pods/owntrail.json"),
        VerificationOutcome::Accepted,
        None,
    ),
];

/// The annotations of the service account of each pod.
fn annotations(name: &str) -> Value {
    match name {
        "nosaann" => json!({}),
        "emptyclient" => json!({"azure.workload.identity/client-id": ""}),
        "emptytenantann" => {
            json!({"azure.workload.identity/client-id": CLIENT, "azure.workload.identity/tenant-id": ""})
        }
        _ => json!({"azure.workload.identity/client-id": CLIENT}),
    }
}

fn recorded(name: &str) -> Value {
    let (_, text, ..) = PODS.iter().find(|(known, ..)| *known == name).expect("it was recorded");
    serde_json::from_str(text).expect("a pod")
}

fn judged(annotations: &Value, pods: &[Value]) -> VerificationReport {
    let mut scene = Scene::good();
    let workload = scene.annotated(annotations);
    workload.pods = pods.iter().map(|pod| serde_json::from_value(pod.clone()).expect("a pod")).collect();
    scene.judged()
}

fn first(report: &VerificationReport) -> Option<&Finding> {
    report.findings.iter().find(|finding| finding.level != Level::Note)
}

#[test]
fn pods_as_the_webhook_makes_them_are_judged_by_the_container_that_has_the_token() {
    for (name, text, outcome, expected) in PODS {
        let report = judged(&annotations(name), &[serde_json::from_str(text).expect("a pod")]);
        let found = first(&report).map(|it| (it.id, it.predicted_codes.first().copied()));
        assert_eq!((*outcome, *expected), (report.outcome, found), "{name}: {:#?}", report.findings);
    }
}

#[test]
fn causes_are_told_as_they_are() {
    let fix = |name: &str| {
        let report = judged(&annotations(name), &[recorded(name)]);
        first(&report).expect("something is wrong").fix.clone()
    };
    for (name, cause) in [
        ("binding", "`azure.workload.identity/use-identity-binding` from the pod template"),
        ("emptytenantann", "the annotation `azure.workload.identity/tenant-id` from the service account"),
        ("emptyclient", "set the annotation"),
        ("nosaann", "annotate the service account"),
        ("ownnoclientid", "set the variable in the pod template"),
        ("emptyhost", "the webhook keeps what a container has"),
        ("initonly", "which keeps one that the pod template has"),
        ("ownwrongpath", "the mount path followed by the path of the projected token"),
    ] {
        assert!(fix(name).contains(cause), "{name}: {}", fix(name));
    }
    let report = judged(&annotations("nosaann"), &[recorded("nosaann")]);
    let finding = first(&report).expect("something is wrong");
    assert!(finding.seen.contains("an SDK fails before it asks"), "{}", finding.seen);
}

/// Without a request there is no error code.
#[test]
fn what_keeps_an_sdk_from_asking_has_no_code() {
    let mut scene = Scene::good();
    // A warning with a code follows.
    scene.remembered(&json!("listed"), NOW - 720, false);
    scene.annotated(&json!({"azure.workload.identity/tenant-id": ""})).pods =
        vec![serde_json::from_value(recorded("emptytenantann")).expect("a pod")];
    let report = scene.judged();
    assert!(report.findings.iter().any(|finding| finding.id == "CACHE-WAIT"), "{report:#?}");
    assert_eq!((VerificationOutcome::Refused, None), (report.outcome, report.likely_first()));
}

/// A mesh adds its own container after the webhook.
#[test]
fn a_container_without_variables_beside_a_complete_one_refuses_nothing() {
    let mut pod = recorded("plain");
    let mesh = json!({"name": "istio-proxy", "image": "x"});
    pod["spec"]["containers"].as_array_mut().expect("containers").insert(0, mesh.clone());
    pod["spec"]["initContainers"] = json!([mesh]);
    let report = judged(&annotations("plain"), &[pod]);
    assert_eq!((VerificationOutcome::Accepted, None), (report.outcome, first(&report)), "{report:#?}");
}

/// Each pod needs a container of its own that can.
#[test]
fn one_good_pod_does_not_excuse_another() {
    let report = judged(&annotations("plain"), &[recorded("plain"), recorded("ownwrongpath")]);
    assert_eq!(
        (VerificationOutcome::Refused, Some("POD-ENV")),
        (report.outcome, first(&report).map(|it| it.id))
    );
}

/// A pod as mutated by the webhook, with changes to it and to its first container.
fn changed(change: impl Fn(&mut Value)) -> (VerificationOutcome, Option<String>) {
    let mut pod = recorded("plain");
    change(&mut pod);
    let report = judged(&annotations("plain"), &[pod]);
    (report.outcome, first(&report).map(|it| it.id.to_owned()))
}

#[test]
fn a_token_is_found_where_a_container_looks_and_nothing_hides_it() {
    const FOLDER: &str = "/var/run/secrets/azure/wi/token";
    let look = |pod: &mut Value, at: &str| {
        let variables = pod["spec"]["containers"][0]["env"].as_array_mut().expect("variables");
        let file =
            variables.iter_mut().find(|it| it["name"] == "AZURE_FEDERATED_TOKEN_FILE").expect("it is told");
        file["value"] = json!(at);
    };
    let mount = |pod: &mut Value, volume: Value, at: &str| {
        let mount = json!({"name": volume["name"], "mountPath": at});
        pod["spec"]["volumes"].as_array_mut().expect("volumes").push(volume);
        pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().expect("mounts").push(mount);
    };
    let found = (VerificationOutcome::Accepted, None);
    let in_vain = (VerificationOutcome::Refused, Some("POD-ENV".to_owned()));
    for path in ["x/../azure-identity-token", "..data/azure-identity-token", "./azure-identity-token"] {
        assert_eq!(found, changed(|pod| look(pod, &format!("{FOLDER}/{path}"))), "{path}");
    }
    assert_eq!(in_vain, changed(|pod| look(pod, &format!("{FOLDER}/../azure-identity-token"))));
    let relative = |directory: &'static str| {
        move |pod: &mut Value| {
            look(pod, "azure/wi/token/azure-identity-token");
            pod["spec"]["containers"][0]["workingDir"] = json!(directory);
        }
    };
    assert_eq!(found, changed(relative("/var/run/secrets")));
    assert_eq!(in_vain, changed(relative("/srv")));

    let inner = json!({"name": "inner", "projected": {"sources": [{
        "serviceAccountToken": {"audience": "vault", "path": "azure-identity-token"}
    }]}});
    let (_, id) = changed(|pod| mount(pod, inner.clone(), FOLDER));
    assert_eq!(Some("POD-AUD"), id.as_deref(), "the inner one hides the webhook's");
    let secret = json!({"name": "secret", "projected": {"sources": [{"secret": {"name": "x"}}]}});
    let (outcome, _) = changed(|pod| {
        look(pod, "/secret/token");
        mount(pod, secret.clone(), "/secret");
    });
    assert_ne!(VerificationOutcome::Refused, outcome, "what cannot be read is not taken for missing");
}

#[test]
fn the_life_in_annotations_is_what_the_webhook_reads() {
    const LIFE: &str = "azure.workload.identity/service-account-token-expiration";
    let life = |account: Option<&str>, own: Option<&str>| {
        let mut annotations = annotations("plain");
        if let Some(life) = account {
            annotations[LIFE] = json!(life);
        }
        let mut pod = recorded("plain");
        if let Some(life) = own {
            pod["metadata"]["annotations"][LIFE] = json!(life);
        }
        let report = judged(&annotations, &[pod]);
        report.findings.iter().any(|it| it.id == "POD-EXP")
    };
    assert!(life(Some("60"), None) && life(None, Some("60")) && life(Some("3600"), Some("60")));
    assert!(!life(Some("60"), Some("3600")), "the pod's own goes first");
    assert!(!life(Some(""), None) && !life(None, Some("")), "an empty one is none");
}

#[test]
fn a_secret_may_override_what_a_config_map_says() {
    let mut scene = Scene::good();
    let workload = scene.annotated(&annotations("plain"));
    let mut pod = recorded("plain");
    let variables = pod["spec"]["containers"][0]["env"].as_array_mut().expect("variables");
    variables.retain(|it| it["name"] != "AZURE_TENANT_ID");
    pod["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "settings"}}]);
    workload.pods = vec![serde_json::from_value(pod).expect("a pod")];
    let data = [("AZURE_TENANT_ID".to_owned(), "nonsense".to_owned())];
    workload.config_maps.insert("settings".to_owned(), data.into_iter().collect());
    assert_eq!(None, first(&scene.judged()).map(|it| it.id));
}

#[test]
fn a_token_that_the_pod_projects_for_a_week_is_refused_and_one_for_25_hours_is_not() {
    let projected = |seconds: i64| {
        let mut pod = recorded("owntrail");
        let volumes = pod["spec"]["volumes"].as_array_mut().expect("volumes");
        let own = volumes.iter_mut().find(|volume| volume["name"] == "t").expect("its own");
        own["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] = json!(seconds);
        judged(&annotations("owntrail"), &[pod])
    };
    let week = projected(604_800);
    let found = week.likely_first().map(|it| (it.id, it.predicted_codes[0]));
    assert_eq!((VerificationOutcome::Refused, Some(("POD-LONG", 70_023))), (week.outcome, found));
    assert_eq!(VerificationOutcome::Refused, projected(90_001).outcome);
    assert_eq!((VerificationOutcome::Accepted, None), (projected(90_000).outcome, first(&projected(90_000))));
    assert_eq!(None, first(&projected(3000)));
    assert_eq!(Some("POD-SHORT"), first(&projected(2999)).map(|it| it.id));
}

/// It sends an assertion: Entra would not report a missing one.
#[test]
fn the_default_token_is_of_another_audience() {
    let mut pod = recorded("ownnohost");
    let variables = pod["spec"]["containers"][0]["env"].as_array_mut().expect("variables");
    let file =
        variables.iter_mut().find(|it| it["name"] == "AZURE_FEDERATED_TOKEN_FILE").expect("it is there");
    file["value"] = json!("/var/run/secrets/kubernetes.io/serviceaccount/token");
    let report = judged(&annotations("ownnohost"), &[pod]);
    let found = report.likely_first().expect("it is refused");
    assert_eq!(("POD-AUD", Some(&700_212)), (found.id, found.predicted_codes.first()));
    assert!(found.seen.ends_with("is given a token for the API server itself"), "{}", found.seen);
    assert!(report.findings.iter().all(|finding| finding.id != "POD-LABEL"), "{report:#?}");
}

/// The deployment of a walk-through for agent blueprints: labelled, no webhook, and an application that uses
/// the sidecar on localhost.
#[test]
fn an_application_may_leave_the_asking_to_a_sidecar() {
    let pod = json!({
        "metadata": {
            "name": "demo-app-0",
            "labels": {"app": "demo-app", "azure.workload.identity/use": "true"},
        },
        "spec": {
            "serviceAccountName": "sidecar-sa",
            "containers": [
                {"name": "app", "env": [{"name": "SIDECAR_URL", "value": "http://localhost:5000"}]},
                {
                    "name": "sidecar",
                    "envFrom": [{"configMapRef": {"name": "sidecar-config"}}],
                    "volumeMounts": [{"name": "azure-identity-token", "mountPath": "/var/run/secrets/tokens"}],
                },
            ],
            "volumes": [{"name": "azure-identity-token", "projected": {"sources": [{"serviceAccountToken": {
                "path": "azure-identity-token", "expirationSeconds": 3600, "audience": AUDIENCE,
            }}]}}],
        },
    });
    let settings = json!({
        "AzureAd__Instance": "https://login.microsoftonline.com/",
        "AzureAd__TenantId": CLIENT,
        "AzureAd__ClientId": CLIENT,
        "AzureAd__ClientCredentials__0__SourceType": "SignedAssertionFilePath",
        "AzureAd__ClientCredentials__0__SignedAssertionFileDiskPath":
            "/var/run/secrets/tokens/azure-identity-token",
    });
    let judged = |pod: &Value, settings: &Value| {
        let mut scene = Scene::good();
        let workload = scene.annotated(&json!({"azure.workload.identity/client-id": CLIENT}));
        workload.webhook = Some(false);
        workload.pods = vec![serde_json::from_value(pod.clone()).expect("a pod")];
        let settings = serde_json::from_value(settings.clone()).expect("texts");
        workload.config_maps.insert("sidecar-config".to_owned(), settings);
        scene.judged()
    };
    let report = judged(&pod, &settings);
    assert_eq!((VerificationOutcome::Accepted, None), (report.outcome, first(&report)), "{report:#?}");
    assert!(report.holds.iter().any(|it| it.id == "POD-ENV" && it.seen.contains("`sidecar`")), "{report:#?}");

    let mut elsewhere = settings.clone();
    elsewhere["AzureAd__ClientCredentials__0__SignedAssertionFileDiskPath"] = json!("/other");
    let report = judged(&pod, &elsewhere);
    assert_eq!(
        (VerificationOutcome::Refused, Some("SIDE-PATH")),
        (report.outcome, first(&report).map(|it| it.id))
    );
    let mut unmounted = pod.clone();
    unmounted["spec"]["containers"][1]["volumeMounts"] = json!([]);
    assert_eq!(VerificationOutcome::Refused, judged(&unmounted, &settings).outcome);
}

/// What is unreadable does not count as missing.
#[test]
fn variables_of_a_secret_and_files_of_other_volumes_are_given_the_benefit_of_the_doubt() {
    let mut secret = recorded("labelonsa");
    secret["metadata"]["labels"] = json!({"azure.workload.identity/use": "true"});
    assert_eq!(VerificationOutcome::Refused, judged(&annotations("labelonsa"), &[secret.clone()]).outcome);
    secret["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "settings"}}]);
    assert_eq!(VerificationOutcome::Accepted, judged(&annotations("labelonsa"), &[secret]).outcome);

    let mut helper = recorded("ownwrongpath");
    helper["spec"]["containers"][0]["volumeMounts"][0] = json!({"name": "spiffe", "mountPath": "/var/run/t"});
    helper["spec"]["volumes"]
        .as_array_mut()
        .expect("volumes")
        .push(json!({"name": "spiffe", "emptyDir": {}}));
    assert_eq!(VerificationOutcome::Accepted, judged(&annotations("ownwrongpath"), &[helper]).outcome);
}
