//! Objects of one kind and their changes: a list, then a watch from there.
//!
//! When a watch ends for any reason, the objects are listed again. So expired versions (410) need no
//! handling, and changes in between are not missed.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use k8s_openapi::{
    Metadata,
    apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta},
};
use kube::client::Body;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout};

use super::{
    KubernetesError,
    connection::{Answer, Connection, MAX_ANSWER, Opened, Request},
    error::{hint_for_credential, refused_user},
};

/// Longest silence of a watch. kube-apiserver sends a bookmark about once a minute.
/// Source: `bookmarkFrequency` in `kubernetes/staging/src/k8s.io/apiserver/pkg/storage/cacher/cacher.go`.
const SILENCE: Duration = Duration::from_mins(2);
/// A watch that ended sooner than this is restarted with a delay.
const LASTING: Duration = Duration::from_secs(10);
/// Delay before a failure is retried.
const RETRY: Duration = Duration::from_secs(1);
/// Delays after refusals. An API server that has just started refuses for some seconds, until it has loaded
/// its roles; a later refusal is permanent, and is retried in case the permission is granted.
const RETRY_REFUSED: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10), Duration::from_mins(1)];

/// Interval between two lists without the permission to watch.
const UNWATCHED: Duration = Duration::from_secs(30);

/// The objects to list and watch.
pub(crate) struct Collection {
    /// Group and name of the resource, of version `v1`.
    pub(crate) resource: &'static str,
    pub(crate) namespace: &'static str,
    /// The label selector: key and value.
    pub(crate) label: (&'static str, &'static str),
}

/// The known objects, or why they are unknown.
#[derive(Debug)]
pub(crate) enum WatchState<V> {
    /// The kept part of each object, by its name.
    Objects(BTreeMap<String, V>),
    /// Listing is permitted, watching is not: changes are seen late.
    Unwatched(KubernetesError),
    /// Listing is not permitted, or there is no such kind.
    Refused(KubernetesError),
    Failed(KubernetesError),
}

/// A Kubernetes object, and the part of it that is kept.
pub(crate) trait Projection: DeserializeOwned + Metadata<Ty = ObjectMeta> {
    type Part: Clone + PartialEq;

    /// The part that the reader needs; the rest is dropped at once.
    fn part(self) -> Self::Part;
}

impl Collection {
    /// Lists the objects once.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or one that is not a list.
    pub(crate) async fn list<K: Projection>(
        &self,
        connection: &Connection,
    ) -> Result<BTreeMap<String, K::Part>, KubernetesError> {
        Ok(self.read::<K>(connection).await?.objects)
    }

    /// Reports the objects, and again after every change and every failure; never returns.
    pub(crate) async fn follow<K: Projection>(
        &self,
        connection: &Connection,
        mut tell: impl FnMut(WatchState<K::Part>),
    ) -> Infallible {
        let mut refusals = 0;
        loop {
            let started = Instant::now();
            let snapshot = match Box::pin(self.read::<K>(connection)).await {
                Ok(snapshot) => snapshot,
                Err(error) if error.is_refusal() => {
                    let last = RETRY_REFUSED.len() - 1;
                    let meant = refusals >= last;
                    tell(if meant { WatchState::Refused(error) } else { WatchState::Failed(error) });
                    sleep(RETRY_REFUSED[refusals.min(last)]).await;
                    refusals += 1;
                    continue;
                }
                Err(error) => {
                    tell(WatchState::Failed(error));
                    sleep(RETRY).await;
                    continue;
                }
            };
            refusals = 0;
            tell(WatchState::Objects(snapshot.objects.clone()));
            let wait = match self.watch::<K>(connection, snapshot, &mut tell).await {
                Ok(()) if started.elapsed() >= LASTING => Duration::ZERO,
                Ok(()) => RETRY,
                Err(error) if error.is_refusal() => {
                    tell(WatchState::Unwatched(error));
                    UNWATCHED
                }
                Err(error) => {
                    tell(WatchState::Failed(error));
                    RETRY
                }
            };
            sleep(wait).await;
        }
    }

    async fn read<K: Projection>(
        &self,
        connection: &Connection,
    ) -> Result<Snapshot<K::Part>, KubernetesError> {
        let request = self.request("");
        let answer = connection.call(&request).await?;
        let list: List<K> = self.granted(&request, answer)?.json(&request)?;
        let objects = list.items.into_iter().map(named).collect();
        let version = list.metadata.resource_version.unwrap_or_default();
        Ok(Snapshot { objects, version })
    }

    /// Reports changes until the watch ends.
    async fn watch<K: Projection>(
        &self,
        connection: &Connection,
        Snapshot { mut objects, version }: Snapshot<K::Part>,
        tell: &mut impl FnMut(WatchState<K::Part>),
    ) -> Result<(), KubernetesError> {
        let request = self.request(&format!("&watch=1&allowWatchBookmarks=true&resourceVersion={version}"));
        let mut lines = match Box::pin(connection.open(&request)).await? {
            Opened::Stream(body) => Lines { body, rest: BytesMut::new() },
            Opened::Refused(answer) => return self.granted(&request, answer).map(drop),
        };
        while let Some(line) = lines.next().await {
            // A list follows, and its error says more than one here would.
            let Ok(event) = serde_json::from_slice::<Event<K>>(&line) else { break };
            let before = objects.clone();
            match event {
                Event::Added(object) | Event::Modified(object) => objects.extend([named(object)]),
                Event::Deleted(object) => drop(objects.remove(&named(object).0)),
                Event::Bookmark {} => {}
                Event::Error {} => break,
            }
            if objects != before {
                tell(WatchState::Objects(objects.clone()));
            }
        }
        Ok(())
    }

    fn request(&self, more: &str) -> Request {
        let Self { resource, label: (label, value), .. } = self;
        let (group, name) = resource.split_once('/').expect("the group stands before the name");
        let namespace = self.namespace;
        Request::get(format!(
            "/apis/{group}/v1/namespaces/{namespace}/{name}?labelSelector={label}%3D{value}{more}"
        ))
    }

    /// Checks that an answer is a success, and adds a hint to a refusal.
    fn granted(&self, request: &Request, answer: Answer) -> Result<Answer, KubernetesError> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let message = answer.message();
        let credential = hint_for_credential(answer.status, message.as_deref()).map(str::to_owned);
        let hint = credential.or_else(|| {
            let (group, name) = self.resource.split_once('/').expect("the group stands before the name");
            let namespace = self.namespace;
            (answer.status == StatusCode::FORBIDDEN).then(|| {
                format!(
                    "let it see them: `kubectl create role signpost-{name} --namespace={namespace} \
                     --verb=list,watch --resource={name}.{group} && kubectl create rolebinding signpost-{name} \
                     --namespace={namespace} --role=signpost-{name} {}`",
                    refused_user(message.as_deref())
                )
            })
        });
        Err(KubernetesError::Status { request: request.to_string(), status: answer.status, message, hint })
    }
}

struct Snapshot<V> {
    objects: BTreeMap<String, V>,
    /// The version to watch from without missing a change.
    version: String,
}

#[derive(Deserialize)]
struct List<K> {
    metadata: ListMeta,
    items: Vec<K>,
}

/// One line of a watch.
/// Source: `WatchEvent` in `kubernetes/staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/watch.go`.
#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum Event<K> {
    Added(K),
    Modified(K),
    Deleted(K),
    Bookmark {},
    Error {},
}

fn named<K: Projection>(object: K) -> (String, K::Part) {
    (object.metadata().name.clone().unwrap_or_default(), object.part())
}

/// The lines of a watch as they arrive.
struct Lines {
    body: Body,
    rest: BytesMut,
}

impl Lines {
    /// The next line; `None` when the watch ended, the line is too long, or nothing arrived for too long.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end).freeze();
                self.rest.advance(1);
                return Some(line);
            }
            if self.rest.len() > MAX_ANSWER {
                return None;
            }
            let frame = timeout(SILENCE, self.body.frame()).await.ok()??.ok()?;
            self.rest.extend_from_slice(&frame.into_data().ok()?);
        }
    }
}

#[cfg(test)]
mod tests;
