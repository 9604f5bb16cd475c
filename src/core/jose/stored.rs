//! How ledgers, journals and announcements are stored: versioned JSON.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{json, jwk::Jwk, kid::Kid};
use crate::core::text::redaction::brief;

/// The format that this version writes, and the newest that it reads. Version 1 used other names for some
/// members.
pub const VERSION: u32 = 2;

/// Reads a document, whose members have these names in version 1: each is a path, `*` for every member of an
/// object or list, and the new name of its last part.
///
/// # Errors
///
/// Fails if a newer version wrote it or if it is damaged.
pub fn read<T: DeserializeOwned>(
    kind: &'static str,
    bytes: &[u8],
    version_1: &[(&str, &str)],
) -> Result<T, InvalidDocument> {
    /// Whatever its other members: distinguishes a newer document from a damaged one.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |error: serde_json::Error| InvalidDocument::damaged(kind, &error.to_string());
    let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > VERSION {
        return Err(InvalidDocument::Newer { kind, version });
    }
    if version == VERSION {
        return serde_json::from_slice(bytes).map_err(damaged);
    }
    let mut document = json::parse(bytes).map_err(damaged)?;
    document["version"] = VERSION.into();
    for (path, new) in version_1 {
        rename(&mut document, path, new).map_err(|reason| InvalidDocument::damaged(kind, &reason))?;
    }
    serde_json::from_value(document).map_err(damaged)
}

fn rename(value: &mut Value, path: &str, new: &str) -> Result<(), String> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    match (value, rest) {
        (Value::Object(members), Some(rest)) if name == "*" => {
            members.values_mut().try_for_each(|value| rename(value, rest, new))
        }
        (Value::Array(items), Some(rest)) => items.iter_mut().try_for_each(|value| rename(value, rest, new)),
        (Value::Object(members), Some(rest)) => {
            members.get_mut(name).map_or(Ok(()), |value| rename(value, rest, new))
        }
        (Value::Object(members), None) if members.contains_key(new) => Err(format!("unknown field `{new}`")),
        (Value::Object(members), None) => {
            if let Some(value) = members.remove(name) {
                members.insert(new.to_owned(), value);
            }
            Ok(())
        }
        (Value::String(text), None) if text == name => {
            new.clone_into(text);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Indented JSON, for operators to read and to diff.
#[must_use]
pub fn to_json(document: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(document).expect("strings and times always serialise");
    json.push(b'\n');
    json
}

/// Checks that each key is stored under its kid.
///
/// # Errors
///
/// Fails if one is not.
pub fn check_kids<'a>(
    kind: &'static str,
    mut keys: impl Iterator<Item = (&'a Kid, &'a Jwk)>,
) -> Result<(), InvalidDocument> {
    keys.find(|(kid, key)| *kid != key.kid()).map_or(Ok(()), |(kid, key)| {
        Err(InvalidDocument::damaged(kind, &format!("entry `{kid}` holds key `{}`", key.kid())))
    })
}

/// A stored document cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDocument {
    #[error("{kind} has version {version}, this program knows versions up to {VERSION}")]
    Newer { kind: &'static str, version: u32 },
    #[error("damaged {kind}: {reason}")]
    Damaged { kind: &'static str, reason: String },
}

impl InvalidDocument {
    #[must_use]
    pub fn damaged(kind: &'static str, reason: &str) -> Self {
        Self::Damaged { kind, reason: brief(reason).into_owned() }
    }
}
