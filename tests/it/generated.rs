//! Checks that generated code is up to date.

use std::path::Path;
use std::{env, fs};

use tempfile::TempDir;

/// `make generated` updates it.
fn is_fresh(version: &str, configure: impl FnOnce(tonic_prost_build::Builder) -> tonic_prost_build::Builder) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("proto").join(version);
    let descriptors =
        protox::compile(["external_jwt_signer.proto"], [folder]).expect("the protocol is well-formed");
    let folder = TempDir::new().expect("a temporary folder");
    let builder = tonic_prost_build::configure().build_client(false).build_transport(false);
    configure(builder).out_dir(folder.path()).compile_fds(descriptors).expect("code can be written");
    let name = format!("{version}.rs");
    let fresh = fs::read_to_string(folder.path().join(&name)).expect("it is named after its package");
    let committed = root.join("src/signer").join(&name);
    if crate::support::components::variable("SIGNPOST_WRITE_GENERATED").is_some() {
        fs::write(&committed, &fresh).expect("the source can be written");
    }
    let present = fs::read_to_string(&committed).unwrap_or_default();
    assert!(present == fresh, "src/signer/{name} is not fresh: run `make generated`");
}

#[test]
fn the_code_of_the_signers_protocol_is_fresh() {
    is_fresh("v1", |builder| builder);
    // Only the service: its messages are those of `v1`.
    is_fresh("v1alpha1", |builder| builder.extern_path(".v1alpha1", "crate::signer::v1"));
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
