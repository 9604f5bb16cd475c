//! The difference between a new configuration and the one in use, per issuer.

use std::{collections::BTreeMap, fmt::Display, path::Path};

use super::{Config, EventsConfig, InvalidConfig, IssuerConfig, Problem, TlsConfig};
use crate::core::jose::issuer::Issuer;

/// The steps from one configuration to the next. Unchanged issuers are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changed issuers, with their new configuration.
    pub changed: Vec<IssuerConfig>,
    pub added: Vec<IssuerConfig>,
    pub removed: Vec<Issuer>,
}

impl Config {
    /// Compares this configuration with the next one.
    ///
    /// # Errors
    ///
    /// Names every value that a running process cannot change: its listeners, its data directory, and the
    /// target of its Events.
    /// The files that `tls` names may change at any time.
    pub fn changes_to(&self, next: &Self) -> Result<Changes, InvalidConfig> {
        let mut problems = Vec::new();
        let mut keep = |key: &str, now: &dyn Display, wanted: &dyn Display| {
            let (now, wanted) = (now.to_string(), wanted.to_string());
            if now != wanted {
                problems.push(Problem {
                    path: key.to_owned(),
                    message: format!("is `{wanted}`, expected `{now}` while the process runs"),
                    hint: Some("restart signpost to change it".to_owned()),
                });
            }
        };
        keep("listen", &self.listen, &next.listen);
        keep("admin_listen", &self.admin_listen, &next.admin_listen);
        let path = |tls: &Option<TlsConfig>, path: fn(&TlsConfig) -> &Path| {
            tls.as_ref().map_or_else(|| "none".to_owned(), |tls| path(tls).display().to_string())
        };
        for (key, of) in [
            ("tls.certificate", (|tls| &tls.certificate) as fn(&TlsConfig) -> &Path),
            ("tls.private_key", |tls| &tls.private_key),
        ] {
            keep(key, &path(&self.tls, of), &path(&next.tls, of));
        }
        keep("max_connections", &self.max_connections, &next.max_connections);
        let events = |config: &Self, of: fn(&EventsConfig) -> Option<String>| {
            config.events.as_ref().and_then(of).unwrap_or_else(|| "none".to_owned())
        };
        for (key, of) in [
            (
                "events.pod",
                (|events| Some(format!("{}/{}", events.namespace, events.pod)))
                    as fn(&EventsConfig) -> Option<String>,
            ),
            ("events.pod_uid", |events| events.pod_uid.clone()),
            ("events.kubeconfig", |events| events.kubeconfig.as_ref().map(|path| path.display().to_string())),
            ("events.context", |events| events.context.clone()),
        ] {
            keep(key, &events(self, of), &events(next, of));
        }
        keep("data_dir", &self.data_dir.display(), &next.data_dir.display());
        if problems.is_empty() {
            Ok(compare(&self.issuers, &next.issuers))
        } else {
            Err(InvalidConfig { origin: "the new configuration".to_owned(), problems })
        }
    }
}

fn compare(before: &[IssuerConfig], after: &[IssuerConfig]) -> Changes {
    let mut removed: BTreeMap<&Issuer, &IssuerConfig> =
        before.iter().map(|config| (&config.issuer, config)).collect();
    let mut changes = Changes::default();
    for config in after {
        match removed.remove(&config.issuer) {
            None => changes.added.push(config.clone()),
            Some(before) if before != config => changes.changed.push(config.clone()),
            Some(_) => {}
        }
    }
    changes.removed = removed.into_keys().cloned().collect();
    changes
}

#[cfg(test)]
mod tests;
