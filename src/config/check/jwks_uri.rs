//! The URL of the JWKS for relying parties: by default where Signpost writes and serves it.

use std::collections::hash_map::Entry;

use super::UsedNames;
use crate::{
    config::{
        problem::{Fault, Problems},
        reader::Mapping,
        value::{self, Web},
    },
    core::jose::issuer::{DISCOVERY_PATH, Issuer, path_below},
};

/// `None` where it follows from the issuer, and where a problem is already reported.
pub(super) fn read(
    mapping: &Mapping<'_>,
    issuer: Option<&Issuer>,
    known: &mut UsedNames,
    problems: &mut Problems,
) -> Option<String> {
    let given = mapping.get("jwks_uri").is_some();
    let uri = mapping
        .parsed("jwks_uri", problems, |text| value::web_url(text, Web::Secure).map(|_| text.to_owned()));
    let elsewhere = mapping.bool("jwks_served_elsewhere", problems)?;
    let issuer = issuer?;
    if elsewhere && !given {
        let fault = Fault::new("needs `jwks_uri`, which is missing");
        mapping.refuse("jwks_served_elsewhere", fault.hint("set `jwks_uri`, or remove this"), problems);
        return None;
    }
    if given && uri.is_none() {
        return None;
    }
    let below = uri.as_deref().map(|uri| (uri, path_below(issuer.as_str(), uri)));
    let fault = match below {
        Some((uri, Some(path))) if !is_free(path) => {
            let fault =
                Fault::new(format!("`{uri}` is in the way of other files, expected a path of its own"));
            Some(("jwks_uri", fault.hint("remove `jwks_uri`: it is derived from the issuer")))
        }
        Some((uri, Some(_))) if elsewhere => {
            let fault =
                Fault::new(format!("`{uri}` is below issuer `{issuer}`, where Signpost serves it itself"));
            Some(("jwks_served_elsewhere", fault.hint("remove this, or correct `jwks_uri`")))
        }
        Some((uri, None)) if !elsewhere => {
            let fault = Fault::new(format!(
                "`{uri}` is not a path of letters, digits, `-`, `.` and `_` below issuer `{issuer}`, where Signpost \
                 writes and serves it"
            ));
            let hint = "remove `jwks_uri`; if another server serves the JWKS there, add \
                `jwks_served_elsewhere: true`";
            Some(("jwks_uri", fault.hint(hint)))
        }
        _ => None,
    };
    if let Some((key, fault)) = fault {
        mapping.refuse(key, fault, problems);
        return None;
    }
    if !elsewhere {
        let served = uri.clone().unwrap_or_else(|| issuer.jwks_uri());
        match known.issuers.entry(served) {
            // A second issuer of the same name is already reported.
            Entry::Occupied(first) if given => {
                let fault = mapping.at.taken("document", first.key(), first.get());
                mapping.refuse("jwks_uri", fault, problems);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(mapping.at.name());
            }
        }
    }
    uri
}

/// Whether a path differs from that of the discovery document, is neither above nor below it, and is none of
/// the files that a directory keeps beside the documents.
fn is_free(path: &str) -> bool {
    let is_within = |one: &str, other: &str| {
        one.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    !is_within(path, DISCOVERY_PATH)
        && !is_within(DISCOVERY_PATH, path)
        && !path.split('/').any(|name| name.starts_with(".signpost"))
}
