//! Decides which tokens may be signed, and with which key.

use std::{collections::BTreeSet, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jiff::Timestamp;
use serde_json::Value;

use super::{DesiredState, Done, Journal};
use crate::core::jose::{json, kid::Kid};

/// How much later than its lifetime from now a token may expire. The API server read its clock before it sent
/// the request; a clock that was set back in between must not fail the request.
const LEEWAY: Duration = Duration::from_secs(10);
/// How far beyond an `exp` the bound moves, so that a busy signer writes to disk once a minute.
const STRIDE: Duration = Duration::from_mins(1);

/// The claims that decide whether a token may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Not empty.
    audiences: Vec<String>,
    expires_at: Timestamp,
}

/// The claims of a token are unreadable. Contains none of their values.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnreadableClaims {
    #[error("not base64url without padding")]
    Encoding,
    #[error("not a JSON object with `aud` and `exp`, with unique members and less than 128 levels")]
    Members,
    #[error("`aud` is empty")]
    NoAudience,
    #[error("`exp` is not a time")]
    NoTime,
}

impl Claims {
    /// Reads the payload of a JWT.
    ///
    /// # Errors
    ///
    /// Returns which part of it is unreadable.
    pub fn read(base64url: &str) -> Result<Self, UnreadableClaims> {
        let bytes = Base64UrlUnpadded::decode_vec(base64url).map_err(|_| UnreadableClaims::Encoding)?;
        // Claims that another parser could read differently are not signed.
        let Ok(Value::Object(mut claims)) = json::parse(&bytes) else {
            return Err(UnreadableClaims::Members);
        };
        let (Some(audiences), Some(exp)) = (claims.remove("aud"), claims.get("exp").and_then(Value::as_i64))
        else {
            return Err(UnreadableClaims::Members);
        };
        let audiences = match audiences {
            Value::String(one) => vec![one],
            many => serde_json::from_value(many).map_err(|_| UnreadableClaims::Members)?,
        };
        if audiences.is_empty() {
            return Err(UnreadableClaims::NoAudience);
        }
        let expires_at = Timestamp::from_second(exp).map_err(|_| UnreadableClaims::NoTime)?;
        Ok(Self { audiences, expires_at })
    }
}

/// A token may be signed with this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningDecision {
    pub kid: Kid,
    pub exp: Timestamp,
    /// The token has an audience other than the API server.
    pub external: bool,
}

/// Why a token is not signed.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SigningRefusal {
    #[error("no key signs")]
    NoKey,
    #[error("the active key is not ready for external audiences")]
    NotReady,
    #[error("the lifetime of the token would exceed `max_token_lifetime`")]
    TooLong,
}

impl Journal {
    /// Decides whether a token may be signed, and with which key.
    ///
    /// # Errors
    ///
    /// Returns why it may not.
    pub fn decide(
        &self,
        orders: &DesiredState,
        claims: &Claims,
        api_audiences: &BTreeSet<String>,
        now: Timestamp,
        max_lifetime: Duration,
    ) -> Result<SigningDecision, SigningRefusal> {
        let kid = self.signing.as_ref().filter(|kid| !orders.revoked.contains(kid));
        let kid = kid.ok_or(SigningRefusal::NoKey)?.clone();
        let external = !claims.audiences.iter().all(|audience| api_audiences.contains(audience));
        if external && !self.keys[&kid].external_audiences {
            return Err(SigningRefusal::NotReady);
        }
        if claims.expires_at > now + max_lifetime + LEEWAY {
            return Err(SigningRefusal::TooLong);
        }
        Ok(SigningDecision { kid, exp: claims.expires_at, external })
    }

    /// What must be recorded before the token is signed; `None`: nothing.
    #[must_use]
    pub fn reserve_expiry(&self, permit: &SigningDecision) -> Option<Done> {
        let held = self.keys.get(&permit.kid);
        let horizon = held.and_then(|held| {
            if permit.external { held.latest_exp_bound } else { held.latest_internal_exp_bound }
        });
        let SigningDecision { kid, exp, external } = permit.clone();
        (horizon < Some(exp)).then(|| Done::ExpiryReserved { kid, external, until: exp + STRIDE })
    }
}

/// The latest `exp` of any token that could have been signed until now.
#[must_use]
pub fn latest_possible_exp(now: Timestamp, max_lifetime: Duration) -> Timestamp {
    now + max_lifetime + LEEWAY
}
