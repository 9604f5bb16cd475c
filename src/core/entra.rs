//! Microsoft Entra: what it calls things, what it is asked, and what its answers mean.

mod credential;
pub mod errors;
mod expression;
mod guid;
mod identity;
mod token_request;

pub use self::{
    credential::{Credential, InvalidCredentials, credentials},
    expression::Expression,
    guid::{ExchangeSubject, decoded_guid, encoded_guid, is_guid},
    identity::{DirectoryUser, Identity, IdentityKind},
    token_request::{InvalidTokenRequest, Leg, TokenRequest, UserToken},
};

/// The application id that stands for the token exchange: `api://AzureADTokenExchange` and its names in other
/// clouds.
pub const TOKEN_EXCHANGE: &str = "fb60f99c-7a34-4190-8149-302f77469936";
