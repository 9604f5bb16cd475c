//! Tokens for tests and probes: from the embedded signer, or from a cluster.

use std::{path::Path, sync::Arc, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use tokio::time::{Instant, sleep};

use crate::{
    blocking, clock,
    control::{self, ControlError, Reply, Request, TokenRequest},
    core::{
        jose::token::Token,
        service_account::ServiceAccount,
        signer::{SigningRefusal, UnreadableClaims},
        text::Hint,
    },
    kubernetes::Access,
    signer::{self, Node, Statement, keyring::Signature, node::SignError},
    source::api_server::{ApiServer, ApiServerError},
};

/// The requested claims of a token.
#[derive(Clone, Debug)]
pub struct TokenClaims {
    pub account: ServiceAccount,
    pub audiences: Vec<String>,
    /// From now to `exp`; by default the signer decides.
    pub lifetime: Option<Duration>,
}

/// Default lifetime of a token of the embedded signer: short, so that its expiry can be observed.
const EMBEDDED_LIFETIME: Duration = Duration::from_secs(30);
/// Longest wait for a token: a service that has just started publishes its first key within seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Requests a token from the embedded node of the service that runs on a data directory.
///
/// # Errors
///
/// Fails when no service runs, when it does not sign, and when it may not sign this token.
pub async fn embedded(data_dir: &Path, wanted: &TokenClaims) -> Result<Token, TokenError> {
    let request = TokenRequest {
        issuer: None,
        namespace: wanted.account.namespace().to_owned(),
        service_account: wanted.account.name().to_owned(),
        audiences: wanted.audiences.clone(),
        lifetime: wanted.lifetime,
    };
    match control::ask(data_dir, &Request::Token(request)).await? {
        Reply::Token(text) => Ok(Token::new(text)),
        Reply::Refused { error, hint } => Err(TokenError::Refused { error, hint }),
        Reply::Rotation(_) | Reply::Done { .. } => Err(TokenError::Refused {
            error: "unexpected answer from the service".to_owned(),
            hint: Some("use the same version of signpost as the service".to_owned()),
        }),
    }
}

/// Signs a token as soon as the node may: the first key of an issuer waits for its publication.
pub(super) async fn signed(node: &Arc<Node>, request: &TokenRequest) -> Result<Token, SignError> {
    let subject = ServiceAccount::new(&request.namespace, &request.service_account);
    let subject = subject.map_err(|_| SignError::from(UnreadableClaims::Members))?;
    let settings = node.settings();
    let statement = |now| {
        signer::claims(&Statement {
            issuer: &settings.issuer,
            subject: &subject,
            uid: &random_uuid(),
            audiences: &request.audiences,
            now,
            lifetime: request.lifetime.unwrap_or(EMBEDDED_LIFETIME.min(settings.max_token_lifetime)),
            jti: &random_uuid(),
        })
    };
    let until = Instant::now() + TIMEOUT;
    loop {
        let (node, now) = (Arc::clone(node), clock::now());
        let claims = Base64UrlUnpadded::encode_string(statement(now).to_string().as_bytes());
        let keyring = node.settings().keyring.clone();
        let signing = blocking::at(&keyring, move || {
            let Signature { header, signature } = node.sign(&claims, now)?;
            Ok(Token::new(format!("{header}.{claims}.{signature}")))
        });
        match signing.await.unwrap_or_else(|hangs| Err(hangs.into())) {
            Err(SignError::Refused(SigningRefusal::NotReady | SigningRefusal::NoKey))
                if Instant::now() < until =>
            {
                sleep(RETRY_INTERVAL).await;
            }
            signed => return signed,
        }
    }
}

/// Requests a token from a cluster.
///
/// # Errors
///
/// Fails when the cluster cannot be reached or refuses.
pub async fn cluster(context: Option<String>, wanted: &TokenClaims) -> Result<Token, TokenError> {
    let access = Access { context, ..Access::default() };
    let server = ApiServer::new("kubernetes".to_owned(), access);
    Ok(server.mint(&wanted.account, &wanted.audiences, wanted.lifetime).await?)
}

#[must_use]
pub fn has_embedded(data_dir: &Path) -> bool {
    super::keyring_directory(data_dir).is_dir()
}

/// Whether a service runs on a data directory: one that has just started creates its keyring in a moment.
#[must_use]
pub fn has_service(data_dir: &Path) -> bool {
    control::is_present(data_dir)
}

/// A version 4 UUID (RFC 9562 section 5.4).
fn random_uuid() -> String {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes).expect("the system has randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = bytes.map(|byte| format!("{byte:02x}")).concat();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{error}")]
    Refused { error: String, hint: Option<String> },
    #[error("the cluster did not issue a token")]
    Cluster(#[from] ApiServerError),
}

impl Hint for TokenError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Control(error) => error.hint(),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Cluster(error) => error.hint(),
        }
    }
}
