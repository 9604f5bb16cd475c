//! `signpost run`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Failure, block_on, checked, eprint, error_report::ExitStatus, load, read_config, working_directory,
};
use crate::{
    app::{self, AppError, ConfigReader, DirectoryInUse, Started},
    config::{Flags, KeyFlags},
    core::jose::issuer::Issuer,
};

pub(super) fn run(flags: &Flags) -> Result<ExitStatus, Failure> {
    let config = load(flags)?;
    let first_look = is_first_look(flags).then(|| FirstLook {
        issuer: config.issuers[0].issuer.clone(),
        data_dir: config.data_dir.to_path_buf(),
        addresses: [config.listen.0, config.admin_listen.0],
    });
    let ran = block_on(app::run(config, reread(flags)?, |started| {
        if let Some(FirstLook { issuer, data_dir, .. }) = &first_look {
            eprint(&welcome(issuer, data_dir, started));
        }
    }));
    ran.map_err(|error| match first_look.and_then(|first_look| first_look.beside(&error)) {
        Some(hint) => Failure::new(&error, Some(&hint)),
        None => error.into(),
    })?;
    Ok(ExitStatus::Success)
}

/// A first run without configuration: a new issuer on this machine.
struct FirstLook {
    issuer: Issuer,
    data_dir: PathBuf,
    addresses: [SocketAddr; 2],
}

impl FirstLook {
    /// How to start it beside another process that has its addresses or its directory.
    fn beside(&self, error: &AppError) -> Option<String> {
        let data_dir = match error {
            AppError::Listen(error) if error.is_taken() => self.data_dir.clone(),
            AppError::DirectoryInUse(DirectoryInUse::Held { .. }) => {
                let name = |number| PathBuf::from(format!("{}-{number}", self.data_dir.display()));
                (2..100).map(name).find(|path| !path.exists())?
            }
            _ => return None,
        };
        let [listen, admin] = app::free_addresses(self.addresses);
        Some(format!(
            "stop it, or start this one next to it: `{} run --listen {listen} --admin-listen {admin} \
             --data-dir {}`",
            program(),
            data_dir.display()
        ))
    }
}

fn program() -> String {
    std::env::current_exe().map_or_else(|_| "signpost".to_owned(), |path| path.display().to_string())
}

/// Reads the configuration again, with the flags and the environment of the start. `None` without a file,
/// because nothing can have changed.
fn reread(flags: &Flags) -> Result<Option<ConfigReader>, Failure> {
    if flags.keys.config.is_none() {
        return Ok(None);
    }
    let (flags, cwd) = (flags.clone(), working_directory()?);
    Ok(Some(ConfigReader::new(move || {
        let text = read_config(flags.keys.config.as_deref())?;
        Ok(checked(&flags, text.as_ref(), &cwd)?)
    })))
}

/// Whether this is a first run: a new issuer on this machine without any configuration.
fn is_first_look(flags: &Flags) -> bool {
    let KeyFlags { config, issuer, sources, .. } = &flags.keys;
    config.is_none() && issuer.is_none() && sources.is_empty() && flags.targets.is_empty()
}

/// Where to look and what to try; every line can be pasted into another terminal.
fn welcome(issuer: &Issuer, data_dir: &Path, started: &Started) -> String {
    let program = program();
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

A key signs for 30 s and its tokens live as long, so `rotate status` shows the full life cycle of a key within two minutes.
Stop it with Ctrl-C. With a cluster: `{program} run --help`.
",
        discovery = issuer.discovery_url(),
        jwks = issuer.jwks_uri(),
    )
}
