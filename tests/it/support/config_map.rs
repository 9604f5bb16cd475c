//! The `ConfigMap` of a ledger, as an administrator sees it.

use serde_json::{Value, json};

use super::api_server::ApiServer;

pub(crate) struct ConfigMap<'a> {
    server: &'a ApiServer,
    namespace: String,
}

impl<'a> ConfigMap<'a> {
    pub(crate) const NAME: &'static str = "ledger";

    /// Creates an empty namespace.
    pub(crate) fn in_new_namespace(server: &'a ApiServer, namespace: &str) -> Self {
        server.create_namespace(namespace);
        Self { server, namespace: namespace.to_owned() }
    }

    /// The reference in the configuration.
    pub(crate) fn reference(&self) -> String {
        format!("{}/{}", self.namespace, Self::NAME)
    }

    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), Self::NAME)
    }

    /// The whole object; `None` if there is none.
    pub(crate) fn object(&self) -> Option<Value> {
        let answer = self.server.admin_request("GET", &self.path()).answer();
        (answer.status == 200).then(|| answer.json())
    }

    #[track_caller]
    pub(crate) fn ledger_text(&self) -> String {
        let object = self.object().expect("it is there");
        object["data"]["ledger.json"].as_str().expect("a ledger").to_owned()
    }

    #[track_caller]
    pub(crate) fn ledger(&self) -> Value {
        serde_json::from_str(&self.ledger_text()).expect("JSON")
    }

    #[track_caller]
    pub(crate) fn create(&self, more: &Value) {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": Self::NAME}});
        for (key, value) in more.as_object().expect("a mapping") {
            object[key] = value.clone();
        }
        self.server.create(&self.collection(), &object);
    }

    #[track_caller]
    pub(crate) fn replace_data(&self, data: &Value) {
        let mut object = self.object().expect("it is there");
        object["metadata"].as_object_mut().expect("a mapping").remove("resourceVersion");
        object["data"] = data.clone();
        self.server.admin_request("PUT", &self.path()).json(&object).answer().expect_status(200);
    }

    #[track_caller]
    pub(crate) fn delete(&self) {
        self.server.admin_request("DELETE", &self.path()).answer().expect_status(200);
    }
}
