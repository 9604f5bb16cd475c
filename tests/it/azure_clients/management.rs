//! A federated credential of a managed identity is made with Microsoft's own library, and used.

use serde_json::{Value, json};

use super::Clients;
use crate::exchange::{AUDIENCE, Stage, TENANT, WORKLOAD};
use crate::support::azure_client::{AzureClient, MANAGEMENT};
use crate::support::cluster::ISSUER;
use crate::support::tunnel::Tunnel;

const SUBJECT: &str = "system:serviceaccount:default:signpost";
const IDENTITY: &str = "6a2d9e4c-0b7f-4c1e-9d3a-8e5f1a2b3c4d";
const SUBSCRIPTION: &str = "1c9e5f70-3b2a-4d8c-8f6e-7a0b9c8d7e6f";
/// The identity has no credential.
const NONE: u64 = 70_025;

/// Azure Resource Manager as the application, which proves itself with the token of the service account.
struct Management {
    client: AzureClient,
    tunnel: Tunnel,
    token_file: String,
}

impl Management {
    fn ask(&mut self, flow: &str) -> Result<Value, String> {
        self.client.manage(&json!({
            "flow": flow, "tenant": TENANT, "client_id": WORKLOAD, "token_file": self.token_file,
            "subscription": SUBSCRIPTION, "resource_group": "team", "identity": "app", "name": "signpost",
            "properties": {"issuer": ISSUER, "subject": SUBJECT, "audiences": [AUDIENCE]},
        }))
    }
}

#[test]
fn a_credential_that_azure_mgmt_msi_makes_is_used_by_the_libraries() {
    let stage = Stage::set();
    let mut directory = Stage::directory(stage.folder.path(), SUBJECT);
    let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/team");
    directory["distinct_tokens"] = json!(true);
    directory["tenants"][TENANT][IDENTITY] = json!({
        "kind": "managed-identity", "client_id": IDENTITY, "tenant": TENANT, "credentials": [],
        "resource_id": format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app"),
    });
    stage.twin.replace(&directory);
    let tunnel = Tunnel::to(&stage.twin.address());
    let client = AzureClient::start(&MANAGEMENT, &stage.twin, &tunnel);
    let token = stage.token(AUDIENCE);
    let mut management = Management { client, tunnel, token_file: stage.write("token", &token) };
    let mut clients = Clients::start(&stage.twin);
    let mut codes = || {
        let mut request = super::request(json!({"flow": "workload"}), &token, &clients.folder);
        request["client_id"] = json!(IDENTITY);
        clients.all.iter_mut().map(|client| client.ask(&request).0).collect::<Vec<_>>()
    };
    assert_eq!(codes(), [Some(NONE); 6]);

    let created = management.ask("create").expect("it is created");
    assert_eq!(created["properties"], json!({"issuer": ISSUER, "subject": SUBJECT, "audiences": [AUDIENCE]}));
    assert_eq!(management.ask("get").expect("it is there"), created);
    assert_eq!(management.ask("list").expect("it is listed"), json!([created]));
    assert_eq!(codes(), [None; 6]);
    stage.exchange(IDENTITY, &["workload"]).expect_code(0);

    management.ask("delete").expect("it is deleted");
    let gone = management.ask("get").expect_err("it is gone");
    assert!(gone.contains("ResourceNotFoundError"), "{gone}");
    assert_eq!(codes(), [Some(NONE); 6]);
    let refused = stage.exchange(IDENTITY, &["workload"]).expect_code(1).stdout;
    assert!(refused.contains("AADSTS70025"), "{refused}");

    let seen = management.tunnel.seen();
    assert!(seen.iter().any(|head| head.starts_with("CONNECT management.azure.com:443 ")), "{seen:?}");
}
