//! Discovers the API servers of a cluster through the cluster, and detects when one starts.
//!
//! kube-apiserver writes its address into the `EndpointSlice` of Service `kubernetes`, and removes that of
//! another one about 15 s after it died. It announces every start with a Lease. Observed on 1.37: the Lease
//! is created 0.3 s after the first answer, the address is listed another second later.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use k8s_openapi::api::{coordination::v1::Lease, discovery::v1::EndpointSlice};

use super::{Source, api_server::ApiServer};
use crate::kubernetes::{Access, Collection, Connection, KubernetesError, Projection, WatchState};

/// The `EndpointSlice` in which every API server lists itself.
/// Source: `kubernetes/pkg/controlplane/reconcilers/endpointsadapter.go`.
const API_SERVERS: Collection = Collection {
    resource: "discovery.k8s.io/endpointslices",
    namespace: "default",
    label: ("kubernetes.io/service-name", "kubernetes"),
};
/// The Leases that every API server renews every ten seconds, with an identity per start.
/// Source: `IdentityLeaseComponentLabelKey` in `kubernetes/pkg/controlplane/apiserver/server.go`.
const IDENTITIES: Collection = Collection {
    resource: "coordination.k8s.io/leases",
    namespace: "kube-system",
    label: ("apiserver.kubernetes.io/identity", "kube-apiserver"),
};
/// A name that every API server's certificate has, whatever address is dialled.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// The port's name in the `EndpointSlice`.
const PORT_NAME: &str = "https";

/// A cluster with one or more API servers.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    access: Access,
    connection: Connection,
}

/// The API servers that the cluster lists.
#[derive(Debug)]
pub enum Listing {
    /// Their URLs; empty when no API server lists itself.
    Listed(BTreeSet<String>),
    /// Listing is permitted, watching is not, so changes are seen late.
    Unwatched(KubernetesError),
    /// Listing is not permitted.
    Refused(KubernetesError),
    Failed(KubernetesError),
}

/// The starts of API servers that the cluster reports.
#[derive(Debug)]
pub enum Starts {
    /// The identity of each running API server, by its name: a new one after every start.
    Known(BTreeMap<String, String>),
    /// Reading or watching the Leases is not permitted.
    Refused(KubernetesError),
    Failed(KubernetesError),
}

impl Cluster {
    /// Sends no request before the first call.
    #[must_use]
    pub fn new(name: String, access: Access) -> Self {
        Self { name, connection: Connection::new(access.clone()), access }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The API server that answers at the cluster's single URL.
    #[must_use]
    pub fn at_its_url(&self) -> Source {
        Source::ApiServer(Box::new(ApiServer::new(self.name.clone(), self.access.clone())))
    }

    /// The API server at one of the URLs that the cluster lists.
    #[must_use]
    pub fn instance(&self, url: &str) -> Source {
        let access = Access {
            instance: Some(url.to_owned()),
            tls_server_name: Some(SERVER_NAME.to_owned()),
            ..self.access.clone()
        };
        Source::ApiServer(Box::new(ApiServer::new(self.name_of(url), access)))
    }

    /// The name of the API server at this URL in messages and metrics.
    #[must_use]
    pub fn name_of(&self, url: &str) -> String {
        format!("{} {url}", self.name)
    }

    /// Lists the API servers once.
    pub async fn list(&self) -> Listing {
        match API_SERVERS.list::<EndpointSlice>(&self.connection).await {
            Ok(slices) => Listing::Listed(union(slices)),
            Err(error) if error.is_refusal() => Listing::Refused(error),
            Err(error) => Listing::Failed(error),
        }
    }

    /// Reports the listed API servers, and again after every change and every failure; never returns.
    pub async fn follow(&self, mut tell: impl FnMut(Listing)) -> Infallible {
        let tell = |sight| {
            tell(match sight {
                WatchState::Objects(slices) => Listing::Listed(union(slices)),
                WatchState::Unwatched(error) => Listing::Unwatched(error),
                WatchState::Refused(error) => Listing::Refused(error),
                WatchState::Failed(error) => Listing::Failed(error),
            });
        };
        API_SERVERS.follow::<EndpointSlice>(&self.connection, tell).await
    }

    /// Reports the running API servers, and again after every start, end and failure; never returns.
    pub async fn follow_starts(&self, mut tell: impl FnMut(Starts)) -> Infallible {
        let tell = |sight| {
            tell(match sight {
                WatchState::Objects(identities) => Starts::Known(identities),
                WatchState::Unwatched(error) | WatchState::Refused(error) => Starts::Refused(error),
                WatchState::Failed(error) => Starts::Failed(error),
            });
        };
        IDENTITIES.follow::<Lease>(&self.connection, tell).await
    }
}

impl Projection for EndpointSlice {
    /// The URLs that it lists.
    type Part = BTreeSet<String>;

    fn part(self) -> Self::Part {
        let ports = self.ports.unwrap_or_default();
        let port =
            ports.iter().find(|port| port.name.as_deref() == Some(PORT_NAME)).and_then(|port| port.port);
        let endpoints = self.endpoints.unwrap_or_default();
        let hosts = endpoints.into_iter().flat_map(|endpoint| endpoint.addresses);
        port.map(|port| hosts.map(|host| url(&host, port)).collect()).unwrap_or_default()
    }
}

impl Projection for Lease {
    /// The holder identity; renewals do not change it.
    type Part = String;

    fn part(self) -> Self::Part {
        self.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
    }
}

fn union(slices: BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    slices.into_values().flatten().collect()
}

fn url(host: &str, port: i32) -> String {
    if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
}

#[cfg(test)]
mod tests;
