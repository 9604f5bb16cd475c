//! Targets: each has its own location, which the issuer's readers can reach.

use url::Position;

use super::{UsedNames, unique_name};
use crate::{
    config::{
        TargetConfig,
        problem::{Fault, Problems},
        reader::Mapping,
        value::{self, Web},
    },
    core::{
        jose::{issuer::Issuer, jwk_set::Profile},
        location::Location,
    },
};

pub(super) fn read(
    issuer_mapping: &Mapping<'_>,
    issuer: Option<&Issuer>,
    profile: Option<Profile>,
    known: &mut UsedNames,
    names: &mut Vec<(String, String)>,
    problems: &mut Problems,
) -> Option<Vec<TargetConfig>> {
    let mut targets = Vec::new();
    for mapping in issuer_mapping.mappings("targets", problems)? {
        let location = location(&mapping, problems);
        let name = mapping.text("name", problems);
        let public_url = mapping.parsed("public_url", problems, |text| public_url(text, issuer));
        let (anonymous, gates) =
            (mapping.bool("anonymous", problems), mapping.bool("required_for_rotation", problems));
        let ca_file = mapping.path("ca_file", problems);
        let own_profile = mapping.choice("profile", problems, &Profile::ALL, Profile::name);
        let Some(location) = location else { continue };
        if let Err(fault) = check_location(&location, issuer, known, &mapping) {
            mapping.refuse("url", fault, problems);
            continue;
        }
        if anonymous == Some(true)
            && let Err(fault) = location.check_anonymous()
        {
            mapping.refuse("anonymous", fault, problems);
        }
        known.locations.insert(location.clone(), mapping.at.name());
        let name = name.unwrap_or_else(|| location.to_string());
        unique_name(&name, &mapping, names, problems);
        // An invalid profile is already reported.
        let profile = own_profile.or(profile).unwrap_or_default();
        let (anonymous, gates) = (anonymous.unwrap_or_default(), gates.unwrap_or_default());
        targets.push(TargetConfig {
            name,
            location,
            public_url,
            anonymous,
            ca_file,
            required_for_rotation: gates,
            profile,
        });
    }
    Some(targets)
}

/// The public URL for relying parties: they accept no other scheme than that of an issuer, and at the
/// issuer's own host no other path.
fn public_url(text: &str, issuer: Option<&Issuer>) -> Result<String, Fault> {
    let url = value::web_url(text, Web::Secure)?;
    let path = url.path().strip_suffix('/').unwrap_or(url.path());
    if let Some(issuer) = issuer
        && url[Position::BeforeHost..Position::BeforePath] == *issuer.authority()
        && path != issuer.path()
    {
        let fault = Fault::new(format!(
            "`{text}` is at the host of issuer `{issuer}` with another path, where no relying party reads"
        ));
        return Err(fault.hint(format!("write `{issuer}`, or the address of the store behind it")));
    }
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

fn location(target: &Mapping<'_>, problems: &mut Problems) -> Option<Location> {
    let location = target.parsed("url", problems, Location::parse);
    let endpoint = target.parsed("endpoint", problems, |text| {
        let url = value::web_url(text, Web::Any)?;
        location.clone().map(|location| location.with_endpoint(url)).transpose()
    });
    endpoint.flatten().or(location)
}

fn check_location(
    location: &Location,
    issuer: Option<&Issuer>,
    known: &UsedNames,
    target: &Mapping<'_>,
) -> Result<(), Fault> {
    if let Some(first) = known.locations.get(location) {
        return Err(target.at.taken("location", &location.to_string(), first));
    }
    match location.as_directory() {
        Some(directory) => {
            // A web server for this directory would serve the private keys too.
            let data_dir = known.data_dir.as_deref().filter(|data_dir| data_dir.starts_with(directory));
            match data_dir {
                Some(data_dir) => Err(Fault::new(format!(
                    "`{location}` holds data_dir (`{}`), where private keys are, expected another directory",
                    data_dir.display()
                ))),
                None => Ok(()),
            }
        }
        None => reachable(location, issuer),
    }
}

/// Readers of a cloud target are on other machines, where an `http` issuer on loopback means the reader
/// itself. An emulator on this machine is no cloud.
fn reachable(location: &Location, issuer: Option<&Issuer>) -> Result<(), Fault> {
    let emulator = location.endpoint().is_some_and(value::is_loopback);
    match issuer.filter(|issuer| issuer.as_str().starts_with("http://") && !emulator) {
        Some(issuer) => {
            Err(Fault::new(format!("`{location}` is public, but issuer `{issuer}` is not reachable"))
                .hint("set an https `issuer`, or use a directory as target"))
        }
        None => Ok(()),
    }
}
