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
    core::events::aggregator::{EventUpdate, SendOutcome},
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

    /// Creates an Event, or increments its count.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be reached, or rejects the Event.
    pub async fn send(&self, bulletin: &EventUpdate) -> Result<SendOutcome, EventError> {
        if !bulletin.is_new {
            return self.count_up(bulletin).await;
        }
        let request = Request::post(self.path(), &self.event(bulletin));
        let answer = self.connection.call(&request).await?;
        match answer.status {
            status if status.is_success() => Ok(SendOutcome::Sent),
            // Created by an attempt whose answer was lost.
            StatusCode::CONFLICT if bulletin.count > 1 => self.count_up(bulletin).await,
            StatusCode::CONFLICT => Ok(SendOutcome::Sent),
            _ => Err(self.refused(&request, &answer)),
        }
    }

    async fn count_up(&self, bulletin: &EventUpdate) -> Result<SendOutcome, EventError> {
        let path = format!("{}/{}", self.path(), self.name(bulletin));
        let series = serde_json::json!({ "series": series(bulletin) });
        let request = Request::merge_patch(path, &series);
        let answer = self.connection.call(&request).await?;
        match answer.status {
            status if status.is_success() => Ok(SendOutcome::Sent),
            StatusCode::NOT_FOUND => Ok(SendOutcome::Gone),
            _ => Err(self.refused(&request, &answer)),
        }
    }

    fn path(&self) -> String {
        format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.pod.namespace)
    }

    fn name(&self, bulletin: &EventUpdate) -> String {
        let started = self.started.as_microsecond();
        // The names of a pod and of an Event are both limited to 253 characters.
        let pod: String = self.pod.name.chars().take(200).collect();
        format!("{}.{started:x}.{}", pod.trim_end_matches(['.', '-']), bulletin.number)
    }

    fn event(&self, bulletin: &EventUpdate) -> Event {
        let notice = &bulletin.notice;
        let kind = if notice.reason.is_warning() { "Warning" } else { "Normal" };
        Event {
            metadata: ObjectMeta {
                namespace: Some(self.pod.namespace.clone()),
                name: Some(self.name(bulletin)),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(bulletin.first)),
            type_: Some(kind.to_owned()),
            reason: Some(notice.reason.name().to_owned()),
            action: Some(notice.reason.action().to_owned()),
            note: Some(notice.note().to_owned()),
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
            series: (bulletin.count > 1).then(|| series(bulletin)),
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

fn series(bulletin: &EventUpdate) -> EventSeries {
    EventSeries {
        count: i32::try_from(bulletin.count).unwrap_or(i32::MAX),
        last_observed_time: MicroTime(bulletin.last),
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

    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.0.hint()
    }
}
