//! Federated credentials of an identity, as Microsoft's tools print them.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::core::text::redaction::brief;

/// A federated identity credential of an application, an agent blueprint or a managed identity.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Credential {
    pub name: String,
    #[serde(default)]
    pub issuer: String,
    /// Absent in a flexible credential.
    pub subject: Option<String>,
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The expression of a flexible credential, unparsed: a text, or an object that has it in `value`.
    #[serde(rename = "claimsMatchingExpression")]
    pub expression: Option<Value>,
    /// Azure Resource Manager tells it in `systemData`.
    #[serde(skip)]
    pub created: Option<Timestamp>,
}

impl Credential {
    /// The expression of a flexible credential.
    #[must_use]
    pub fn expression(&self) -> Option<&str> {
        let expression = self.expression.as_ref()?;
        expression.as_str().or_else(|| expression.get("value")?.as_str())
    }
}

/// Parses credentials: a JSON array as from `az … list`, one object as from `az … show`, or the response of
/// Microsoft Graph or of Azure Resource Manager, which wrap the list in `value`, the latter each credential
/// in `properties` too.
///
/// # Errors
///
/// Returns what is wrong with the text.
pub fn credentials(bytes: &[u8]) -> Result<Vec<Credential>, InvalidCredentials> {
    let invalid = |error: serde_json::Error| InvalidCredentials(brief(&error.to_string()).into_owned());
    let list = match crate::core::jose::json::parse(bytes).map_err(invalid)? {
        Value::Object(mut answer) => {
            answer.remove("value").unwrap_or_else(|| Value::Array(vec![Value::Object(answer)]))
        }
        other => other,
    };
    let Value::Array(list) = list else {
        return Err(InvalidCredentials("it is no array, and has none in `value`".to_owned()));
    };
    let read = |credential: Value| {
        let members = flat(credential);
        let created = created(&members);
        let credential: Credential = serde_json::from_value(members).map_err(invalid)?;
        if credential.issuer.is_empty() {
            return Err(InvalidCredentials(format!("`{}` has no issuer", brief(&credential.name))));
        }
        Ok(Credential { created, ..credential })
    };
    list.into_iter().map(read).collect()
}

fn created(members: &Value) -> Option<Timestamp> {
    let system = members.get("systemData").unwrap_or(members);
    let text = system.get("createdAt").or_else(|| members.get("createdDateTime"))?.as_str()?;
    text.parse().ok()
}

fn flat(credential: Value) -> Value {
    match credential {
        Value::Object(mut members) => match members.remove("properties") {
            Some(Value::Object(properties)) => Value::Object(members.into_iter().chain(properties).collect()),
            _ => Value::Object(members),
        },
        other => other,
    }
}

/// The text is not a list of federated credentials.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a list of federated credentials: {0}")]
pub struct InvalidCredentials(String);
