//! The signing node: its socket, and what it reports to its API server.

use std::{collections::BTreeSet, time::Duration};

use super::{Reported, SHORTEST_KUBERNETES_TOKEN};
use crate::{
    config::{
        Pkcs11Config, SignerConfig, SourceConfig, TargetConfig, VerificationKeyConfig,
        problem::{Fault, Problems},
        reader::Mapping,
        value,
    },
    core::{
        jose::jwk_set::Profile,
        signer::{KeyType, SocketName, announcement::NodeName},
    },
};

pub(super) fn read(
    issuer: &Mapping<'_>,
    max_token_lifetime: Option<Duration>,
    problems: &mut Problems,
) -> Result<Option<SignerConfig>, Reported> {
    if issuer.get("signer").is_none() {
        return Ok(None);
    }
    let signer = issuer.mapping("signer", problems).ok_or(Reported)?;
    if let Some(lifetime) = max_token_lifetime.filter(|lifetime| *lifetime < SHORTEST_KUBERNETES_TOKEN) {
        let fault = Fault::new(format!(
            "`{}` is too short, expected at least `10m`: kube-apiserver rejects a signer that allows less",
            value::duration_text(lifetime)
        ));
        issuer.refuse("max_token_lifetime", fault, problems);
    }
    let socket = signer.parsed("socket", problems, |text| {
        SocketName::parse(text).map_err(|error| Fault::new(error.to_string()))
    });
    let mode = signer.parsed("mode", problems, mode);
    let gid = signer.parsed("group", problems, |text| number(text, "group"));
    let node = signer.parsed("node", problems, |text| {
        NodeName::parse(text).map_err(|error| Fault::new(error.to_string()))
    });
    let mut uids = BTreeSet::new();
    for (at, text) in signer.texts("users", problems).ok_or(Reported)? {
        match number(text, "user") {
            Ok(uid) => _ = uids.insert(uid),
            Err(fault) => at.refuse(fault, problems),
        }
    }
    let api_audiences = signer.texts("api_audiences", problems).ok_or(Reported)?;
    let refresh_hint = signer.duration("refresh_hint", problems);
    let key_type = signer.choice("key_type", problems, &KeyType::ALL, KeyType::name);
    let pkcs11 = read_pkcs11(&signer, problems)?;
    let admin_listen = signer.address("admin_listen", problems);
    let mut legacy = Vec::new();
    for mapping in signer.mappings("additional_verification_keys", problems).ok_or(Reported)? {
        let file = mapping.path("file", problems);
        let exclude = mapping.bool("exclude", problems);
        legacy.extend(file.zip(exclude).map(|(file, exclude)| VerificationKeyConfig { file, exclude }));
    }
    Ok(Some(SignerConfig {
        socket,
        mode: mode.ok_or(Reported)?,
        gid,
        uids,
        node,
        api_audiences: api_audiences.into_iter().map(|(_, text)| text.to_owned()).collect(),
        refresh_hint: refresh_hint.ok_or(Reported)?,
        key_type: key_type.ok_or(Reported)?,
        pkcs11,
        admin_listen,
        additional_verification_keys: legacy,
    }))
}

fn read_pkcs11(signer: &Mapping<'_>, problems: &mut Problems) -> Result<Option<Pkcs11Config>, Reported> {
    if signer.get("pkcs11").is_none() {
        return Ok(None);
    }
    let mapping = signer.mapping("pkcs11", problems).ok_or(Reported)?;
    let module = mapping.path("module", problems);
    let token_label = mapping.text("token_label", problems);
    let pin_file = mapping.path("pin_file", problems);
    Ok(Some(Pkcs11Config {
        module: module.ok_or(Reported)?,
        token_label: token_label.ok_or(Reported)?,
        pin_file: pin_file.ok_or(Reported)?,
    }))
}

/// Rejects an admin listener of a signer within `signpost run`, which would never be opened.
pub(super) fn check_listener(
    issuer: &Mapping<'_>,
    signer: &SignerConfig,
    sources: &[SourceConfig],
    problems: &mut Problems,
) {
    if signer.admin_listen.is_some()
        && sources.contains(&SourceConfig::Embedded)
        && let Some(signer) = issuer.mapping("signer", problems)
    {
        let fault =
            Fault::new("has no effect with the source `embedded`, whose signer is a part of `signpost run`");
        signer.refuse(
            "admin_listen",
            fault.hint("remove it: `admin_listen` of the file serves that signer too"),
            problems,
        );
    }
}

/// Rejects keys that a target leaves out although they wait for that target to serve them.
pub(super) fn check_profiles(
    issuer: &Mapping<'_>,
    key_type: KeyType,
    profile: Profile,
    targets: &[TargetConfig],
    problems: &mut Problems,
) {
    let leaves_out = |profile: Profile| profile == Profile::Entra && !key_type.suits_entra();
    let own = leaves_out(profile).then(|| "the issuer".to_owned());
    let gating = targets.iter().filter(|target| target.required_for_rotation && leaves_out(target.profile));
    let places: Vec<_> =
        own.into_iter().chain(gating.map(|target| format!("target `{}`", target.name))).collect();
    let Some(signer) = issuer.mapping("signer", problems).filter(|_| !places.is_empty()) else { return };
    let fault = Fault::new(format!(
        "`{}` keys are left out by profile `{}` of {}, so none would ever sign",
        key_type.name(),
        Profile::Entra.name(),
        places.join(", "),
    ));
    let hint = "Microsoft Entra needs RS256: remove `key_type`; for others, set `profile: all`";
    signer.refuse("key_type", fault.hint(hint), problems);
}

fn mode(text: &str) -> Result<u32, Fault> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err(Fault::new(format!("`{text}` is not a socket mode, expected one such as `0660`"))),
    }
}

fn number(text: &str, what: &str) -> Result<u32, Fault> {
    text.parse().map_err(|_| {
        Fault::new(format!("`{text}` is not the number of a {what}, expected one such as `65532`"))
    })
}
