//! `signpost jwks`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Failure, block_on, print, read_config, report::Outcome, say, working_directory};
use crate::{
    app, clock,
    config::{self, KeyFlags},
    core::{jwk_set::JwkSet, publication::Document},
};

#[derive(Args)]
pub(super) struct JwksFlags {
    #[command(flatten)]
    keys: KeyFlags,

    /// Write both documents below this directory, at their paths; needs an issuer
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn carry_out(flags: &JwksFlags) -> Result<Outcome, Failure> {
    let text = read_config(flags.keys.config.as_deref())?;
    let file = text.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    let config = config::load_for_keys(&flags.keys, file, &working_directory()?, clock::now())?;
    if flags.output_dir.is_some() && config.issuer.is_none() {
        return Err(Failure::plain(
            "the discovery document needs an issuer",
            "pass `--issuer URL`, or leave `--output-dir` out to print the JWKS",
        ));
    }
    let keys = block_on(app::keys(config))?;
    for note in &keys.notes {
        say(&format!("warning: {note}"));
    }
    if let (Some(directory), Some(publication)) = (&flags.output_dir, &keys.publication) {
        for document in Document::IN_WRITE_ORDER {
            let path = directory.join(document.path());
            let parent = path.parent().expect("a document has a directory");
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, publication.bytes(document)))
                .map_err(|source| cannot_write(&path, source))?;
            say(&format!("wrote {}", path.display()));
        }
    } else {
        let set = JwkSet::new(keys.keys).expect("it was rendered before");
        print(&String::from_utf8(set.to_json()).expect("JSON is UTF-8"));
    }
    Ok(Outcome::Success)
}

fn cannot_write(path: &Path, source: io::Error) -> Failure {
    let error = CannotWrite { path: path.to_owned(), source };
    Failure::new(&error, Some("pass a directory that this user may write as `--output-dir`"))
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
struct CannotWrite {
    path: PathBuf,
    source: io::Error,
}
