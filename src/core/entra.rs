//! Microsoft Entra: what it calls things, what it is asked, and what its answers mean.

pub(crate) mod answer;
mod cloud;
mod credential;
pub mod errors;
mod exchange;
mod expression;
mod guid;
mod identity;
mod token_claims;
mod token_request;

pub use self::{
    answer::{ExchangeAnswer, ExplainedRefusal, Issued, RefreshToken, Refusal, TokenAnswer},
    cloud::{Cloud, is_on_this_machine, may_receive_tokens},
    credential::{Credential, InvalidCredentials, credentials},
    exchange::{Exchange, Flow, Step, TokenOf, UserId},
    expression::Expression,
    guid::{ExchangeSubject, decoded_guid, encoded_guid, is_guid},
    identity::{DirectoryUser, Identity, IdentityKind},
    token_claims::{Asked, ClaimInWords, claims_in_words},
    token_request::{InvalidTokenRequest, Leg, TokenRequest, UserToken},
};

/// The type of a client assertion (RFC 7523 section 2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The grant of an on-behalf-of request (RFC 7523 section 2.1).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The application id that stands for the token exchange: `api://AzureADTokenExchange` and its names in other
/// clouds.
pub const TOKEN_EXCHANGE: &str = "fb60f99c-7a34-4190-8149-302f77469936";
