//! What the operator of this machine may ask of the service.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::tokens;
use crate::{
    control::{Reply, Request},
    core::{issuer::Issuer, signing::Refusal},
    signer::{Node, node::SignError},
    workflow::{
        asking::in_one_line,
        keeper::{Keeper, Unasked},
    },
};

/// The issuers that run now, for those who ask.
#[derive(Clone, Default)]
pub(super) struct Offices(Arc<Mutex<BTreeMap<Issuer, Clerks>>>);

/// Who answers for an issuer.
#[derive(Clone)]
struct Clerks {
    keeper: Arc<Keeper>,
    /// The node that signs in this process.
    node: Option<Arc<Node>>,
}

/// An issuer that runs; when it is dropped, it does not any more.
pub(super) struct Office {
    offices: Offices,
    issuer: Issuer,
}

impl Offices {
    /// Shows an issuer to those who ask.
    pub(super) fn open(&self, keeper: &Arc<Keeper>, node: Option<Arc<Node>>) -> Office {
        let issuer = keeper.charter().terms.issuer.clone();
        self.locked().insert(issuer.clone(), Clerks { keeper: Arc::clone(keeper), node });
        Office { offices: self.clone(), issuer }
    }

    /// Answers what was asked.
    pub(super) async fn answer(self, request: Request) -> Reply {
        self.try_to_answer(request)
            .await
            .unwrap_or_else(|Refused { error, hint }| Reply::Refused { error, hint })
    }

    async fn try_to_answer(&self, request: Request) -> Result<Reply, Refused> {
        match request {
            Request::Rotation { issuer } => {
                let clerks = match &issuer {
                    Some(_) => vec![self.clerks(issuer.as_deref())?],
                    None => self.locked().values().cloned().collect(),
                };
                let mut reports = Vec::new();
                for Clerks { keeper, .. } in clerks {
                    reports.push(keeper.rotation().await);
                }
                Ok(Reply::Rotation(reports))
            }
            Request::Rotate { issuer, ask } => {
                let Clerks { keeper, .. } = self.clerks(issuer.as_deref())?;
                keeper.ask(&ask).await.map_err(|error| Refused::of(&error))?;
                Ok(Reply::Done { issuer: keeper.charter().terms.issuer.to_string() })
            }
            Request::Token(request) => {
                let node = self.node(request.issuer.as_deref())?;
                match tokens::signed(&node, &request).await {
                    Ok(token) => Ok(Reply::Token(token.as_str().to_owned())),
                    Err(error) => Err(Refused {
                        error: in_one_line(&error),
                        hint: match error {
                            SignError::Refused(Refusal::NotReady | Refusal::NoKey) => {
                                Some("`signpost rotate status` says what the key waits for".to_owned())
                            }
                            SignError::Refused(Refusal::TooLong) => Some("ask for a shorter life".to_owned()),
                            _ => None,
                        },
                    }),
                }
            }
        }
    }

    /// The node of an issuer, or of the only one that has one.
    fn node(&self, issuer: Option<&str>) -> Result<Arc<Node>, Refused> {
        let open = self.locked();
        let mut nodes = open.iter().filter(|(name, _)| issuer.is_none_or(|wanted| name.as_str() == wanted));
        nodes.find_map(|(_, clerks)| clerks.node.clone()).ok_or_else(|| Refused {
            error: "the service does not sign".to_owned(),
            hint: Some("ask the cluster: `--source kubernetes --service-account NAMESPACE/NAME`".to_owned()),
        })
    }

    fn clerks(&self, issuer: Option<&str>) -> Result<Clerks, Refused> {
        let open = self.locked();
        let mut found = open.iter().filter(|(name, _)| issuer.is_none_or(|wanted| name.as_str() == wanted));
        match (found.next(), found.next()) {
            (Some((_, clerks)), None) => Ok(clerks.clone()),
            (Some(_), Some(_)) => Err(Refused {
                error: format!("the service has {} issuers", open.len()),
                hint: Some("pass `--issuer` to say which one".to_owned()),
            }),
            (None, _) => {
                let which = issuer.map(|issuer| format!(" `{issuer}`")).unwrap_or_default();
                let names: Vec<_> = open.keys().map(|name| format!("`{name}`")).collect();
                Err(Refused {
                    error: format!("the service has no issuer{which}"),
                    hint: (!names.is_empty()).then(|| format!("it has {}", names.join(", "))),
                })
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Issuer, Clerks>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.offices.locked().remove(&self.issuer);
    }
}

struct Refused {
    error: String,
    hint: Option<String>,
}

impl Refused {
    fn of(error: &Unasked) -> Self {
        Self { error: in_one_line(error), hint: error.hint() }
    }
}
