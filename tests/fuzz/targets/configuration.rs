//! Configuration files.

use std::path::Path;

use signpost::config::{self, Flags, InvalidConfig, KeyFlags, SignerFlags};

use super::{now, told};

/// Longest message, path or hint, in characters, control characters spelt out.
const MAX_TEXT: usize = 6000;

pub(super) fn run(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (file, cwd) = (Path::new("config.yaml"), Path::new("/home/ada"));
    let load = |text: &str| config::load(&Flags::default(), Some((file, text)), cwd, now());
    let config = load(text);
    match &config {
        Ok(config) => {
            let shown = config.show();
            match load(&shown) {
                Ok(again) => assert_eq!((config, &shown), (&again, &again.show())),
                Err(invalid) => panic!("what is shown cannot be read: {invalid}\n{shown}"),
            }
        }
        Err(invalid) => is_brief(invalid),
    }
    let _ = config::load_for_keys(&KeyFlags::default(), Some((file, text)), cwd, now())
        .map_err(|invalid| is_brief(&invalid));
    let _ = config::load_for_signer(&SignerFlags::default(), Some((file, text)), cwd, now())
        .map_err(|invalid| is_brief(&invalid));
    config.is_ok()
}

fn is_brief(invalid: &InvalidConfig) {
    assert!(!invalid.problems.is_empty(), "refused without a reason");
    for problem in &invalid.problems {
        for text in [&problem.path, &problem.message].into_iter().chain(&problem.hint) {
            assert!(text.chars().count() <= MAX_TEXT, "{} characters: {text}", text.len());
            assert!(!text.contains(char::is_control), "a control character: {text:?}");
        }
    }
    assert!(invalid.problems.len() > 1 || told(invalid).contains("1 problem in"));
}
