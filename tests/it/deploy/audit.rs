//! Compares an API server's audit log with the roles.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::of_kind;

/// The resource that every service account may request: its own identity.
const BY_ANYBODY: &str = "selfsubjectreviews";

/// Metadata of every request of the service account.
pub(super) const POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": ["system:serviceaccount:signpost:signpost"]},
        {"level": "None"}
    ]
}"#;

/// A request, or a permission of a role. For a non-resource path only verb and resource are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    verb: String,
    group: String,
    /// With its subresource.
    resource: String,
    namespace: String,
    /// Empty where any name is allowed.
    name: String,
}

impl Right {
    /// Whether a request needs no more than this.
    fn covers(&self, request: &Self) -> bool {
        let name = if self.name.is_empty() { String::new() } else { request.name.clone() };
        *self == Self { name, ..request.clone() }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, namespace, name } = self;
        write!(f, "{verb} {group}/{resource} `{name}` in `{namespace}`")
    }
}

/// Every permission of the manifests, individually.
pub(super) fn granted(objects: &[Value]) -> Vec<Right> {
    let mut granted = Vec::new();
    for role in of_kind(objects, "Role") {
        let namespace = text(&role["metadata"]["namespace"]);
        for rule in role["rules"].as_array().expect("rules") {
            let names = if rule["resourceNames"].is_null() {
                vec![String::new()]
            } else {
                texts(&rule["resourceNames"])
            };
            for verb in texts(&rule["verbs"]) {
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        granted.extend(names.iter().map(|name| Right {
                            verb: verb.clone(),
                            group: group.clone(),
                            resource: resource.clone(),
                            namespace: namespace.clone(),
                            name: name.clone(),
                        }));
                    }
                }
            }
        }
    }
    // From the ClusterRole of Kubernetes that the manifests bind.
    for path in ["/openid/v1/jwks", "/.well-known/openid-configuration"] {
        granted.push(Right { verb: "get".to_owned(), resource: path.to_owned(), ..Right::default() });
    }
    granted
}

/// Compares the requests with the permissions of the manifests.
///
/// # Panics
///
/// Panics when a permission is not used, and on a request without permission, answered or not.
#[track_caller]
pub(super) fn expect_each_used_and_nothing_else(log: &Path, granted: &[Right]) {
    let (answered, forbidden) = audited(log);
    for right in granted {
        let used = answered.iter().any(|request| right.covers(request));
        assert!(used, "nothing uses the right to {right}:\n{answered:#?}");
    }
    for request in &answered {
        let allowed = granted.iter().any(|right| right.covers(request)) || request.resource == BY_ANYBODY;
        assert!(allowed, "no rule of the manifests allowed to {request}");
    }
    // An API server that has just started refuses until it has loaded its roles.
    let never: Vec<_> = forbidden.difference(&answered).collect();
    assert_eq!(never, Vec::<&Right>::new(), "it asks for what it may not have");
}

/// The answered and the forbidden requests.
fn audited(log: &Path) -> (BTreeSet<Right>, BTreeSet<Right>) {
    let log = fs::read_to_string(log).expect("it was written");
    let entries = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (forbidden, answered): (Vec<_>, Vec<_>) =
        entries.partition(|entry| entry["responseStatus"]["code"] == 403);
    let requests = |entries: Vec<Value>| entries.iter().map(request).collect();
    (requests(answered), requests(forbidden))
}

fn request(entry: &Value) -> Right {
    let object = &entry["objectRef"];
    let verb = text(&entry["verb"]);
    if object.is_null() {
        return Right { verb, resource: text(&entry["requestURI"]), ..Right::default() };
    }
    let resource = match object["subresource"].as_str() {
        Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
        None => text(&object["resource"]),
    };
    Right {
        verb,
        group: text(&object["apiGroup"]),
        resource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(text).collect()
}

/// Empty where there is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
