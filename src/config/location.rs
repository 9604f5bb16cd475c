//! The location of a target, written as a URL.

use std::path::Path;

use url::Url;

use super::{problem::Fault, suggest, value};
use crate::core::location::Location;

/// The schemes of a target's URL.
const SCHEMES: [&str; 5] = ["az", "s3", "gs", "gcp-wif", "file"];

impl Location {
    /// Parses a target's URL; nothing is percent-decoded.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let known = suggest::one_of(["az://…", "s3://…", "gs://…", "gcp-wif://…", "file:///…"]);
            let fault = Fault::new(format!("`{text}` has no scheme, expected {known}"));
            return Err(if text.starts_with('/') {
                fault.hint(format!("write `file://{text}`"))
            } else {
                fault
            });
        };
        // A directory is a path, which may contain any character.
        if scheme != "file" {
            value::without_secrets(text, value::STORE_CREDENTIALS)?;
        }
        match scheme {
            "az" => azure(text, rest),
            "s3" => s3(text, rest),
            "file" => directory(text, rest),
            "gs" => gcs(text, rest),
            "gcp-wif" => workload_identity_provider(text, rest),
            _ => Err(Fault::new(format!(
                "`{text}` has the unknown scheme `{scheme}`, {}",
                suggest::or_all(scheme, SCHEMES)
            ))),
        }
    }

    /// The same location at another endpoint; a directory, which has none, is an error.
    pub(super) fn with_endpoint(self, url: Url) -> Result<Self, Fault> {
        match self {
            Self::Azure { account, container, prefix, .. } => {
                Ok(Self::Azure { account, container, prefix, endpoint: Some(url) })
            }
            Self::S3 { bucket, prefix, .. } => Ok(Self::S3 { bucket, prefix, endpoint: Some(url) }),
            // Every request goes to `ENDPOINT/BUCKET/OBJECT`.
            Self::Gcs { .. } | Self::WorkloadIdentityProvider { .. } if url.path() != "/" => Err(Fault::new(
                format!("`{url}` has a path, expected the address of a service of Google's without one"),
            )),
            Self::Gcs { bucket, prefix, .. } => Ok(Self::Gcs { bucket, prefix, endpoint: Some(url) }),
            Self::WorkloadIdentityProvider { name, .. } => {
                Ok(Self::WorkloadIdentityProvider { name, endpoint: Some(url) })
            }
            Self::Directory(_) => Err(Fault::new("a directory has no endpoint, expected none")),
        }
    }

    /// Whether the store has an address for anonymous reads.
    pub(super) fn check_anonymous(&self) -> Result<(), Fault> {
        match self {
            Self::Directory(_) => Err(Fault::new("is `true`, but a directory has no address of its own")
                .hint("write `public_url` with the address of the web server that serves it")),
            Self::Azure { container, .. } if container == "$web" => {
                Err(Fault::new("is `true`, but `$web` is read at the address of the static website").hint(
                    "write `public_url` with the static website's address, such as \
                           `https://ACCOUNT.z6.web.core.windows.net`",
                ))
            }
            Self::WorkloadIdentityProvider { .. } => Err(Fault::new(
                "is `true`, but Google alone reads the keys of a workload identity pool provider, expected `false`",
            )),
            Self::Azure { .. } | Self::S3 { .. } | Self::Gcs { .. } => Ok(()),
        }
    }
}

fn azure(text: &str, rest: &str) -> Result<Location, Fault> {
    let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (container, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if !(3..=24).contains(&account.len())
        || !account.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return Err(Fault::new(format!(
            "`{text}` has account `{account}`, expected 3 to 24 lower-case letters and digits"
        ))
        .hint("write `az://ACCOUNT/CONTAINER/PREFIX`"));
    }
    if container.is_empty() {
        return Err(Fault::new(format!(
            "`{text}` has no container, expected `az://ACCOUNT/CONTAINER/PREFIX`"
        ))
        .hint(format!("write `az://{account}/$web` for its static website")));
    }
    let special = ["$web", "$root"].contains(&container);
    if !special && (container.len() < 3 || !value::is_label(container) || container.contains("--")) {
        return Err(Fault::new(format!(
            "`{text}` has container `{container}`, expected `$web` or 3 to 63 lower-case letters, digits and \
             single hyphens"
        )));
    }
    let prefix = checked_prefix(text, prefix)?;
    Ok(Location::Azure {
        account: account.to_owned(),
        container: container.to_owned(),
        prefix,
        endpoint: None,
    })
}

fn s3(text: &str, rest: &str) -> Result<Location, Fault> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if !(3..=63).contains(&bucket.len()) || !bucket.split('.').all(value::is_label) {
        return Err(Fault::new(format!(
            "`{text}` has bucket `{bucket}`, expected 3 to 63 lower-case letters, digits, hyphens and dots"
        ))
        .hint("write `s3://BUCKET/PREFIX`"));
    }
    let prefix = checked_prefix(text, prefix)?;
    Ok(Location::S3 { bucket: bucket.to_owned(), prefix, endpoint: None })
}

/// Source: "About Cloud Storage buckets", naming.
fn gcs(text: &str, rest: &str) -> Result<Location, Fault> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_end =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_good = (3..=222).contains(&bucket.len())
        && bucket.split('.').all(|part| (1..=63).contains(&part.len()))
        && bucket.bytes().all(|byte| is_end(Some(byte)) || b"-_.".contains(&byte))
        && is_end(bucket.bytes().next())
        && is_end(bucket.bytes().last());
    if !is_good {
        return Err(Fault::new(format!(
            "`{text}` has bucket `{bucket}`, expected 3 to 63 lower-case letters, digits, hyphens, underscores \
             and dots"
        ))
        .hint("write `gs://BUCKET/PREFIX`"));
    }
    let prefix = checked_prefix(text, prefix)?;
    Ok(Location::Gcs { bucket: bucket.to_owned(), prefix, endpoint: None })
}

/// Source: "projects.locations.workloadIdentityPools.providers", `create`: IDs have 4 to 32 of these characters.
/// The project is a number or an ID.
fn workload_identity_provider(text: &str, rest: &str) -> Result<Location, Fault> {
    let is_id = |id: &str| {
        (4..=32).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_project = |project: &str| project.split([':', '.']).all(value::is_label);
    let segments: Vec<_> = rest.split('/').collect();
    let refused = match segments[..] {
        [
            "projects",
            project,
            "locations",
            "global",
            "workloadIdentityPools",
            pool,
            "providers",
            provider,
        ] => {
            let parts = [
                ("project", project, is_project(project), "its number or ID"),
                ("pool", pool, is_id(pool), "4 to 32 lower-case letters, digits and hyphens"),
                ("provider", provider, is_id(provider), "4 to 32 lower-case letters, digits and hyphens"),
            ];
            parts.into_iter().find(|(.., is_good, _)| !is_good).map(|(kind, id, _, expected)| {
                Fault::new(format!("`{text}` has {kind} `{id}`, expected {expected}"))
            })
        }
        _ => Some(Fault::new(format!(
            "`{text}` is not the resource name of a workload identity pool provider"
        ))),
    };
    match refused {
        None => Ok(Location::WorkloadIdentityProvider { name: rest.to_owned(), endpoint: None }),
        Some(fault) => Err(fault.hint(
            "write `gcp-wif://projects/PROJECT/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`",
        )),
    }
}

/// Removes one trailing `/` and rejects segments that a store or a reader would resolve.
fn checked_prefix(text: &str, prefix: &str) -> Result<String, Fault> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    match prefix.split('/').find(|segment| matches!(*segment, "" | "." | "..")) {
        Some(segment) if !prefix.is_empty() => Err(Fault::new(format!(
            "`{text}` has the path segment `{segment}`, expected none that is empty, `.` or `..`"
        ))),
        _ => Ok(prefix.to_owned()),
    }
}

fn directory(text: &str, path: &str) -> Result<Location, Fault> {
    if !path.starts_with('/') {
        return Err(Fault::new(format!("`{text}` is relative, expected `file:///` and an absolute path"))
            .hint(format!("write `file:///{path}`, or give a relative path with `--target`")));
    }
    if path.trim_matches('/').is_empty() {
        return Err(Fault::new(format!(
            "`{text}` is the root of the file system, expected a directory below it"
        )));
    }
    // Components drop doubled and trailing slashes, so that one directory has one name.
    Ok(Location::Directory(Path::new(path).components().collect()))
}
