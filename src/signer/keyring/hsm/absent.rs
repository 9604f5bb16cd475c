//! Replaces the PKCS#11 token in a build without PKCS#11.

use super::{HsmError, HsmSettings};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid},
    signer::KeyType,
};

/// Has no values.
#[derive(Debug)]
pub enum Hsm {}

impl Hsm {
    pub(in crate::signer::keyring) fn open(_: &HsmSettings) -> Result<Self, HsmError> {
        Err(HsmError::NotBuilt)
    }

    pub(in crate::signer::keyring) fn generate(&self, _: KeyType) -> Result<Jwk, HsmError> {
        match *self {}
    }

    pub(in crate::signer::keyring) fn has(&self, _: &Kid) -> Result<bool, HsmError> {
        match *self {}
    }

    pub(in crate::signer::keyring) fn destroy(&self, _: &Kid) -> Result<(), HsmError> {
        match *self {}
    }

    pub(in crate::signer::keyring) fn sign(&self, _: &Jwk, _: &[u8]) -> Result<Vec<u8>, HsmError> {
        match *self {}
    }
}
