use serde_json::{Value, json};

use super::{Container, Pod};

fn pod(mount: &Value) -> Pod {
    let pod = json!({
        "spec": {
            "containers": [{"name": "main", "volumeMounts": [mount, {"name": "other", "mountPath": "/other"}]}],
            "volumes": [
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"audience": "a", "path": "token/file"}},
                    {"configMap": {"name": "x"}},
                ]}},
                {"name": "other", "emptyDir": {}},
            ],
        },
    });
    serde_json::from_value(pod).expect("a pod")
}

fn path(mount: &Value) -> Option<(String, bool)> {
    let pod = pod(mount);
    let found = pod.tokens(&pod.spec.containers[0]).next();
    found.map(|found| (found.path, found.is_refreshed))
}

#[test]
fn a_token_is_found_where_its_volume_is_mounted() {
    let at = |path: &str, is_refreshed| Some((path.to_owned(), is_refreshed));
    let mount = |path: &str| json!({"name": "token", "mountPath": path});
    assert_eq!(at("/var/run/token/file", true), path(&mount("/var/run")));
    assert_eq!(at("/var/run/token/file", true), path(&mount("/var//run/./")));
    assert_eq!(at("/token/file", true), path(&mount("/")));
    assert_eq!(None, path(&json!({"name": "other", "mountPath": "/var/run"})));
}

#[test]
fn a_part_of_a_volume_is_never_written_anew() {
    let mount = |sub_path: &str| json!({"name": "token", "mountPath": "/t", "subPath": sub_path});
    assert_eq!(Some(("/t/file".to_owned(), false)), path(&mount("token")));
    assert_eq!(Some(("/t".to_owned(), false)), path(&mount("token/file")));
    assert_eq!(Some(("/t/token/file".to_owned(), true)), path(&mount("")));
    assert_eq!(None, path(&mount("tok")));
    assert_eq!(None, path(&mount("token/file/more")));
}

#[test]
fn paths_are_compared_as_the_kernel_reads_them() {
    let pod = pod(&json!({"name": "token", "mountPath": "/t"}));
    let main = &pod.spec.containers[0];
    for same in ["/t/token/file", "/t//token/./file", "//t/token/file/"] {
        assert!(pod.token_at(main, same).is_some(), "{same}");
    }
    for other in ["/t/token", "/t/token/file2", "/token/file"] {
        assert!(pod.token_at(main, other).is_none(), "{other}");
    }
}

#[test]
fn what_other_volumes_hold_is_not_known() {
    let mut pod = pod(&json!({"name": "token", "mountPath": "/other/token"}));
    let unknown = |pod: &Pod, path: &str| pod.is_unknown_at(&pod.spec.containers[0], path);
    assert!(unknown(&pod, "/other/file") && unknown(&pod, "/other"));
    assert!(!unknown(&pod, "/other/token/file"), "the inner mount is a projected volume");
    assert!(!unknown(&pod, "/others/file") && !unknown(&pod, "/"));
    pod.spec.containers[0].volume_mounts[1].mount_path = "/".to_owned();
    assert!(unknown(&pod, "/anything"));
}

#[test]
fn variables_are_read_as_far_as_they_can_be() {
    let container: Container = serde_json::from_value(json!({
        "envFrom": [{"configMapRef": {"name": "there"}, "prefix": "P_"}],
        "env": [
            {"name": "PLAIN", "value": "a"}, {"name": "EMPTY"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "MADE", "value": "$(PLAIN)/b"},
        ],
    }))
    .expect("a container");
    let maps = [("there".to_owned(), [("X".to_owned(), "1".to_owned())].into())].into();
    let environment = container.environment(&maps);
    let value = |name: &str| environment.get(name).map(Option::as_deref);
    assert_eq!([Some(Some("a")), Some(Some("")), Some(Some("1"))], ["PLAIN", "EMPTY", "P_X"].map(value));
    assert_eq!([Some(None), Some(None), None], ["SECRET", "MADE", "X"].map(value));
    assert!(!container.has_unknown_variables(&maps));
    assert!(container.has_unknown_variables(&[].into()), "the ConfigMap was not read");
    let secret: Container =
        serde_json::from_value(json!({"envFrom": [{"secretRef": {"name": "s"}}]})).expect("a container");
    assert!(secret.has_unknown_variables(&maps));
}

#[test]
fn a_pod_is_finished_when_it_says_so() {
    for (phase, is_finished) in
        [("Succeeded", true), ("Failed", true), ("Running", false), ("Pending", false), ("Unknown", false)]
    {
        let pod: Pod = serde_json::from_value(json!({"status": {"phase": phase}})).expect("a pod");
        assert_eq!(is_finished, pod.is_finished(), "{phase}");
    }
    assert!(!Pod::default().is_finished());
}
