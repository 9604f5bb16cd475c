//! The flows that exchange a service-account token, as steps of one token request each.
//!
//! Each form is that of MSAL Node 7.2.3 without its telemetry; other libraries ask for more, see
//! `tests/it/azure_clients/forms.rs`.

use super::{ASSERTION_TYPE, Cloud, JWT_BEARER, Leg, TokenRequest};

/// What every library of Microsoft adds to the scope of a user's token.
const OF_A_USER: &str = "openid offline_access profile";

/// An exchange: who asks, for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub cloud: Cloud,
    /// Scheme and host.
    pub authority: String,
    pub tenant: String,
    /// The application, managed identity or blueprint that trusts the service account.
    pub client_id: String,
    /// The scope of the last step.
    pub scope: String,
    pub flow: Flow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A workload as its application or managed identity.
    Workload,
    /// A blueprint for one of its agent identities: T1.
    Blueprint { agent: String },
    /// An agent identity as itself: T1, T2.
    Agent { agent: String },
    /// On behalf of a user, as an agent identity, or as the application itself; then perhaps with the refresh
    /// token of the answer.
    OnBehalfOf { agent: Option<String>, refresh: bool },
    /// An agent identity as its agent user: T1, T2, the user's token.
    AgentUser { agent: String, user: UserId },
}

/// How an agent user is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserId {
    /// The user principal name.
    Name(String),
    ObjectId(String),
}

/// A token of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenOf {
    /// The service account's.
    ServiceAccount,
    /// The user's, as the client of a service sends it.
    User,
    /// The refresh token that this step has got.
    RefreshOf(usize),
    /// The one that this step has got, from 0.
    Step(usize),
}

/// One token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub leg: Leg,
    pub client_id: String,
    pub scope: String,
    /// The plain fields of the form.
    fields: Vec<(&'static str, String)>,
    /// The fields that hold a token.
    tokens: Vec<(&'static str, TokenOf)>,
}

impl Exchange {
    /// The steps, in order; each may need the tokens of those before it.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let (own, exchange) = (&self.client_id, format!("{}/.default", self.cloud.audience()));
        let t1 = |agent: &str| {
            let step = Step::as_client(Leg::Blueprint, own, &exchange, TokenOf::ServiceAccount);
            step.with("fmi_path", agent)
        };
        let obo = |client: &str, assertion| {
            let step = Step::for_a_user(Leg::OnBehalfOf, client, &self.scope, assertion, JWT_BEARER);
            step.with("requested_token_use", "on_behalf_of").with_token("assertion", TokenOf::User)
        };
        match &self.flow {
            Flow::Workload => vec![Step::as_client(Leg::Workload, own, &self.scope, TokenOf::ServiceAccount)],
            Flow::Blueprint { agent } => vec![t1(agent)],
            Flow::Agent { agent } => {
                vec![t1(agent), Step::as_client(Leg::Agent, agent, &self.scope, TokenOf::Step(0))]
            }
            Flow::OnBehalfOf { agent, refresh } => {
                let mut steps = Vec::new();
                let client = |steps: &mut Vec<Step>| match agent {
                    Some(agent) => {
                        steps.push(t1(agent));
                        (agent, TokenOf::Step(steps.len() - 1))
                    }
                    None => (own, TokenOf::ServiceAccount),
                };
                let (asking, assertion) = client(&mut steps);
                steps.push(obo(asking, assertion));
                if *refresh {
                    let answered = TokenOf::RefreshOf(steps.len() - 1);
                    // With a fresh T1: the first one has long expired when a service refreshes.
                    let (asking, assertion) = client(&mut steps);
                    let (leg, scope) = (Leg::OnBehalfOf, &self.scope);
                    let step = Step::for_a_user(leg, asking, scope, assertion, "refresh_token");
                    steps.push(step.with_token("refresh_token", answered));
                }
                steps
            }
            Flow::AgentUser { agent, user } => {
                let t2 = Step::as_client(Leg::Agent, agent, &exchange, TokenOf::Step(0));
                let step = Step::for_a_user(Leg::AgentUser, agent, &self.scope, TokenOf::Step(0), "user_fic");
                let step = step.with_token("user_federated_identity_credential", TokenOf::Step(1));
                let step = match user {
                    UserId::Name(name) => step.with("username", name),
                    UserId::ObjectId(id) => step.with("user_id", id),
                };
                vec![t1(agent), t2, step]
            }
        }
    }

    /// The agent identity, if one is involved.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        match &self.flow {
            Flow::Workload => None,
            Flow::Blueprint { agent } | Flow::Agent { agent } | Flow::AgentUser { agent, .. } => Some(agent),
            Flow::OnBehalfOf { agent, .. } => agent.as_deref(),
        }
    }

    /// The URL of the token endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.authority.trim_end_matches('/'), self.tenant)
    }

    /// Whether the authority is Entra, and not an address of this machine.
    #[must_use]
    pub fn is_at_entra(&self) -> bool {
        self.authority.strip_prefix("https://").is_some_and(|host| Cloud::of_host(host).is_some())
    }

    /// A step as evidence.
    #[must_use]
    pub fn request(&self, step: &Step, user: &str) -> TokenRequest {
        let mut request = TokenRequest::default();
        // An address of this machine stands for the cloud.
        request.authority = Some(self.authority.clone()).filter(|_| self.is_at_entra());
        request.tenant = Some(self.tenant.clone());
        let tokens =
            step.tokens.iter().map(|(name, of)| (*name, if *of == TokenOf::User { user } else { "…" }));
        let fields = step.fields.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in fields.chain(tokens) {
            request.set(name, value).expect("each field is there once");
        }
        request
    }
}

impl Step {
    /// A request by client credentials.
    fn as_client(leg: Leg, client_id: &str, scope: &str, assertion: TokenOf) -> Self {
        let step = Self {
            leg,
            client_id: client_id.to_owned(),
            scope: scope.to_owned(),
            fields: Vec::new(),
            tokens: Vec::new(),
        };
        step.with("client_id", client_id)
            .with("scope", scope)
            .with("grant_type", "client_credentials")
            .with("client_assertion_type", ASSERTION_TYPE)
            .with_token("client_assertion", assertion)
    }

    /// A request for a user's token.
    fn for_a_user(leg: Leg, client_id: &str, scope: &str, assertion: TokenOf, grant: &str) -> Self {
        let mut step = Self::as_client(leg, client_id, scope, assertion);
        for (name, value) in &mut step.fields {
            match *name {
                "scope" => *value = format!("{scope} {OF_A_USER}"),
                "grant_type" => grant.clone_into(value),
                _ => {}
            }
        }
        step.with("client_info", "1")
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    fn with_token(mut self, name: &'static str, of: TokenOf) -> Self {
        self.tokens.push((name, of));
        self
    }

    /// The name of the step: its leg, or `refresh`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        let is_refresh = self.tokens.iter().any(|(_, of)| matches!(of, TokenOf::RefreshOf(_)));
        if is_refresh { "refresh" } else { self.leg.word() }
    }

    /// The client assertion.
    #[must_use]
    pub fn assertion(&self) -> TokenOf {
        let found = self.tokens.iter().find(|(name, _)| *name == "client_assertion");
        found.expect("every step has one").1
    }

    /// The form, with the tokens that `token` gives.
    #[must_use]
    pub fn form<'a>(&'a self, token: impl Fn(TokenOf) -> &'a str) -> Vec<(&'static str, &'a str)> {
        let fields = self.fields.iter().map(|(name, value)| (*name, value.as_str()));
        fields.chain(self.tokens.iter().map(|(name, of)| (*name, token(*of)))).collect()
    }
}

#[cfg(test)]
mod tests;
