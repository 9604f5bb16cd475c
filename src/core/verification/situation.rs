//! A situation and the answer that Microsoft Entra gave: the format of `tests/ground_truth/` and of
//! `verify --report`. A situation states only what differs from one without faults; `tests/ground_truth/README.md`
//! describes each member.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod anonymous;
mod words;

pub use anonymous::situation as anonymous;

/// Members that differ; `null` removes one.
type Changes = Map<String, Value>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Situation {
    /// In one sentence.
    pub situation: String,
    pub answer: Answer,
    /// What others got in the same situation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub date: String,
    #[serde(default)]
    pub certainty: Evidenced,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub identity: Changes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Vec<Trust>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Document>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Document>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub service_account: Changes,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub pod: Changes,
    /// What decides, if no evidence can show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Hidden>,
    /// What the members cannot say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
}

/// The number after `AADSTS`, or `accepted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    Code(u32),
    #[default]
    #[serde(with = "accepted")]
    Accepted,
}

impl Answer {
    /// The code; `None` if the token is accepted.
    #[must_use]
    pub fn code(self) -> Option<u32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Accepted => None,
        }
    }
}

mod accepted {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("accepted")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "accepted" => Ok(()),
            _ => Err(D::Error::custom("neither an AADSTS number nor `accepted`")),
        }
    }
}

/// How sure an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidenced {
    Documented,
    #[default]
    Observed,
    /// Told at second hand, or with a cause that is a guess.
    Weak,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hidden {
    /// Of the tenant, or Conditional Access.
    Policy,
    Secret,
    Certificate,
    Resource,
    Tenant,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub form: BTreeMap<String, Option<String>>,
}

/// A federated identity credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// Seconds since its creation, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub header: Changes,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Changes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// The whole text, if it is no JWT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<Unreachable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub members: Changes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<Changes>>,
    /// Seconds since its keys were changed, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unreachable {
    NoAddress,
    Private,
    Refused,
    Tls,
    Timeout,
}
