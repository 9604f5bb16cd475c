use std::collections::BTreeSet;

use k8s_openapi::api::{coordination::v1::Lease, discovery::v1::EndpointSlice};

use super::Projection as _;

/// As kube-apiserver 1.37 prints it, without `managedFields`.
const SLICE: &str = r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"kubernetes",
    "namespace":"default","labels":{"kubernetes.io/service-name":"kubernetes"}},"addressType":"IPv4","endpoints":[
    {"addresses":["10.77.0.11"],"conditions":{"ready":true}},{"addresses":["10.77.0.12"],"conditions":{"ready":true}}],
    "ports":[{"name":"https","protocol":"TCP","port":6443}]}"#;

fn urls(slice: &str) -> BTreeSet<String> {
    serde_json::from_str::<EndpointSlice>(slice).expect("a slice").part()
}

fn set(urls: &[&str]) -> BTreeSet<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

#[test]
fn every_address_of_a_slice_is_a_url() {
    assert_eq!(set(&["https://10.77.0.11:6443", "https://10.77.0.12:6443"]), urls(SLICE));
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let slice = SLICE.replace("10.77.0.11", "fd00::1").replace("10.77.0.12", "fd00::2");
    assert_eq!(set(&["https://[fd00::1]:6443", "https://[fd00::2]:6443"]), urls(&slice));
}

#[test]
fn a_slice_without_endpoints_or_with_another_port_lists_nobody() {
    assert_eq!(set(&[]), urls(&SLICE.replace("\"https\"", "\"metrics\"")));
    let (start, _) = SLICE.split_once("\"endpoints\"").expect("it has some");
    assert_eq!(set(&[]), urls(&format!("{start}\"endpoints\":null,\"ports\":null}}")));
}

#[test]
fn a_renewed_lease_is_the_same_and_a_start_is_another() {
    let lease = |uuid: &str, renewed: &str| {
        let spec = format!(
            r#"{{"holderIdentity":"apiserver-x_{uuid}","leaseDurationSeconds":3600,"renewTime":"{renewed}"}}"#
        );
        let text = format!(r#"{{"metadata":{{"name":"apiserver-x"}},"spec":{spec}}}"#);
        serde_json::from_str::<Lease>(&text).expect("a lease").part()
    };
    let first = lease("d7fe64ec", "2026-11-21T05:58:00.934497Z");
    assert_eq!(first, lease("d7fe64ec", "2026-11-21T05:58:11.328207Z"));
    assert_ne!(first, lease("03f28b59", "2026-11-21T05:58:46.636467Z"));
}
