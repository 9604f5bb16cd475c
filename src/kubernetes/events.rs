//! Sends Kubernetes Events about the pod that Signpost runs in.
//!
//! They refer to the pod because its name and UID come from the kubelet: no read permission is needed, and
//! `kubectl describe pod` shows them. Each replica sends its own observations. kube's recorder is not used:
//! it merges two events that differ only in their note, has no limit, and keeps counting an Event that has
//! expired.

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use crate::{
    core::{
        events::aggregator::{SendOutcome, Series},
        text::Hint,
    },
    kubernetes::{Access, Answer, Connection, KubernetesError, Request, refused_user},
};

/// The reporting controller, for `kubectl get events --field-selector reportingComponent=signpost`.
const CONTROLLER: &str = "signpost";
/// Longest name of a reporting instance, in bytes.
/// Source: `ReportingInstanceLengthLimit` in `kubernetes/pkg/apis/core/validation/events.go`.
const MAX_INSTANCE: usize = 128;

/// The pod that the Events refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// Without it, `kubectl describe pod` does not show the Events; `kubectl events` does.
    pub uid: Option<String>,
}

/// The Events of one process.
#[derive(Debug)]
pub struct Events {
    connection: Connection,
    pod: Pod,
    /// Part of every Event's name, because earlier containers of the pod had other Events.
    started: Timestamp,
}

impl Events {
    #[must_use]
    pub fn new(access: Access, pod: Pod, started: Timestamp) -> Self {
        Self { connection: Connection::new(access), pod, started }
    }

    /// Creates an Event, or updates its count.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be reached, or rejects the Event.
    pub async fn send(&self, series: &Series) -> Result<(), EventError> {
        let mut request = if series.is_new() { self.create(series) } else { self.update(series) };
        let mut answer = self.connection.call(&request).await?;
        // Another attempt created it, whose answer was lost; or it has expired.
        let other = match answer.status {
            StatusCode::CONFLICT if series.count == 1 => return Ok(()),
            StatusCode::CONFLICT => Some(self.update(series)),
            StatusCode::NOT_FOUND if !series.is_new() => Some(self.create(series)),
            _ => None,
        };
        if let Some(other) = other {
            request = other;
            answer = self.connection.call(&request).await?;
        }
        if answer.status.is_success() { Ok(()) } else { Err(self.refused(&request, &answer)) }
    }

    fn create(&self, series: &Series) -> Request {
        Request::post(self.path(), &self.event(series))
    }

    fn update(&self, series: &Series) -> Request {
        let path = format!("{}/{}", self.path(), self.name(series));
        Request::merge_patch(path, &serde_json::json!({ "series": event_series(series) }))
    }

    fn path(&self) -> String {
        format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.pod.namespace)
    }

    fn name(&self, series: &Series) -> String {
        let started = self.started.as_microsecond();
        // The names of a pod and of an Event are both limited to 253 characters.
        let pod: String = self.pod.name.chars().take(200).collect();
        format!("{}.{started:x}.{}", pod.trim_end_matches(['.', '-']), series.number)
    }

    fn event(&self, series: &Series) -> Event {
        let reason = series.event.reason;
        Event {
            metadata: ObjectMeta {
                namespace: Some(self.pod.namespace.clone()),
                name: Some(self.name(series)),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(series.first)),
            type_: Some(reason.type_name().to_owned()),
            reason: Some(reason.name()),
            action: Some(reason.action().to_owned()),
            note: Some(series.event.note().to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(self.pod.namespace.clone()),
                name: Some(self.pod.name.clone()),
                uid: self.pod.uid.clone(),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.pod.name.chars().take(MAX_INSTANCE).collect()),
            // Kubernetes rejects a series of one.
            series: (series.count > 1).then(|| event_series(series)),
            ..Event::default()
        }
    }

    fn refused(&self, request: &Request, answer: &Answer) -> EventError {
        let message = answer.message();
        let hint = (answer.status == StatusCode::FORBIDDEN).then(|| self.hint(message.as_deref()));
        KubernetesError::Status { request: request.to_string(), status: answer.status, message, hint }.into()
    }

    fn hint(&self, message: Option<&str>) -> String {
        let namespace = &self.pod.namespace;
        format!(
            "allow it: `kubectl create role signpost-events --namespace {namespace} --verb create,patch \
             --resource events.events.k8s.io` and `kubectl create rolebinding signpost-events --namespace \
             {namespace} --role signpost-events {}`",
            refused_user(message)
        )
    }
}

fn event_series(series: &Series) -> EventSeries {
    EventSeries {
        count: i32::try_from(series.count).unwrap_or(i32::MAX),
        last_observed_time: MicroTime(series.last),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot send a Kubernetes Event")]
pub struct EventError(#[from] KubernetesError);

impl EventError {
    /// What the error means for the pending Event.
    #[must_use]
    pub fn outcome(&self) -> SendOutcome {
        match &self.0 {
            KubernetesError::Status { status, .. }
                if matches!(
                    *status,
                    StatusCode::BAD_REQUEST
                        | StatusCode::UNPROCESSABLE_ENTITY
                        | StatusCode::PAYLOAD_TOO_LARGE
                ) =>
            {
                SendOutcome::Refused
            }
            _ => SendOutcome::Failed,
        }
    }
}

impl Hint for EventError {
    fn hint(&self) -> Option<String> {
        self.0.hint()
    }
}
