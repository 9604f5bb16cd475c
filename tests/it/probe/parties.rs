//! The rules of external parties, at an issuer that is as public as namespaces permit: its name resolves to
//! an internet address, which the bridge of the test has, at port 443.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{REFUSED, allow, succeeds};
use crate::support::api_server::{ADMIN_TOKEN, ApiServer, Bearer, Options, write_kubeconfig};
use crate::support::control_plane::{Balancer, inside};
use crate::support::etcd::Etcd;
use crate::support::fault_proxy::{Action, FaultProxy, Rule};
use crate::support::installation::{Installation, JWKS, Service, directory_target};
use crate::support::nginx::{Location, Nginx};
use crate::support::pki::KeyFiles;
use crate::support::signpost::Signpost;

const HOST: &str = "oidc.example";
const ISSUER: &str = "https://oidc.example/cluster";
const ADDRESS: &str = "11.0.0.7";
const POOL: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider";
/// Runs a program with the hosts file `$0`.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// A web server that is the issuer, and its folder.
struct World {
    folder: TempDir,
    nginx: Nginx,
}

impl World {
    fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        fs::create_dir(folder.path().join("public")).expect("the folder is ours");
        fs::write(folder.path().join("hosts"), format!("127.0.0.1 localhost\n{ADDRESS} {HOST}\n"))
            .expect("the folder is ours");
        let public = Location::Folder(folder.path().join("public"));
        let nginx = Nginx::start_as(HOST, &[("/cluster/", public)]);
        Balancer::start_at(ADDRESS, 443, nginx.address());
        Self { folder, nginx }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn settings(&self, source: &Value, verify: &Value) -> Value {
        let target = directory_target(&self.path().join("public"));
        json!({"sources": [source], "targets": [target], "verify": verify})
    }

    fn run(&self, installation: &Installation) -> Service {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", WITH_HOSTS]).arg(self.path().join("hosts"));
        let command = Signpost::within(unshare, ["run"]).env("SIGNPOST_CONFIG", installation.config_file());
        installation.run_as(command.env("SSL_CERT_FILE", self.nginx.ca_file()))
    }
}

fn proxied(server: &ApiServer) -> FaultProxy {
    FaultProxy::start_trusting(&server.url(), Some(server.ca_file()))
}

/// The requested audiences of tokens for `team/app`.
fn audiences(proxy: &FaultProxy) -> Vec<Value> {
    let asked =
        proxy.seen().into_iter().filter(|seen| seen.path.ends_with("/team/serviceaccounts/app/token"));
    let spec = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("a TokenRequest")["spec"].take();
    asked.map(|seen| spec(&seen.body)["audiences"].take()).collect()
}

#[test]
fn each_party_is_asked_for_with_a_token_of_the_account_that_is_named() {
    inside("probe::parties::each_party_is_asked_for_with_a_token_of_the_account_that_is_named", || {
        let mut world = World::start();
        let (etcd, key) = (Etcd::start(), KeyFiles::rsa(world.path(), "sa"));
        let server = ApiServer::start(&etcd, Options::new(ISSUER, &key));
        for (namespace, account) in [("signpost", "signpost"), ("team", "app")] {
            server.create_namespace(namespace);
            server.create_service_account(namespace, account);
        }
        let (proxy, kubeconfig) = (proxied(&server), world.path().join("kubeconfig"));
        let token = server.token("signpost", "signpost", &[], 3600);
        write_kubeconfig(&kubeconfig, &proxy.url(), server.ca_file(), &Bearer::Token(&token));
        let source = json!({"kind": "api-server", "kubeconfig": kubeconfig, "every": "1s"});
        let other = world.path().join("other");
        let stranger = KeyFiles::rsa(world.path(), "other-key").public;
        let arguments = ["jwks", "--issuer", ISSUER, "--output-dir"].map(std::path::PathBuf::from);
        Signpost::new(arguments.into_iter().chain([other.clone(), "--source".into(), stranger]))
            .finish(super::WITHIN)
            .expect_code(0);

        // The permission is missing: there is no token, which is no verdict.
        let verify = json!({"every": "1s", "service_account": "team/app", "for": "entra"});
        let installation = Installation::new(ISSUER, &world.settings(&source, &verify));
        let mut service = world.run(&installation);
        service.until("it may not", |service| service.status()["verification"]["error"].is_string());
        let error = service.status()["verification"]["error"].as_str().expect("words").to_owned();
        assert!(error.contains("team") && error.contains("403"), "{error}");
        let rule = json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]});
        allow(&server, "team", &json!([rule]));
        service.until("it may", |service| succeeds(service) == Some(true));
        service.stop().expect_code(0);

        for (party, name, audience, code) in [
            ("entra", "Microsoft Entra", "api://AzureADTokenExchange", Some(7_000_272)),
            ("aws", "AWS", "sts.amazonaws.com", None),
            ("gcp", "Google Cloud", POOL, None),
        ] {
            proxy.forget();
            let mut verify = json!({"every": "1s", "service_account": "team/app", "for": party});
            if party == "gcp" {
                verify["audience"] = json!(POOL);
            }
            installation.configure(&world.settings(&source, &verify));
            let mut service = world.run(&installation);
            service.until("tokens are accepted", |service| succeeds(service) == Some(true));
            let found = service.status()["verification"].take();
            let ids: Vec<_> =
                found["findings"].as_array().expect("a list").iter().map(|it| &it["id"]).collect();
            // Entra may not know an issuer that is new.
            let expected = if party == "entra" { json!(["CACHE-FIRST"]) } else { json!([]) };
            assert_eq!((&found["for"], json!(ids)), (&json!(party), expected), "{found}");
            let asked = audiences(&proxy);
            assert!(asked.iter().all(|asked| *asked == json!([audience])) && !asked.is_empty(), "{asked:?}");
            assert!(
                service.admin("/readyz?verbose").text().contains(&format!("{name} would accept its tokens"))
            );

            world.nginx.point(&[("/cluster/", Location::Folder(other.clone()))]);
            service.until("the missing key is seen", |service| succeeds(service) == Some(false));
            let found = service.status()["verification"].take();
            assert_eq!(found["findings"][0]["id"], "JWKS-KID", "{found}");
            assert_eq!(found["likely_code"].as_u64(), code);
            let with = code.map_or(String::new(), |code| format!(" with AADSTS{code}"));
            let words = format!("{name} would refuse its tokens{with}, JWKS-KID: kid ");
            assert!(service.admin("/readyz").text().contains(&words), "{words}");
            world.nginx.point(&[("/cluster/", Location::Folder(world.path().join("public")))]);
            service.until("it is healed", |service| succeeds(service) == Some(true));
            service.stop().expect_code(0);
        }
    });
}

/// The API servers rotate their key one after the other; the probe requests a token from one of them, and the
/// load balancer in front may reach another one.
#[test]
fn a_key_that_rolls_through_the_instances_is_refused_at_no_time() {
    inside("probe::parties::a_key_that_rolls_through_the_instances_is_refused_at_no_time", || {
        let world = World::start();
        let etcd = Etcd::start();
        let [old, new] = ["old", "new"].map(|name| KeyFiles::rsa(world.path(), name));
        let both = vec![old.public.clone(), new.public.clone()];
        let signing =
            |key: &KeyFiles| Options { verification_keys: both.clone(), ..Options::new(ISSUER, key) };
        let mut first = ApiServer::start(&etcd, Options::new(ISSUER, &old));
        first.create_namespace("signpost");
        first.create_service_account("signpost", "signpost");
        let second = ApiServer::start(&etcd, signing(&new));
        let proxies = [proxied(&first), proxied(&second)];
        let kubeconfig = world.path().join("kubeconfig");
        write_kubeconfig(&kubeconfig, &proxies[0].url(), first.ca_file(), &Bearer::Token(ADMIN_TOKEN));
        let instances = proxies.each_ref().map(|proxy| json!({"url": proxy.url()}));
        let source =
            json!({"kind": "api-server", "kubeconfig": kubeconfig, "every": "1s", "instances": instances});
        let verify = json!({"every": "1s", "service_account": "signpost/signpost"});
        let mut service = world.run(&Installation::new(ISSUER, &world.settings(&source, &verify)));
        service.until("tokens are accepted", |service| succeeds(service) == Some(true));

        // The first one's response before it has the new key is later the second one's.
        let behind: &'static str = first.jwks().text().leak();
        first.restart_with(signing(&new));
        let headers = vec![("content-type", "application/jwk-set+json")];
        let stale = Action::Answer { status: 200, headers, body: behind };
        proxies[0].script([Rule::new(stale).path_contains(JWKS)]);
        let finds = |service: &Service, id: &str| {
            let found = service.status()["verification"]["findings"].take();
            found.as_array().is_some_and(|found| found.iter().any(|finding| finding["id"] == id))
        };
        service.until("the key is not shown", |service| finds(service, "K8S-KEYPAIR"));
        assert_eq!(succeeds(&service), Some(true), "it is published, whoever shows it");
        proxies[0].script([]);
        service.until("the key is shown", |service| !finds(service, "K8S-KEYPAIR"));
        let log = service.stop().expect_code(0).stderr;
        assert!(!log.contains(REFUSED), "{log}");
    });
}
