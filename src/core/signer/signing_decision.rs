//! Which tokens may be signed, and by which key.

use std::{collections::BTreeSet, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jiff::Timestamp;
use serde_json::Value;

use super::{DesiredState, Done, Journal};
use crate::core::jose::{json, kid::Kid};

/// How much later than its lifetime from now a token may end. The API server took the time before it
/// asked; a clock that was put back in between shall cost no token.
const LEEWAY: Duration = Duration::from_secs(10);
/// How far beyond an `exp` the horizon moves, so that a busy signer writes its disk once a minute.
const STRIDE: Duration = Duration::from_mins(1);

/// What of a token decides whether it may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// At least one.
    audiences: Vec<String>,
    expires_at: Timestamp,
}

/// The claims of a token cannot be read. Never holds any of them.
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
    /// Reads the second part of a JWT.
    ///
    /// # Errors
    ///
    /// Says which part of it cannot be read.
    pub fn read(base64url: &str) -> Result<Self, UnreadableClaims> {
        let bytes = Base64UrlUnpadded::decode_vec(base64url).map_err(|_| UnreadableClaims::Encoding)?;
        // What one reader takes for the claims and another one does not is not signed.
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
    /// Somebody other than the API server shall accept it.
    pub external: bool,
}

/// A token is not signed.
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
    /// Whether a token may be signed, and with which key.
    ///
    /// # Errors
    ///
    /// Says why it may not.
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
        let outside = !claims.audiences.iter().all(|audience| api_audiences.contains(audience));
        if outside && !self.keys[&kid].external_audiences {
            return Err(SigningRefusal::NotReady);
        }
        if claims.expires_at > now + max_lifetime + LEEWAY {
            return Err(SigningRefusal::TooLong);
        }
        Ok(SigningDecision { kid, exp: claims.expires_at, external: outside })
    }

    /// What must be recorded before a token is signed; `None`: nothing.
    #[must_use]
    pub fn reserve_expiry(&self, permit: &SigningDecision) -> Option<Done> {
        let held = self.keys.get(&permit.kid);
        let horizon = held.and_then(|held| {
            if permit.external { held.latest_exp_bound } else { held.latest_internal_exp_bound }
        });
        let SigningDecision { kid, exp, external: outside } = permit.clone();
        (horizon < Some(exp)).then(|| Done::ExpiryReserved { kid, outside, until: exp + STRIDE })
    }
}

/// The latest `exp` of any token that could have been signed until now.
#[must_use]
pub fn longest(now: Timestamp, max_lifetime: Duration) -> Timestamp {
    now + max_lifetime + LEEWAY
}
