//! Code that a tool wrote is what the tool would write today.

use std::path::Path;
use std::{env, fs};

use tempfile::TempDir;

#[test]
fn the_code_of_the_signers_protocol_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["external_jwt_signer.proto"], [root.join("proto/v1")])
        .expect("the protocol is well-formed");
    let folder = TempDir::new().expect("a temporary folder");
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .out_dir(folder.path())
        .compile_fds(descriptors)
        .expect("code can be written");
    let fresh = fs::read_to_string(folder.path().join("v1.rs")).expect("it is named after its package");
    let committed = root.join("src/signer/v1.rs");
    if crate::support::components::variable("SIGNPOST_WRITE_GENERATED").is_some() {
        fs::write(&committed, &fresh).expect("the source can be written");
    }
    let present = fs::read_to_string(&committed).unwrap_or_default();
    assert!(present == fresh, "src/signer/v1.rs is not fresh: run `make generated`");
}
