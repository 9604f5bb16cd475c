//! Reads documents as a relying party would: anonymously, and without trust in the server.
//!
//! The token decides which issuer is contacted. So nothing here hangs, grows without limit, or reaches an
//! address outside the internet: limits are few and fixed, and connections use only checked addresses.

use std::{collections::BTreeSet, error::Error, net::SocketAddr, path::PathBuf, time::Duration};

use http::{
    HeaderMap, StatusCode,
    header::{AGE, CONTENT_TYPE, DATE, LOCATION},
};
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::{Client, Response};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::{
    clock,
    core::{
        freshness::CacheFields,
        tls_fault::TlsFault,
        verification::{Again, DocumentEvidence, HttpResponse, NoAnswer, Unanswered},
    },
    http_client::{self, BodyError, ClientError, Trust, content_coding, innermost},
};

mod presented;
mod reach;

pub use self::reach::Reach;
use self::reach::{Refused, Resolver, Unnamed, shown};

/// Time limit of one document, redirects included; that of Microsoft Entra is not documented.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a connection, so that there is time for a second address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest document, in bytes.
const MAX_DOCUMENT: usize = 1024 * 1024;
/// Most redirects.
const MAX_REDIRECTS: usize = 5;

#[derive(Clone, Debug)]
pub struct RelyingParty {
    client: Client,
    reach: Reach,
    resolver: Resolver,
    /// Trusted in addition to those of the system.
    ca_file: Option<PathBuf>,
}

impl RelyingParty {
    /// Trusts the certificate authorities of the system, or those of `SSL_CERT_FILE`, and those of `ca_file`.
    /// Uses no proxy: behind one, the resolved address is unknown.
    ///
    /// With `instead`, every name resolves to that address.
    ///
    /// # Errors
    ///
    /// Fails when the certificate authorities cannot be loaded.
    pub async fn new(
        reach: Reach,
        instead: Option<SocketAddr>,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, ClientError> {
        let resolver = Resolver { reach: reach.clone(), instead };
        let trust = ca_file.clone().map_or(Trust::System, Trust::Also);
        let resolves = resolver.clone();
        let client = http_client::client(&trust, |builder| {
            // The time limit of the document applies instead of this one: it includes redirects.
            builder.no_proxy().connect_timeout(CONNECT_TIMEOUT).timeout(2 * TIMEOUT).dns_resolver(resolves)
        });
        Ok(Self { client: client.await?, reach, resolver, ca_file })
    }

    /// Reads one document; success and failure are both evidence.
    pub async fn read(&self, url: &str) -> DocumentEvidence {
        let none = |why| DocumentEvidence::NoAnswer(NoAnswer { url: shown(url), why });
        match timeout(TIMEOUT, self.follow(url)).await {
            Ok(Ok(answer)) => DocumentEvidence::Answer(Box::new(answer)),
            Ok(Err(why)) => none(why),
            Err(_) => none(Unanswered::TimedOut { after: TIMEOUT }),
        }
    }

    /// Reads a document once more, and records the differences.
    pub async fn read_again(&self, document: &mut DocumentEvidence) {
        let DocumentEvidence::Answer(first) = document else { return };
        if first.status != 200 {
            return;
        }
        if let DocumentEvidence::Answer(second) = self.read(&first.url).await
            && second.status == 200
        {
            first.again = Some(Again { same_bytes: first.bytes == second.bytes });
        }
    }

    /// Adds the thumbprint by which AWS IAM names an unknown authority.
    async fn with_thumbprint(&self, why: Unanswered, url: &str) -> Unanswered {
        match why {
            Unanswered::Tls { reason, .. } if presented::is_of_unknown_authority(&reason) => {
                let thumbprint = presented::thumbprint(url, self.resolver.clone(), CONNECT_TIMEOUT).await;
                Unanswered::Tls { reason, thumbprint }
            }
            why => why,
        }
    }

    async fn follow(&self, url: &str) -> Result<HttpResponse, Unanswered> {
        let begun = Instant::now();
        let (mut at, mut redirects, mut private) = (url.to_owned(), Vec::new(), BTreeSet::new());
        loop {
            self.reach.check(&at)?;
            let response = match self.client.get(&at).send().await {
                Ok(response) => response,
                Err(error) => return Err(self.with_thumbprint(why(&error, &at), &at).await),
            };
            if let Some(address) = response.remote_addr().filter(|address| !reach::is_public(address.ip())) {
                private.insert(address.ip().to_string());
            }
            if let Some(next) = redirected(&response) {
                let refuse = |reason| Unanswered::Redirected { to: shown(&next), reason };
                if redirects.len() == MAX_REDIRECTS {
                    return Err(refuse("one redirect too many"));
                }
                if at.starts_with("https:") && !next.starts_with("https:") {
                    return Err(refuse("not https"));
                }
                self.reach.check(&next).map_err(|why| {
                    refuse(match why {
                        Unanswered::Credentials => "it has a user name or password",
                        _ => "not a public address, nor of this issuer",
                    })
                })?;
                redirects.push(next.clone());
                at = next;
                continue;
            }
            let (status, headers) = (response.status(), response.headers().clone());
            let clock_difference = server_time(&headers).map(|time| time.duration_since(clock::now()));
            let content_coding = content_coding(&headers);
            let bytes = body(response, &at).await?;
            return Ok(HttpResponse {
                url: url.to_owned(),
                redirects,
                private: private.into_iter().collect(),
                status: status.as_u16(),
                content_type: text(&headers, CONTENT_TYPE.as_str()),
                content_coding,
                cache: CacheFields::of(|name| text(&headers, name)),
                age: text(&headers, AGE.as_str()).and_then(|age| age.parse().ok()).map(Duration::from_secs),
                clock_difference,
                took: begun.elapsed(),
                ca_file: self.ca_file.as_ref().map(|path| path.display().to_string()),
                bytes,
                again: None,
            });
        }
    }
}

/// The target of a redirect.
fn redirected(response: &Response) -> Option<String> {
    let moved = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let location = response.headers().get(LOCATION).filter(|_| moved.contains(&response.status()))?;
    let base = Url::parse(response.url().as_str()).ok()?;
    Some(base.join(location.to_str().ok()?).ok()?.into())
}

async fn body(response: Response, url: &str) -> Result<Vec<u8>, Unanswered> {
    match http_client::body(response, MAX_DOCUMENT as u64).await {
        Ok(bytes) => Ok(bytes.into()),
        Err(BodyError::TooLong) => Err(Unanswered::TooLarge { limit: MAX_DOCUMENT }),
        Err(BodyError::Encoded { coding }) => Err(Unanswered::Encoded { coding }),
        Err(BodyError::Failed(error)) => Err(match why(&error, url) {
            Unanswered::NoConnection { reason } => Unanswered::Interrupted { reason },
            why => why,
        }),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned())
}

/// The `Date` header (RFC 9110 section 6.6.1).
fn server_time(headers: &HeaderMap) -> Option<jiff::Timestamp> {
    DateTimeParser::new().parse_timestamp(headers.get(DATE)?.as_bytes()).ok()
}

/// Classifies an error of the client.
fn why(error: &reqwest::Error, url: &str) -> Unanswered {
    let causes = || std::iter::successors(Some::<&(dyn Error + 'static)>(error), |error| (*error).source());
    if let Some(refused) = causes().find_map(|cause| cause.downcast_ref::<Refused>()) {
        return Unanswered::Private { addresses: refused.addresses.clone() };
    }
    if causes().any(<dyn Error + 'static>::is::<Unnamed>) {
        let host = Url::parse(url).ok().and_then(|url| Some(url.host_str()?.to_owned()));
        return Unanswered::NoAddress { host: host.unwrap_or_else(|| url.to_owned()) };
    }
    if error.is_timeout() {
        return Unanswered::TimedOut { after: CONNECT_TIMEOUT };
    }
    match TlsFault::of(error) {
        Some(fault) => Unanswered::Tls { reason: fault.to_string(), thumbprint: None },
        None => Unanswered::NoConnection { reason: innermost(error) },
    }
}
