//! The dot-file that records the owners of a directory's documents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    core::{jose::publication::Document, ledger::Lineage},
    target::{Change, Owner},
};

/// Raised when an older program would misread the file.
const VERSION: u32 = 1;

/// The owner of each document, as a store would keep it with the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owners(BTreeMap<Document, Owner>);

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u32,
    #[serde(default)]
    owners: BTreeMap<String, RawOwner>,
}

#[derive(Serialize, Deserialize)]
struct RawOwner {
    lineage: Lineage,
    sequence: u64,
}

impl Owners {
    /// Parses the file; the error describes the fault.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |error: serde_json::Error| format!("is damaged: {error}");
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(damaged)?;
        match json["version"].as_u64() {
            Some(version) if version <= VERSION.into() => {}
            Some(version) => return Err(format!("has version {version}, expected at most {VERSION}")),
            None => return Err("is damaged: it has no version".to_owned()),
        }
        let raw: Raw = serde_json::from_value(json).map_err(damaged)?;
        let owner = |document: Document| {
            let RawOwner { lineage, sequence } = raw.owners.get(document.name())?;
            Some((document, Owner { lineage: lineage.clone(), sequence: *sequence }))
        };
        Ok(Self(Document::IN_WRITE_ORDER.into_iter().filter_map(owner).collect()))
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let owner = |(document, owner): (&Document, &Owner)| {
            let Owner { lineage, sequence } = owner.clone();
            (document.name().to_owned(), RawOwner { lineage, sequence })
        };
        let raw = Raw { version: VERSION, owners: self.0.iter().map(owner).collect() };
        serde_json::to_vec_pretty(&raw).expect("strings and numbers always serialise")
    }

    pub(super) fn get(&self, document: Document) -> Option<&Owner> {
        self.0.get(&document)
    }

    /// The same owners, with that of one document replaced.
    pub(super) fn with(mut self, change: &Change) -> Self {
        self.0.insert(change.document, change.owner.clone());
        self
    }
}
