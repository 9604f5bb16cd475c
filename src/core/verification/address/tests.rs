use super::is_public_url;

#[test]
fn names_and_addresses_of_the_inside_are_not_public() {
    for host in [
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "oidc",
        "oidc.home.arpa",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "[fd00::1]",
        "[fe80::1]",
        "[64:ff9b::10.0.0.1]",
    ] {
        assert!(!is_public_url(&format!("https://{host}/x")), "{host}");
    }
}

#[test]
fn other_names_and_addresses_are_public() {
    for host in [
        "oidc.example.com",
        "a.z13.web.core.windows.net",
        "8.8.8.8",
        "100.128.0.1",
        "172.32.0.1",
        "[2606::1]",
    ] {
        assert!(is_public_url(&format!("https://{host}/x")), "{host}");
    }
}
