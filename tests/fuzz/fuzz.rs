//! A target under libFuzzer; `SIGNPOST_FUZZ` names it.
#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

#[path = "targets/all.rs"]
mod targets;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = env::var("SIGNPOST_FUZZ").expect("SIGNPOST_FUZZ names a target");
    *targets::ALL.iter().find(|target| target.name == name).expect("it is one of those in targets.rs")
});

fuzz_target!(|bytes: &[u8]| {
    (TARGET.run)(bytes);
});
