//! Targets: each has its own location, which the issuer's readers can reach.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Position, Url};

use super::{
    issuer::Known,
    problem::{Fault, Problems},
    section::{Section, UniqueNames},
    value::{self, AbsolutePath, Endpoint, WebUrl},
};
use crate::core::{
    jose::{issuer::Issuer, jwk_set::Profile},
    location::Location,
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// `az://ACCOUNT/CONTAINER/PREFIX`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `file:///DIRECTORY`, or
    /// `gcp-wif://projects/PROJECT/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`.
    /// Credentials come from the environment, never from here.
    #[serde(rename = "url")]
    #[schemars(example = "az://account/$web")]
    pub location: Location,
    /// Name in logs, metrics and the ledger; unique in its issuer. By default: the url.
    #[serde(default)]
    #[schemars(example = &"eu")]
    pub name: String,
    /// Public URL of what is stored there: read back from there too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "https://oidc.example.com/kind")]
    pub public_url: Option<WebUrl>,
    /// Whether relying parties read directly from the store: read back without credentials too, at the address
    /// of the store itself, to detect a private bucket.
    #[serde(default)]
    #[schemars(example = true)]
    pub anonymous: bool,
    /// Whether a new key must be shown here before it may sign. With `false`, rotation does not wait for this
    /// target; its failures are still reported.
    #[serde(default = "super::yes")]
    #[schemars(example = false)]
    pub required_for_rotation: bool,
    /// Endpoint of the service, instead of the cloud's own: a private S3 server, an emulator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "http://127.0.0.1:9000")]
    endpoint: Option<Endpoint>,
    /// PEM file of additional trusted certificate authorities, for `endpoint` and `public_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/signpost/store-ca.crt")]
    pub ca_file: Option<AbsolutePath>,
    /// Profile of this target; that of the issuer by default.
    #[schemars(example = &"all")]
    profile: Option<Profile>,
}

impl TargetConfig {
    /// Which keys are published here.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile.unwrap_or_default()
    }

    /// The public URL, without a `/` at its end.
    #[must_use]
    pub fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }
}

/// Derives names and profiles, and checks each target of `owner`: an issuer or a previous one.
pub(super) fn check(
    targets: &mut [TargetConfig],
    (owner, issuer): (&Section<'_>, Option<&Issuer>),
    profile: Profile,
    names: &mut UniqueNames,
    known: &mut Known,
    problems: &mut Problems,
) {
    for (target, at) in targets.iter_mut().zip(owner.items("targets")) {
        target.profile.get_or_insert(profile);
        if let Some(url) = &mut target.public_url {
            if target.location.is_relying_party() {
                let fault = Fault::new(
                    "Google alone reads the keys of a workload identity pool provider, expected none",
                );
                at.refuse_key("public_url", fault, problems);
            } else if let Some(Err(fault)) = issuer.map(|issuer| public_url(url, issuer)) {
                at.refuse_key("public_url", fault, problems);
            }
            *url = WebUrl::derived(url.strip_suffix('/').unwrap_or(url));
        }
        if !problems.none_at(&at, &["url"]) {
            continue;
        }
        if let Some(Endpoint(url)) = target.endpoint.clone() {
            match target.location.clone().with_endpoint(url) {
                Ok(location) => target.location = location,
                Err(fault) => at.refuse_key("endpoint", fault, problems),
            }
        }
        if let Err(fault) = check_location(&target.location, issuer, known, &at) {
            at.refuse_key("url", fault, problems);
            continue;
        }
        if target.anonymous
            && let Err(fault) = target.location.check_anonymous()
        {
            at.refuse_key("anonymous", fault, problems);
        }
        known.locations.insert(target.location.clone(), at.name());
        if target.name.is_empty() {
            target.name = target.location.to_string();
        }
        if problems.none_at(&at, &["name"]) {
            names.check(&target.name, &at, problems);
        }
    }
}

/// The public URL for relying parties: at the issuer's own host they read no other path.
fn public_url(text: &str, issuer: &Issuer) -> Result<(), Fault> {
    let url = Url::parse(text).expect("a `WebUrl` is a URL");
    let path = url.path().strip_suffix('/').unwrap_or(url.path());
    if url[Position::BeforeHost..Position::BeforePath] == *issuer.authority() && path != issuer.path() {
        let fault = Fault::new(format!(
            "`{text}` is at the host of issuer `{issuer}` with another path, where no relying party reads"
        ));
        return Err(fault.hint(format!("write `{issuer}`, or the address of the store behind it")));
    }
    Ok(())
}

fn check_location(
    location: &Location,
    issuer: Option<&Issuer>,
    known: &Known,
    at: &Section<'_>,
) -> Result<(), Fault> {
    if let Some(first) = known.locations.get(location) {
        return Err(at.taken("location", &location.to_string(), first));
    }
    let Some(directory) = location.as_directory() else { return reachable(location, issuer) };
    // A web server for this directory would serve the private keys too.
    match known.data_dir.as_deref().filter(|data_dir| data_dir.starts_with(directory)) {
        Some(data_dir) => Err(Fault::new(format!(
            "`{location}` holds data_dir (`{}`), where private keys are, expected another directory",
            data_dir.display()
        ))),
        None => Ok(()),
    }
}

/// Readers of a cloud target are on other machines, where an `http` issuer on loopback means the reader
/// itself. An emulator on this machine is no cloud.
fn reachable(location: &Location, issuer: Option<&Issuer>) -> Result<(), Fault> {
    let emulator = location.endpoint().is_some_and(value::is_loopback);
    match issuer.filter(|issuer| issuer.as_str().starts_with("http://") && !emulator) {
        Some(issuer) if location.is_relying_party() => {
            Err(Fault::new(format!("`{location}` trusts https issuers only, issuer is `{issuer}`")))
        }
        Some(issuer) => {
            Err(Fault::new(format!("`{location}` is public, but issuer `{issuer}` is not reachable"))
                .hint("set an https `issuer`, or use a directory as target"))
        }
        None => Ok(()),
    }
}
