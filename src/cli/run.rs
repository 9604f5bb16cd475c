//! `signpost run`.

use std::path::Path;

use super::{Failure, block_on, checked, load, read_config, report::Outcome, say, working_directory};
use crate::{
    app::{self, Reread, Started},
    config::{Flags, KeyFlags},
    core::issuer::Issuer,
};

pub(super) fn carry_out(flags: &Flags) -> Result<Outcome, Failure> {
    let config = load(flags)?;
    let welcome = is_first_look(flags).then(|| (config.issuers[0].issuer.clone(), config.data_dir.clone()));
    block_on(app::run(config, reread(flags)?, |started| {
        if let Some((issuer, data_dir)) = welcome {
            say(&self::welcome(&issuer, &data_dir, started));
        }
    }))?;
    Ok(Outcome::Success)
}

/// How the file is read again: with the flags and the environment of the start. Without a file there is
/// nothing that could have changed.
fn reread(flags: &Flags) -> Result<Option<Reread>, Failure> {
    if flags.keys.config.is_none() {
        return Ok(None);
    }
    let (flags, cwd) = (flags.clone(), working_directory()?);
    Ok(Some(Reread::new(move || {
        let text = read_config(flags.keys.config.as_deref())?;
        Ok(checked(&flags, text.as_ref(), &cwd)?)
    })))
}

/// Whether this is somebody's first look: an issuer of its own on this machine, of which nothing is configured.
fn is_first_look(flags: &Flags) -> bool {
    let KeyFlags { config, issuer, sources, .. } = &flags.keys;
    config.is_none() && issuer.is_none() && sources.is_empty() && flags.targets.is_empty()
}

/// Where to look and what to try; every line of it works when pasted into another terminal.
fn welcome(issuer: &Issuer, data_dir: &Path, started: &Started) -> String {
    let program =
        std::env::current_exe().map_or_else(|_| "signpost".to_owned(), |path| path.display().to_string());
    let data = data_dir.display();
    let admin = started.admin;
    format!(
        "
Signpost signs and publishes by itself: no cluster, no cloud, no account.

  issuer   {issuer}
  files    {data}/public
  ledger   {data}/issuers
  status   http://{admin}/status.json
  metrics  http://{admin}/metrics

Try in another terminal:

  curl -s {discovery}
  curl -s {jwks}
  {program} token --data-dir {data} | {program} verify --token -
  {program} rotate status --data-dir {data}
  {program} ledger show --data-dir {data}

A key signs for 30 s and its tokens live as long, so `rotate status` shows a whole life within two minutes.
Stop it with Ctrl-C. With a cluster: `{program} run --help`.
",
        discovery = issuer.discovery_url(),
        jwks = issuer.jwks_uri(),
    )
}
