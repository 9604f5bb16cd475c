//! Kubernetes Events: the pod they refer to, and the access to its cluster.

use crate::config::{
    EventsConfig,
    problem::{Fault, Problems},
    reader::Mapping,
    value,
};

pub(super) fn read(events: &Mapping<'_>, problems: &mut Problems) -> Option<EventsConfig> {
    let pod = events.parsed("pod", problems, pod);
    let pod_uid = events.text("pod_uid", problems);
    let kubeconfig = events.path("kubeconfig", problems);
    let context = events.text("context", problems);
    let (namespace, pod) = pod?;
    Some(EventsConfig { namespace, pod, pod_uid, kubeconfig, context })
}

fn pod(text: &str) -> Result<(String, String), Fault> {
    match text.split_once('/') {
        Some((namespace, name))
            if value::is_label(namespace) && name.len() <= 253 && name.split('.').all(value::is_label) =>
        {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(Fault::new(format!("`{text}` is not a pod, expected `NAMESPACE/NAME`"))),
    }
}
