//! A request to the token endpoint: `POST https://AUTHORITY/TENANT/oauth2/v2.0/token`, with a form.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::core::jose::token::UnverifiedToken;

/// Fields that hold a credential: it is never kept, only whether there is one.
const CREDENTIALS: [&str; 10] = [
    "client_assertion",
    "client_secret",
    "assertion",
    "refresh_token",
    "user_federated_identity_credential",
    "password",
    "code",
    "device_code",
    "id_token",
    "id_token_hint",
];

/// OpenID Connect Core 1.0, sections 3.1.2.1, 5.4 and 11.
const OPENID_SCOPES: [&str; 4] = ["openid", "offline_access", "profile", "email"];

/// A token request, without its tokens and secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Scheme and host, such as `https://login.microsoftonline.com`.
    pub authority: Option<String>,
    pub tenant: Option<String>,
    /// The fields of the form; that of a credential is `…`, or empty as it was.
    fields: BTreeMap<String, String>,
    /// Names of fields that stand in the URL, where Entra does not read them.
    pub in_url: Vec<String>,
    pub user_token: Option<UserToken>,
}

/// The claims of the user's token in an on-behalf-of request, as far as they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserToken {
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub expires_at: Option<Timestamp>,
    /// Whether it is an access token: it has a scope or a role.
    pub has_scope: bool,
    /// Whether it is a token of an application, and not of a user.
    pub is_app_only: bool,
}

/// The step of a flow that a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// A workload asks for a token of its application or managed identity.
    Workload,
    /// An agent blueprint asks for a token to act as one of its agent identities (T1).
    Blueprint,
    /// An agent identity asks for a token of a resource, as itself (T2).
    Agent,
    /// An application or an agent identity asks on behalf of a user.
    OnBehalfOf,
    /// An agent identity asks for a token of its agent user.
    AgentUser,
    /// A person signs in.
    SignIn,
}

impl Leg {
    pub const ALL: [Self; 6] =
        [Self::Workload, Self::Blueprint, Self::Agent, Self::OnBehalfOf, Self::AgentUser, Self::SignIn];

    /// The name in flags and pages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Blueprint => "blueprint",
            Self::Agent => "agent",
            Self::OnBehalfOf => "on-behalf-of",
            Self::AgentUser => "agent-user",
            Self::SignIn => "sign-in",
        }
    }
}

impl TokenRequest {
    /// Parses a request: the URL in a line of its own, perhaps after `POST` or `GET`; then the form, in one line or
    /// with a line for each field. Returns the client assertion besides.
    ///
    /// # Errors
    ///
    /// Returns what is wrong; never repeats a value.
    pub fn parse(text: &str) -> Result<(Self, Option<String>), InvalidTokenRequest> {
        let mut request = Self::default();
        let mut assertion = None;
        for (number, line) in text.lines().enumerate() {
            let line = without_shell(line);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(url) = line.split_whitespace().map(unquoted).find(|word| is_url(word))
                && ["POST ", "GET ", "curl ", "http://", "https://"]
                    .iter()
                    .any(|start| line.starts_with(start))
            {
                request.read_url(url)?;
                continue;
            }
            let wrong = InvalidTokenRequest::Field { line: number + 1 };
            if !line.contains('=') {
                return Err(wrong);
            }
            for (name, value) in form_urlencoded::parse(line.trim_start_matches('&').as_bytes()) {
                // `name = value`; other space may be a part of the value.
                let value = if name.ends_with(' ') { value.trim_start() } else { &value };
                let name = name.trim();
                if name.is_empty()
                    || !name.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it))
                {
                    return Err(wrong);
                }
                if name == "client_assertion" {
                    assertion = Some(value.to_owned()).filter(|it| !it.is_empty());
                }
                request.set(name, value)?;
            }
        }
        if request.fields.is_empty() && request.authority.is_none() {
            return Err(InvalidTokenRequest::Empty);
        }
        Ok((request, assertion))
    }

    fn read_url(&mut self, text: &str) -> Result<(), InvalidTokenRequest> {
        let url = Url::parse(text).map_err(|_| InvalidTokenRequest::Url)?;
        self.authority = Some(url.origin().ascii_serialization());
        self.tenant = url.path_segments().and_then(|mut it| it.next()).map(str::to_owned);
        // A browser is sent to `/authorize` with all fields in the URL.
        if url.path().ends_with("/authorize") {
            return url.query_pairs().try_for_each(|(name, value)| self.set(&name, &value));
        }
        self.in_url = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        Ok(())
    }

    /// Sets a field of the form.
    ///
    /// # Errors
    ///
    /// The field is there already.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidTokenRequest> {
        if name == "assertion" {
            self.user_token = UnverifiedToken::parse(value).ok().map(|token| UserToken::of(&token));
        }
        let kept = if CREDENTIALS.contains(&name) && !value.is_empty() { "…" } else { value };
        match self.fields.insert(name.to_owned(), kept.to_owned()) {
            Some(_) => Err(InvalidTokenRequest::Twice { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// The value of a field that is not empty.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the field is there, if empty.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// All fields, that of a credential as `…`.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The scopes of resources: libraries add those of OpenID Connect, and Entra takes them with any.
    pub fn resource_scopes(&self) -> impl Iterator<Item = &str> {
        let scopes = self.field("scope").unwrap_or_default().split_whitespace();
        scopes.filter(|scope| !OPENID_SCOPES.contains(scope))
    }

    /// Whether it asks for a token that is exchanged again.
    #[must_use]
    pub fn is_for_the_exchange(&self) -> bool {
        let scope = self.field("scope").unwrap_or_default();
        scope.starts_with("api://AzureADTokenExchange") || scope.starts_with(super::TOKEN_EXCHANGE)
    }

    /// The step that it is, by what it asks for; `is_of_an_agent`: its client is an agent identity.
    #[must_use]
    pub fn leg(&self, is_of_an_agent: bool) -> Leg {
        match self.field("grant_type") {
            Some("user_fic") => Leg::AgentUser,
            Some("client_credentials") if self.field("fmi_path").is_some() || self.is_for_the_exchange() => {
                Leg::Blueprint
            }
            Some("client_credentials") if is_of_an_agent => Leg::Agent,
            Some("client_credentials") | None => Leg::Workload,
            Some(super::JWT_BEARER | "refresh_token") => Leg::OnBehalfOf,
            Some(_) => Leg::SignIn,
        }
    }
}

/// A line without what `curl` and a shell put around it.
fn without_shell(line: &str) -> &str {
    let line = line.trim().trim_end_matches(['\\', '^', '`']).trim_end();
    let flags = ["--data-urlencode ", "--data-raw ", "--data ", "-d "];
    let line = flags.into_iter().find_map(|flag| line.strip_prefix(flag)).unwrap_or(line);
    unquoted(line.trim())
}

fn unquoted(text: &str) -> &str {
    let inside = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('\'').or_else(|| inside('"')).unwrap_or(text)
}

fn is_url(word: &str) -> bool {
    word.starts_with("https://") || word.starts_with("http://")
}

impl UserToken {
    fn of(token: &UnverifiedToken) -> Self {
        let text = |name: &str| token.claims().get(name).and_then(Value::as_str);
        let has_role = token.claims().get("roles").is_some();
        Self {
            issuer: token.issuer().map(str::to_owned),
            audience: token.audiences().first().map(|&it| it.to_owned()),
            expires_at: token.expires_at(),
            // Entra also takes an ID token of its own that has this claim.
            has_scope: text("scp").is_some()
                || has_role
                || text("idtyp") == Some("app")
                || text("uti").is_some(),
            is_app_only: text("idtyp") == Some("app") || (text("scp").is_none() && has_role),
        }
    }
}

/// The text is not a token request. Contains no value of a field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidTokenRequest {
    #[error("there is neither a URL nor a field, expected lines such as `client_id=…`")]
    Empty,
    #[error("line {line} is neither a URL nor `name=value`")]
    Field { line: usize },
    #[error("its URL cannot be read, expected `https://AUTHORITY/TENANT/oauth2/v2.0/token`")]
    Url,
    #[error("field `{name}` occurs twice")]
    Twice { name: String },
}

#[cfg(test)]
mod tests;
