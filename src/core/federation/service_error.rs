//! What an error of Microsoft Graph or Azure Resource Manager means for a write.

use jiff::SignedDuration;
use serde_json::Value;

use super::ServiceAnswer;
use crate::core::text::redaction::brief;

/// An error as both services write it: `{"error": {"code", "message"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// The id that Microsoft's support asks for.
    pub request_id: String,
    pub retry_after: Option<SignedDuration>,
}

impl ServiceError {
    /// Reads an answer that is no success. Whatever the body is, there is an error.
    #[must_use]
    pub fn of(status: u16, retry_after: Option<u64>, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &body["error"];
        let text = |value: &Value| brief(value.as_str().unwrap_or_default()).into_owned();
        let inner = [&error["innerError"]["request-id"], &error["innererror"]["request-id"]];
        Self {
            status,
            code: text(&error["code"]),
            message: text(&error["message"]),
            request_id: inner.into_iter().map(text).find(|it| !it.is_empty()).unwrap_or_default(),
            retry_after: retry_after.and_then(|it| Some(SignedDuration::from_secs(it.try_into().ok()?))),
        }
    }

    /// Whether this version of Microsoft Graph does not know agent blueprints.
    #[must_use]
    pub fn wants_beta(&self) -> bool {
        self.code.eq_ignore_ascii_case("AgentBlueprint_NotSupportedOnApiVersion")
            || self.message.contains("not supported on the API version")
    }

    /// What it means for a write or a list.
    #[must_use]
    pub fn answer(&self) -> ServiceAnswer {
        let message = self.in_words();
        let is_there =
            self.code == "Request_MultipleObjectsWithSameKeyValue" || self.message.contains("already exists");
        match self.status {
            429 | 500..=599 => ServiceAnswer::Busy { retry_after: self.retry_after, message },
            // Somebody else writes; or what was made a moment ago is not known everywhere.
            404 | 409 | 412 => ServiceAnswer::Conflict { message },
            400 if is_there => ServiceAnswer::Conflict { message },
            _ => ServiceAnswer::Refused { message, hint: self.hint() },
        }
    }

    /// The error in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut text = format!("status {}", self.status);
        for part in [&self.code, &self.message].into_iter().filter(|it| !it.is_empty()) {
            text += &format!(", {part}");
        }
        if !self.request_id.is_empty() {
            text += &format!(" (request {})", self.request_id);
        }
        text
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let is = |code: &str| self.code.eq_ignore_ascii_case(code);
        let hint = match self.status {
            401 => {
                "sign in again, to the tenant of the identity: `az login`, or a new token for `--graph-token`"
            }
            403 if is("Authorization_RequestDenied") => {
                "become an owner of the application, or have an administrator grant `Application.ReadWrite.OwnedBy`; for a \
                 blueprint `AgentIdentityBlueprint.AddRemoveCreds.All`, to another client than the Azure CLI, whose \
                 `Directory.AccessAsUser.All` takes its effect away: `--graph-token` (docs/entra.md)"
            }
            403 => {
                "have `Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/*` assigned, as in \
                 the role Managed Identity Contributor: docs/entra.md"
            }
            404 => {
                "compare the identity with `az identity show` or `az ad app show`, and the subscription and tenant"
            }
            405 => {
                "the region of this managed identity has no federated credentials: use one in another region"
            }
            429 | 500..=599 => match self.retry_after {
                Some(after) => {
                    return Some(format!("the service is busy: try again in {} s", after.as_secs()));
                }
                None => "the service is busy: try again in a minute",
            },
            300..=399 => "a proxy or gateway has answered: ask from another network, or let it pass",
            409 => "somebody else writes to this identity: run it again",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
