//! The difference between a new configuration and the one in use, per issuer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{Config, InvalidConfig, IssuerConfig, Problem};
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
        let (now, wanted) = (self.process_settings(), next.process_settings());
        let none = || "none".to_owned();
        let differing = now.keys().chain(wanted.keys()).filter(|key| now.get(*key) != wanted.get(*key));
        let problems: Vec<_> = differing
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|key| {
                let [now, wanted] = [&now, &wanted].map(|of| of.get(key).cloned().unwrap_or_else(none));
                Problem {
                    path: key.clone(),
                    message: format!("is `{wanted}`, expected `{now}` while the process runs"),
                    hint: Some("restart signpost to change it".to_owned()),
                }
            })
            .collect();
        if problems.is_empty() {
            Ok(compare(&self.issuers, &next.issuers))
        } else {
            Err(InvalidConfig { origin: "the new configuration".to_owned(), problems })
        }
    }

    /// The settings that are not of an issuer, by path.
    fn process_settings(&self) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let Self { listen, admin_listen, tls, max_connections, data_dir, events, issuers: _ } = self;
        let mut add = |key: &str, value: serde_json::Value| match value {
            serde_json::Value::Null => {}
            serde_json::Value::Object(entries) => settings
                .extend(entries.into_iter().map(|(inner, value)| (format!("{key}.{inner}"), plain(&value)))),
            value => _ = settings.insert(key.to_owned(), plain(&value)),
        };
        add("listen", json!(listen));
        add("admin_listen", json!(admin_listen));
        add("tls", json!(tls));
        add("max_connections", json!(max_connections));
        add("data_dir", json!(data_dir));
        add("events", json!(events));
        settings
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
