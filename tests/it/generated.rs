//! Checks that generated code is up to date.

use std::path::Path;
use std::{env, fs};

use tempfile::TempDir;

/// `make generated` updates it.
#[test]
fn the_code_of_the_signers_protocol_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("proto/v1");
    let descriptors =
        protox::compile(["external_jwt_signer.proto"], [folder]).expect("the protocol is well-formed");
    let folder = TempDir::new().expect("a temporary folder");
    let builder = tonic_prost_build::configure().build_client(false).build_transport(false);
    builder.out_dir(folder.path()).compile_fds(descriptors).expect("code can be written");
    let fresh = fs::read_to_string(folder.path().join("v1.rs")).expect("it is named after its package");
    let committed = root.join("src/signer/v1.rs");
    if crate::support::components::variable("SIGNPOST_WRITE_GENERATED").is_some() {
        fs::write(&committed, &fresh).expect("the source can be written");
    }
    let present = fs::read_to_string(&committed).unwrap_or_default();
    assert!(present == fresh, "src/signer/v1.rs is not fresh: run `make generated`");
}

#[test]
fn both_versions_of_the_signers_protocol_have_the_same_messages() {
    let read = |version: &str| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = root.join("proto").join(version).join("external_jwt_signer.proto");
        fs::read_to_string(file).expect("it is there").replace(version, "VERSION")
    };
    assert_eq!(read("v1"), read("v1alpha1"));
}
