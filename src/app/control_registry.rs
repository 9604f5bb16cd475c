//! Answers control requests that the operator of this machine sends to the service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::tokens;
use crate::{
    control::{Reply, Request},
    core::{
        jose::issuer::Issuer,
        signer::SigningRefusal,
        text::{ErrorReport, redaction::error_line},
    },
    reconcile::issuer::{IssuerReconciler, Observation},
    signer::{Node, node::SignError},
};

/// Longest wait for starting issuers before a reply. Reading a ledger takes milliseconds, opening a keyring
/// up to seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// The issuers of the process by name; `None` while one starts.
#[derive(Clone, Default)]
pub(super) struct ControlRegistry(Arc<watch::Sender<Open>>);

type Open = BTreeMap<Issuer, Option<IssuerHandle>>;

/// What control requests for one issuer need.
#[derive(Clone)]
struct IssuerHandle {
    reconciler: Arc<IssuerReconciler>,
    /// The node that signs in this process.
    node: Option<Arc<Node>>,
}

/// A running issuer; dropping it removes the issuer from the registry.
pub(super) struct Registration {
    registry: ControlRegistry,
    issuer: Issuer,
}

impl ControlRegistry {
    /// Registers an issuer that starts, so that requests wait for it.
    pub(super) fn expect(&self, issuer: &Issuer) {
        self.0.send_modify(|open| {
            open.entry(issuer.clone()).or_default();
        });
    }

    /// Removes an issuer that cannot start, so that requests no longer wait for it.
    pub(super) fn failed(&self, issuer: &Issuer) {
        self.0.send_modify(|open| drop(open.remove(issuer)));
    }

    /// Makes a started issuer available to requests.
    pub(super) fn open(&self, reconciler: &Arc<IssuerReconciler>, node: Option<Arc<Node>>) -> Registration {
        let issuer = reconciler.spec().terms.issuer.clone();
        let clerks = IssuerHandle { reconciler: Arc::clone(reconciler), node };
        self.0.send_modify(|open| drop(open.insert(issuer.clone(), Some(clerks))));
        Registration { registry: self.clone(), issuer }
    }

    pub(super) async fn answer(self, request: Request) -> Reply {
        self.try_to_answer(request)
            .await
            .unwrap_or_else(|ErrorReport { error, hint }| Reply::Refused { error, hint })
    }

    async fn try_to_answer(&self, request: Request) -> Result<Reply, ErrorReport> {
        let mut open = self.0.subscribe();
        let all_started = open.wait_for(|open| open.values().all(Option::is_some));
        let _ = timeout(PATIENCE, all_started).await.map(drop);
        match request {
            Request::Rotation { issuer } => {
                let clerks = match &issuer {
                    Some(_) => vec![self.handle_for(issuer.as_deref())?],
                    None => self.opened().into_values().collect(),
                };
                let mut reports = Vec::new();
                for IssuerHandle { reconciler, .. } in clerks {
                    reports.push(reconciler.rotation_status().await);
                }
                Ok(Reply::Rotation(reports))
            }
            Request::Rotate { issuer, ask } => {
                let IssuerHandle { reconciler, .. } = self.handle_for(issuer.as_deref())?;
                match reconciler.observe(Observation::Command(&ask)).await?.refused {
                    None => Ok(Reply::Done { issuer: reconciler.spec().terms.issuer.to_string() }),
                    Some(reason) => Err(reason.into()),
                }
            }
            Request::Token(request) => {
                let node = self.node(request.issuer.as_deref())?;
                match tokens::signed(&node, &request).await {
                    Ok(token) => Ok(Reply::Token(token.as_str().to_owned())),
                    Err(error) => Err(ErrorReport {
                        error: error_line(&error),
                        hint: match error {
                            SignError::Refused(SigningRefusal::NotReady | SigningRefusal::NoKey) => {
                                Some("`signpost rotate status` shows what the key is waiting for".to_owned())
                            }
                            SignError::Refused(SigningRefusal::TooLong) => {
                                let longest = node.settings().max_token_lifetime.as_secs();
                                Some(format!("request at most {longest} s: `--expiration {longest}s`"))
                            }
                            _ => None,
                        },
                    }),
                }
            }
        }
    }

    /// The node of the named issuer; without a name, of the only issuer that has one.
    fn node(&self, issuer: Option<&str>) -> Result<Arc<Node>, ErrorReport> {
        let open = self.opened().into_iter();
        let mut nodes = open.filter(|(name, _)| issuer.is_none_or(|wanted| name.as_str() == wanted));
        nodes.find_map(|(_, clerks)| clerks.node).ok_or_else(|| ErrorReport {
            error: "the service has no signer".to_owned(),
            hint: Some(
                "request the token from the cluster: `--source kubernetes --service-account \
                NAMESPACE/NAME`"
                    .to_owned(),
            ),
        })
    }

    fn handle_for(&self, issuer: Option<&str>) -> Result<IssuerHandle, ErrorReport> {
        let open = self.opened();
        let mut found = open.iter().filter(|(name, _)| issuer.is_none_or(|wanted| name.as_str() == wanted));
        match (found.next(), found.next()) {
            (Some((_, clerks)), None) => Ok(clerks.clone()),
            (Some(_), Some(_)) => Err(ErrorReport {
                error: format!("the service has {} issuers", open.len()),
                hint: Some("pass `--issuer` to select one".to_owned()),
            }),
            (None, _) => {
                let which = issuer.map(|issuer| format!(" `{issuer}`")).unwrap_or_default();
                let names: Vec<_> = open.keys().map(|name| format!("`{name}`")).collect();
                Err(ErrorReport {
                    error: format!("the service has no issuer{which}"),
                    hint: (!names.is_empty()).then(|| format!("it has {}", names.join(", "))),
                })
            }
        }
    }

    fn opened(&self) -> BTreeMap<Issuer, IssuerHandle> {
        let open = self.0.borrow();
        open.iter().filter_map(|(issuer, clerks)| Some((issuer.clone(), clerks.clone()?))).collect()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.0.send_modify(|open| drop(open.remove(&self.issuer)));
    }
}
