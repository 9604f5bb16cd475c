//! The URL of the JWKS for relying parties: by default where Signpost writes and serves it.

use std::collections::hash_map::Entry;

use super::{
    issuer::Known,
    problem::{Fault, Problems},
    section::Section,
    value::WebUrl,
};
use crate::core::jose::issuer::{DISCOVERY_PATH, Issuer, path_below};

/// The URL that is configured, or else follows from the issuer.
pub(super) fn effective(uri: Option<&WebUrl>, issuer: &Issuer) -> String {
    uri.map_or_else(|| issuer.jwks_uri(), ToString::to_string)
}

/// Checks `jwks_uri` and whether it is served elsewhere, against the issuer and the documents of others.
pub(super) fn check(
    (issuer, uri, elsewhere): (&Issuer, Option<&WebUrl>, bool),
    at: &Section<'_>,
    known: &mut Known,
    problems: &mut Problems,
) {
    if !problems.none_at(at, &["jwks_uri", "jwks_served_elsewhere"]) {
        return;
    }
    if elsewhere && uri.is_none() {
        let fault = Fault::new("needs `jwks_uri`, which is missing");
        at.refuse_key("jwks_served_elsewhere", fault.hint("set `jwks_uri`, or remove this"), problems);
        return;
    }
    let fault = match uri.map(|uri| (uri, path_below(issuer.as_str(), uri))) {
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
        at.refuse_key(key, fault, problems);
        return;
    }
    if elsewhere {
        return;
    }
    match known.issuers.entry(effective(uri, issuer)) {
        // A second issuer of the same name is already reported.
        Entry::Occupied(first) if uri.is_some() => {
            at.refuse_key("jwks_uri", at.taken("document", first.key(), first.get()), problems);
        }
        Entry::Occupied(_) => {}
        Entry::Vacant(free) => {
            free.insert(at.name());
        }
    }
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
