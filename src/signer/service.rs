//! The gRPC service that kube-apiserver calls (KEP-740): `v1` from Kubernetes 1.34 on, `v1alpha1` before.
//!
//! Both versions have the same messages: `v1alpha1` is `v1` under another service name. kube-apiserver forwards
//! errors to its client, so they are constant sentences; the log has the reason, once until it is over.
//! Signatures with key files are computed in the request task (a quarter of a millisecond); what waits for a
//! disk or a PKCS#11 token runs on a blocking thread. The socket opens only once there is a key, because
//! kube-apiserver exits if its first `FetchKeys` fails, but waits a minute for a socket.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, transport::Server};
use tracing::{info, warn};

use super::{
    keyring::SigningError,
    node::{Node, SignError},
    socket::Socket,
    v1::{
        FetchKeysRequest, FetchKeysResponse, Key, MetadataRequest, MetadataResponse, SignJwtRequest,
        SignJwtResponse,
        external_jwt_signer_server::{ExternalJwtSigner, ExternalJwtSignerServer},
    },
    v1alpha1::V1Alpha1,
};
use crate::{
    blocking, clock,
    core::signer::{SigningRefusal, VerificationKey},
    telemetry::signer_metrics::SignOutcome,
};

/// Largest request: the claims of a common server need no more, and an API server sends nothing else.
const MAX_REQUEST: usize = 64 * 1024;
/// Most concurrent requests on one connection. An API server has one connection.
const MAX_STREAMS: u32 = 1024;

/// Longest silence of a connection.
const IDLE: Duration = Duration::from_mins(10);

pub type ServeError = tonic::transport::Error;

struct Service {
    node: Arc<Node>,
    refresh_hint: Duration,
    /// The reasons that were logged and still hold.
    told: Mutex<BTreeSet<&'static str>>,
}

/// Serves at a socket until `stop`, and then completes open requests.
///
/// # Errors
///
/// Fails if the socket cannot be served.
pub async fn serve(
    node: Arc<Node>,
    refresh_hint: Duration,
    socket: Socket,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    // An API server fetches the keys repeatedly, so it is never silent for that long.
    let idle = IDLE.max(refresh_hint * 3);
    let connections = socket.connections(Arc::clone(node.metrics()), idle);
    let service = Arc::new(Service { node, refresh_hint, told: Mutex::default() });
    let stable = ExternalJwtSignerServer::from_arc(service).max_decoding_message_size(MAX_REQUEST);
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(stable.clone())
        .add_service(V1Alpha1(stable))
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
}

#[tonic::async_trait]
impl ExternalJwtSigner for Service {
    async fn sign(&self, request: Request<SignJwtRequest>) -> Result<Response<SignJwtResponse>, Status> {
        let claims = request.into_inner().claims;
        let (now, asked) = (clock::now(), Instant::now());
        let signed = match self.node.sign_from_memory(&claims, now) {
            Err(SignError::ExpiryNotReserved(_) | SignError::Blocks) => {
                let node = Arc::clone(&self.node);
                let keyring = node.settings().keyring.clone();
                let signing = blocking::at(&keyring, move || node.sign(&claims, now));
                signing.await.unwrap_or_else(|hangs| Err(hangs.into()))
            }
            decided => decided,
        };
        match signed {
            Ok(signed) => {
                self.node.metrics().answered(SignOutcome::Signed, asked.elapsed());
                self.tell_of_success();
                let (header, signature) = (signed.header, signed.signature);
                Ok(Response::new(SignJwtResponse { header, signature }))
            }
            Err(error) => Err(self.refuse(&error)),
        }
    }

    async fn fetch_keys(&self, _: Request<FetchKeysRequest>) -> Result<Response<FetchKeysResponse>, Status> {
        let Some((keys, changed)) = self.node.verification_set() else {
            return Err(Status::new(Code::Unavailable, "no key yet"));
        };
        self.node.metrics().fetched();
        Ok(Response::new(FetchKeysResponse {
            keys: keys.into_iter().map(key).collect(),
            data_timestamp: Some(timestamp(changed)),
            refresh_hint_seconds: seconds(self.refresh_hint),
        }))
    }

    async fn metadata(&self, _: Request<MetadataRequest>) -> Result<Response<MetadataResponse>, Status> {
        let max_token_expiration_seconds = seconds(self.node.settings().max_token_lifetime);
        Ok(Response::new(MetadataResponse { max_token_expiration_seconds }))
    }
}

impl Service {
    fn refuse(&self, error: &SignError) -> Status {
        use SignOutcome::{Failed, Refused, Unavailable};
        let (outcome, text, reason) = match error {
            SignError::Unreadable(_) => (Refused, "cannot read the claims", "unreadable claims"),
            SignError::Refused(SigningRefusal::TooLong) => {
                (Refused, "the lifetime of the token is too long", "lifetime too long")
            }
            SignError::Refused(SigningRefusal::NotReady) => {
                (Unavailable, "not ready: no key is ready for this audience", "not ready")
            }
            SignError::Refused(SigningRefusal::NoKey) => (Unavailable, "not ready", "no key"),
            SignError::TimedOut(_)
            | SignError::Record(_)
            | SignError::ExpiryNotReserved(_)
            | SignError::Blocks => (Unavailable, "cannot sign", "cannot record"),
            SignError::Signing(SigningError::Hsm(_)) => (Unavailable, "cannot sign", "no token"),
            SignError::Signing(_) => (Failed, "cannot sign", "cannot sign"),
        };
        self.node.metrics().answered(outcome, Duration::ZERO);
        if self.told.lock().expect("nobody panics while holding it").insert(reason) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            warn!(%error, cause, "token not signed");
        }
        Status::new(code(outcome), text)
    }

    /// Logs that signing works again after a failure of key, disk, token or OpenSSL.
    fn tell_of_success(&self) {
        let mut told = self.told.lock().expect("nobody panics while holding it");
        let over = ["no key", "cannot record", "cannot sign", "no token"].map(|reason| told.remove(reason));
        if over.contains(&true) {
            info!("tokens are signed again");
        }
    }
}

fn code(outcome: SignOutcome) -> Code {
    match outcome {
        SignOutcome::Signed => Code::Ok,
        SignOutcome::Unavailable => Code::Unavailable,
        SignOutcome::Refused => Code::InvalidArgument,
        SignOutcome::Failed => Code::Internal,
    }
}

fn key(VerificationKey { jwk, exclude }: VerificationKey) -> Key {
    Key {
        key_id: jwk.kid().as_str().to_owned(),
        key: jwk.public_key().to_spki(),
        exclude_from_oidc_discovery: exclude,
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
