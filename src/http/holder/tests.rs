use std::net::TcpListener;

use super::*;

#[test]
fn the_process_that_listens_is_named() {
    for here in ["127.0.0.1:0", "0.0.0.0:0"] {
        let taken = TcpListener::bind(here).expect("loopback has a free port");
        let port = taken.local_addr().expect("it is bound").port();
        let named = holder(SocketAddr::from(([127, 0, 0, 1], port))).expect("it is ours");
        assert!(named.starts_with(&format!("process {}, `", std::process::id())), "{named}");
        drop(taken);
        assert_eq!(None, holder(SocketAddr::from(([127, 0, 0, 1], port))));
    }
}

#[test]
fn only_a_socket_that_listens_on_this_address_is_meant() {
    let line = |local: &str, state: &str| {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0\n"
        )
    };
    let ours = SocketAddr::from(([127, 0, 0, 1], 8080));
    let local = format!("{}:1F90", hex(ours.ip()));
    assert_eq!(Some("42"), inode(&line(&local, "0A"), ours));
    assert_eq!(Some("42"), inode(&line("00000000:1F90", "0A"), ours));
    assert_eq!(Some("42"), inode(&line(&format!("{}:1F90", "0".repeat(32)), "0A"), ours));
    assert_eq!(None, inode(&line(&local, "01"), ours), "it is connected");
    assert_eq!(None, inode(&line(&local, "0A"), SocketAddr::from(([127, 0, 0, 1], 9090))));
    assert_eq!(None, inode(&line(&local, "0A"), SocketAddr::from(([127, 0, 0, 2], 8080))));
    assert_eq!(None, inode("  sl  local_address\nno table", ours));
}
