//! Objects of one kind as they are and as they change: a list, then a watch from there.
//!
//! When a watch ends, whyever, the objects are listed anew. So nothing has to be known of versions that
//! have expired (410), and what happened in between is not missed.

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
/// A watch that ended sooner than this is not begun again at once.
const LASTING: Duration = Duration::from_secs(10);
/// Time until a failure is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Waits after refusals. An API server that has just started refuses for some seconds, until it knows its
/// roles; one that still refuses then means it, and is asked again in case somebody grants the right.
const RETRY_REFUSED: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10), Duration::from_mins(1)];

/// Time until the next list where there is no right to watch.
const UNWATCHED: Duration = Duration::from_secs(30);

/// Which objects.
pub(crate) struct Collection {
    /// Group and name of the resource, of version `v1`.
    pub(crate) resource: &'static str,
    pub(crate) namespace: &'static str,
    /// The label that they bear, and its value.
    pub(crate) label: (&'static str, &'static str),
}

/// What there is, or why that is not known.
#[derive(Debug)]
pub(crate) enum Sight<V> {
    /// What was kept of each object, by its name.
    Objects(BTreeMap<String, V>),
    /// They may be listed and not watched: changes are seen late.
    Unwatched(KubernetesError),
    /// They may not be listed, or there is no such kind.
    Refused(KubernetesError),
    Failed(KubernetesError),
}

/// An object of Kubernetes, and what is kept of it.
pub(crate) trait Kept: DeserializeOwned + Metadata<Ty = ObjectMeta> {
    type Part: Clone + PartialEq;

    /// What the reader wants to know; everything else is thrown away at once.
    fn part(self) -> Self::Part;
}

impl Collection {
    /// Reads the objects once.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer in time, or another one than a list.
    pub(crate) async fn list<K: Kept>(
        &self,
        connection: &Connection,
    ) -> Result<BTreeMap<String, K::Part>, KubernetesError> {
        Ok(self.read::<K>(connection).await?.objects)
    }

    /// Tells what there is, and again after every change and every failure, for ever.
    pub(crate) async fn follow<K: Kept>(
        &self,
        connection: &Connection,
        mut tell: impl FnMut(Sight<K::Part>),
    ) -> Infallible {
        let mut refusals = 0;
        loop {
            let started = Instant::now();
            let snapshot = match Box::pin(self.read::<K>(connection)).await {
                Ok(snapshot) => snapshot,
                Err(error) if error.is_refusal() => {
                    let last = RETRY_REFUSED.len() - 1;
                    let meant = refusals >= last;
                    tell(if meant { Sight::Refused(error) } else { Sight::Failed(error) });
                    sleep(RETRY_REFUSED[refusals.min(last)]).await;
                    refusals += 1;
                    continue;
                }
                Err(error) => {
                    tell(Sight::Failed(error));
                    sleep(RETRY).await;
                    continue;
                }
            };
            refusals = 0;
            tell(Sight::Objects(snapshot.objects.clone()));
            let wait = match self.watch::<K>(connection, snapshot, &mut tell).await {
                Ok(()) if started.elapsed() >= LASTING => Duration::ZERO,
                Ok(()) => RETRY,
                Err(error) if error.is_refusal() => {
                    tell(Sight::Unwatched(error));
                    UNWATCHED
                }
                Err(error) => {
                    tell(Sight::Failed(error));
                    RETRY
                }
            };
            sleep(wait).await;
        }
    }

    async fn read<K: Kept>(&self, connection: &Connection) -> Result<Snapshot<K::Part>, KubernetesError> {
        let request = self.request("");
        let answer = connection.call(&request).await?;
        let list: List<K> = self.granted(&request, answer)?.json(&request)?;
        let objects = list.items.into_iter().map(named).collect();
        let version = list.metadata.resource_version.unwrap_or_default();
        Ok(Snapshot { objects, version })
    }

    /// Tells of changes until the watch ends.
    async fn watch<K: Kept>(
        &self,
        connection: &Connection,
        Snapshot { mut objects, version }: Snapshot<K::Part>,
        tell: &mut impl FnMut(Sight<K::Part>),
    ) -> Result<(), KubernetesError> {
        let request = self.request(&format!("&watch=1&allowWatchBookmarks=true&resourceVersion={version}"));
        let mut lines = match Box::pin(connection.open(&request)).await? {
            Opened::Stream(body) => Lines { body, rest: BytesMut::new() },
            Opened::Refused(answer) => return self.granted(&request, answer).map(drop),
        };
        while let Some(line) = lines.next().await {
            // A list follows, and says more than an error here would.
            let Ok(event) = serde_json::from_slice::<Event<K>>(&line) else { break };
            let before = objects.clone();
            match event {
                Event::Added(object) | Event::Modified(object) => objects.extend([named(object)]),
                Event::Deleted(object) => drop(objects.remove(&named(object).0)),
                Event::Bookmark {} => {}
                Event::Error {} => break,
            }
            if objects != before {
                tell(Sight::Objects(objects.clone()));
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

    /// Takes a success for an answer, and says what to do about a refusal.
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
    /// Where a watch begins that misses nothing.
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

fn named<K: Kept>(object: K) -> (String, K::Part) {
    (object.metadata().name.clone().unwrap_or_default(), object.part())
}

/// The lines of a watch as they come.
struct Lines {
    body: Body,
    rest: BytesMut,
}

impl Lines {
    /// The next line; `None` once there will be none, or it is too long, or nothing came for too long.
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
