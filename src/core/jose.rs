//! Keys, tokens and the documents of an issuer (RFC 7515, 7517, 7519; OpenID Connect Discovery 1.0).

pub mod discovery;
pub mod issuer;
pub mod json;
pub mod jwk;
pub mod jwk_set;
pub mod kid;
pub mod left_out;
pub mod public_key;
pub mod publication;
pub mod stored;
pub mod token;
