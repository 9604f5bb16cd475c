//! What the claims of a token of Entra say, and what they should say after a step.
//!
//! Source: Microsoft, agent token claims; tokens that were seen. Facets are odd numbers, separated by spaces: 11 is an
//! agent identity, 13 an agent user.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Leg, TOKEN_EXCHANGE, decoded_guid};
use crate::core::{entra::ExchangeSubject, jose::token::UnverifiedToken, text::redaction::evidence};

const AGENT_IDENTITY: &str = "11";
const AGENT_USER: &str = "13";

/// A claim in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ClaimInWords {
    pub name: &'static str,
    pub value: String,
    pub meaning: String,
    /// What it should be, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

/// Who asked: what the claims are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub leg: Leg,
    pub client_id: &'a str,
    pub tenant: &'a str,
    /// The application that trusts the service account: for an agent its blueprint.
    pub blueprint: &'a str,
    /// The agent identity that a blueprint asked for.
    pub agent: Option<&'a str>,
}

/// The claims that tell what a token is.
#[must_use]
pub fn claims_in_words(token: &UnverifiedToken, asked: &Asked) -> Vec<ClaimInWords> {
    let claims = token.claims();
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let mut words = Vec::new();
    let mut tell = |name: &'static str, value: &str, meaning: String, expected: Option<String>| {
        words.push(ClaimInWords { name, value: evidence(value), meaning, expected });
    };
    let unless = |holds: bool, expected: &str| (!holds).then(|| expected.to_owned());
    let is_of_user = matches!(asked.leg, Leg::OnBehalfOf | Leg::AgentUser);

    if let Some(audience) = token.audiences().first() {
        let meaning = if *audience == TOKEN_EXCHANGE { "the token exchange" } else { "the resource" };
        let is_right = asked.leg != Leg::Blueprint || *audience == TOKEN_EXCHANGE;
        tell("aud", audience, meaning.to_owned(), unless(is_right, TOKEN_EXCHANGE));
    }
    if let Some(tenant) = text("tid") {
        let is_right = !super::is_guid(asked.tenant) || tenant.eq_ignore_ascii_case(asked.tenant);
        tell("tid", tenant, "the tenant".to_owned(), unless(is_right, asked.tenant));
    }
    if let Some((name, client)) = ["azp", "appid"].into_iter().find_map(|name| Some((name, text(name)?))) {
        let is_right = client.eq_ignore_ascii_case(asked.client_id);
        tell(name, client, "the client".to_owned(), unless(is_right, asked.client_id));
    }
    if let Some(kind) = text("idtyp") {
        let (expected, meaning) =
            if is_of_user { ("user", "for a user") } else { ("app", "for the client itself") };
        let meaning = if kind == expected { meaning } else { "not what was asked for" };
        tell("idtyp", kind, meaning.to_owned(), unless(kind == expected, expected));
    }
    if let Some(subject) = text("sub") {
        match ExchangeSubject::parse(subject) {
            Some(parts) => {
                let guid = |encoded: &str| decoded_guid(encoded).unwrap_or_else(|| encoded.to_owned());
                let meaning = format!(
                    "tenant {}, application {}, for {}",
                    guid(parts.tenant),
                    guid(parts.application),
                    parts.path
                );
                let is_right = asked.agent.is_none_or(|agent| agent.eq_ignore_ascii_case(parts.path))
                    && guid(parts.application).eq_ignore_ascii_case(asked.blueprint);
                tell("sub", subject, meaning, unless(is_right, "this blueprint and this agent identity"));
            }
            None => tell("sub", subject, "the subject".to_owned(), None),
        }
    }
    let has =
        |name: &str, facet: &str| text(name).is_some_and(|facets| facets.split(' ').any(|it| it == facet));
    let is_of_agent =
        asked.agent.is_some() && matches!(asked.leg, Leg::Agent | Leg::OnBehalfOf | Leg::AgentUser);
    if let Some(actor) = text("xms_act_fct") {
        let is_agent = has("xms_act_fct", AGENT_IDENTITY);
        let meaning =
            if is_agent { "the actor is an agent identity" } else { "the actor is no agent identity" };
        tell("xms_act_fct", actor, meaning.to_owned(), unless(is_agent || !is_of_agent, "11 among them"));
    }
    if let Some(subject) = text("xms_sub_fct") {
        let (identity, user) = (has("xms_sub_fct", AGENT_IDENTITY), has("xms_sub_fct", AGENT_USER));
        let meaning = match (identity, user) {
            (_, true) => "the subject is an agent user",
            (true, false) => "the subject is an agent identity",
            (false, false) => "the subject is no agent",
        };
        let expected = match asked.leg {
            _ if !is_of_agent => None,
            Leg::Agent => unless(identity, "11 among them"),
            Leg::AgentUser => unless(user, "13 among them"),
            _ => unless(!identity && !user, "neither 11 nor 13: a person"),
        };
        tell("xms_sub_fct", subject, meaning.to_owned(), expected);
    }
    if let Some(parent) = text("xms_par_app_azp") {
        let is_right = parent.eq_ignore_ascii_case(asked.blueprint);
        tell(
            "xms_par_app_azp",
            parent,
            "the blueprint".to_owned(),
            unless(is_right || !is_of_agent, asked.blueprint),
        );
    }
    for (name, meaning) in [("scp", "granted for the user"), ("roles", "granted to the client")] {
        if let Some(value) = claims.get(name) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            tell(name, &value, meaning.to_owned(), None);
        }
    }
    words
}

#[cfg(test)]
mod tests;
