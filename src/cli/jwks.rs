//! `signpost jwks`.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Failure, block_on, eprint, error_report::ExitStatus, print, read_config, working_directory};
use crate::{
    app, clock,
    config::{self, KeyFlags},
    core::{
        jose::{
            jwk_set::{JwkSet, Profile},
            publication::{Document, Paths, Publication},
        },
        text::redaction::printable,
    },
    files::{self, Staged},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  signpost jwks --source /etc/kubernetes/pki/sa.pub
  signpost jwks --source kubernetes:kind-kind --source next.pub
  signpost jwks --source sa.pub --issuer https://oidc.example.com \\
    --output-dir ./public

Prints every key, byte for byte as kube-apiserver serves it. By default, `run` and
`sync` publish fewer keys: `--profile entra` prints those.
Of files with private keys, only the public keys are read.")]
pub(super) struct JwksFlags {
    #[command(flatten)]
    keys: KeyFlags,

    /// Write both documents below this directory, at their paths; needs an issuer
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn run(flags: &JwksFlags) -> Result<ExitStatus, Failure> {
    let text = read_config(flags.keys.config.as_deref())?;
    let file = text.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    let config = config::load_for_keys(&flags.keys, file, &working_directory()?, clock::now())?;
    if flags.output_dir.is_some() && config.issuer.is_none() {
        return Err(Failure::plain(
            "the discovery document needs an issuer",
            "pass `--issuer URL`, or omit `--output-dir` to print the JWKS",
        ));
    }
    let keys = block_on(app::keys(config))?;
    for note in &keys.notes {
        eprint(&format!("warning: {}", printable(note)));
    }
    let set = JwkSet::new(keys.keys).expect("it was rendered before");
    let others: Vec<_> = set.iter().filter(|key| !Profile::Entra.includes(key)).collect();
    if flags.keys.profile.is_none() && !others.is_empty() {
        let others: Vec<_> =
            others.iter().map(|key| format!("{} ({})", key.kid(), key.algorithm().name())).collect();
        eprint(&format!(
            "note: profile `entra`, the default of `run` and `sync`, excludes these keys: {}\n  hint: pass \
             `--profile entra` for RS256 keys only, or `--profile all` for every key",
            others.join(", ")
        ));
    }
    if let Some(breaks) = set.breaks() {
        eprint(&format!("warning: {breaks}"));
    }
    if let (Some(directory), Some(publication)) = (&flags.output_dir, &keys.publication) {
        write_both(directory, &keys.paths, publication)?;
    } else {
        print(&String::from_utf8(set.to_json()).expect("JSON is UTF-8"));
    }
    Ok(ExitStatus::Success)
}

/// Writes both temporary files before renaming them, the JWKS first: a reader finds the old or the new
/// document, never a partial one.
fn write_both(directory: &Path, paths: &Paths, publication: &Publication) -> Result<(), Failure> {
    let stage = |document: Document| {
        let path = directory.join(paths.of(document));
        let stage = || {
            let above = path.parent().expect("a document has a directory");
            files::create_directory(above, files::PUBLIC_DIRECTORY)?;
            Staged::write(&path, publication.bytes(document), files::PUBLIC_FILE)
        };
        stage().map_err(|source| cannot_write(&path, source)).map(|staged| (staged, path))
    };
    let staged: Vec<_> = Document::IN_WRITE_ORDER.into_iter().map(stage).collect::<Result<_, _>>()?;
    for (staged, path) in staged {
        staged.commit().map_err(|source| cannot_write(&path, source))?;
        eprint(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn cannot_write(path: &Path, source: io::Error) -> Failure {
    let error = CannotWrite { path: path.to_owned(), source };
    Failure::new(&error, Some("pass a writable directory as `--output-dir`"))
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
struct CannotWrite {
    path: PathBuf,
    source: io::Error,
}
