//! What the operator of this machine may ask of the service.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{
    control::{Reply, Request},
    core::issuer::Issuer,
    workflow::{
        asking::in_one_line,
        keeper::{Keeper, Unasked},
    },
};

/// The issuers that run now, for those who ask.
#[derive(Clone, Default)]
pub(super) struct Offices(Arc<Mutex<BTreeMap<Issuer, Arc<Keeper>>>>);

/// An issuer that runs; when it is dropped, it does not any more.
pub(super) struct Office {
    offices: Offices,
    issuer: Issuer,
}

impl Offices {
    /// Shows an issuer to those who ask.
    pub(super) fn open(&self, keeper: &Arc<Keeper>) -> Office {
        let issuer = keeper.charter().terms.issuer.clone();
        self.locked().insert(issuer.clone(), Arc::clone(keeper));
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
                let keepers = match &issuer {
                    Some(_) => vec![self.keeper(issuer.as_deref())?],
                    None => self.locked().values().cloned().collect(),
                };
                let mut reports = Vec::new();
                for keeper in keepers {
                    reports.push(keeper.rotation().await);
                }
                Ok(Reply::Rotation(reports))
            }
            Request::Rotate { issuer, ask } => {
                let keeper = self.keeper(issuer.as_deref())?;
                keeper.ask(&ask).await.map_err(|error| Refused::of(&error))?;
                Ok(Reply::Done { issuer: keeper.charter().terms.issuer.to_string() })
            }
        }
    }

    fn keeper(&self, issuer: Option<&str>) -> Result<Arc<Keeper>, Refused> {
        let open = self.locked();
        let mut found = open.iter().filter(|(name, _)| issuer.is_none_or(|wanted| name.as_str() == wanted));
        match (found.next(), found.next()) {
            (Some((_, keeper)), None) => Ok(Arc::clone(keeper)),
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

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Issuer, Arc<Keeper>>> {
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
