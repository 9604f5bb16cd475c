//! Signers with client certificates: the permissions they need, and hostile contents of their `ConfigMaps`.

use super::*;
use crate::support::fault_proxy::{Action, FaultProxy, Rule};
use crate::support::kubectl::Kubectl;
use crate::support::pki::{Authority, ClientTls};

/// The manifest that the manual has for the node `cp-1`, for another node and the ledger of these tests.
fn documented(node: &str) -> String {
    let manifest = include_str!("../../../deploy/signer/rbac.yaml");
    manifest
        .replace("cp-1", node)
        .replace("namespace: signpost\n", &format!("namespace: {MAP}\n"))
        .replace("[signpost-ledger", "[ledger")
        // The hint of the publisher has created these for another user.
        .replace("name: signpost-announcements\n", "name: documented\n")
}

/// What `documented` permits, and what it does not.
fn the_manifest_gives_no_more(kubectl: &Kubectl) {
    for (user, right, given) in [
        ("signpost-signer-cp-2", "update configmaps/ledger", "no"),
        ("signpost-signer-cp-2", "update configmaps/ledger.cp-1", "no"),
        ("signpost-signer-cp-2", "delete configmaps/ledger.cp-2", "no"),
        ("system:serviceaccount:signpost-ledger:signpost", "list configmaps", "yes"),
        ("system:serviceaccount:signpost-ledger:signpost", "create configmaps", "no"),
    ] {
        let user = format!("--as={user}");
        let words = ["auth", "can-i", &user, "--namespace=signpost-ledger"];
        let answer = kubectl.run(words.into_iter().chain(right.split(' ')));
        assert_eq!(answer.stdout.trim(), given, "{user}: {right}");
    }
}

/// Runs the commands of a hint.
fn obey(kubectl: &Kubectl, hint: &str) {
    let commands = hint.split('`').nth(1).expect("a command in backticks");
    for command in commands.split(" && ") {
        let words = command.split_whitespace().map(|word| word.replace('\'', ""));
        kubectl.run(words.skip(1)).expect_code(0);
    }
}

/// The hint of the last such line in the log of a signer.
fn hint_after(signer: &mut ExternalSigner, message: &str, action: &str) -> String {
    let (hint, _) = eventually(&format!("a hint how to {action}"), || {
        let log = signer.running().stderr();
        let line = log.lines().rfind(|line| line.contains(message) && line.contains(action))?;
        Some(line.split_once("hint=\"").expect("a hint").1.to_owned())
    });
    hint
}

fn user_of(node: &str) -> String {
    format!("signpost-signer-{node}")
}

struct Users {
    authority: Authority,
    folder: TempDir,
}

impl Users {
    fn new() -> Self {
        Self { authority: Authority::create(), folder: TempDir::new().expect("a temporary folder") }
    }

    fn certificate(&self, user: &str) -> ClientTls {
        self.authority.client(self.folder.path(), user)
    }

    fn flags(&self) -> [String; 1] {
        [format!("--client-ca-file={}", self.authority.file(self.folder.path()).display())]
    }

    fn node(&self, name: &'static str, etcd: &Etcd) -> Node {
        let certificate = self.certificate(&user_of(name));
        Node::start_as(&Bearer::Certificate(&certificate), name, etcd, self.folder.path(), &self.flags())
    }
}

fn path_of(node: &str) -> String {
    format!("/api/v1/namespaces/{MAP}/configmaps/ledger.{node}")
}

fn announced_in(server: &ApiServer, node: &str) -> Option<Value> {
    let answer = server.admin_request("GET", &path_of(node)).answer();
    (answer.status == 200).then(|| answer.json())
}

/// Replaces the announcement of a node.
fn overwrite(server: &ApiServer, node: &str, text: &str) {
    let mut object = announced_in(server, node).expect("it is there");
    object["metadata"].as_object_mut().expect("a mapping").remove("resourceVersion");
    object["data"] = json!({"announcement.json": text});
    server.admin_request("PUT", &path_of(node)).json(&object).answer().expect_status(200);
}

/// Creates an object as if a node had.
fn pretend(server: &ApiServer, name: &str, label: Option<&str>, text: &str) {
    let labels = label.map_or(json!({}), |ledger| json!({"signpost/announces-for": ledger}));
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels}, "data": {"announcement.json": text},
    });
    server.create(&format!("/api/v1/namespaces/{MAP}/configmaps"), &object);
}

#[test]
fn signers_need_the_documented_rights_and_no_more_and_name_the_one_that_is_missing() {
    let (etcd, users) = (Etcd::start(), Users::new());
    let mut one = users.node("cp-1", &etcd);
    ready(&one.server);
    let map = ConfigMap::in_new_namespace(&one.server, MAP);
    let kubectl = Kubectl::of(&one.server);

    // Without any permission it continues alone, and reports what is missing.
    assert!(one.accepts(&one.token(ISSUER), ISSUER));
    let read = hint_after(&mut one.signer, "cannot read the ledger", "read its orders");
    assert!(
        read.starts_with(
            "let it read its orders: `kubectl create role signpost-signer-cp-1-orders \
             --namespace=signpost-ledger --verb=get --resource=configmaps --resource-name=ledger && \
             kubectl create rolebinding signpost-signer-cp-1-orders --namespace=signpost-ledger \
             --role=signpost-signer-cp-1-orders --user='signpost-signer-cp-1'`"
        ),
        "{read}"
    );
    let carry = hint_after(&mut one.signer, "announcement sync failed", "let it sync announcements");
    assert!(
        carry.starts_with(
            "let it sync announcements: `kubectl create role signpost-signer-cp-1-announcements \
             --namespace=signpost-ledger --verb=list,create --resource=configmaps && "
        ),
        "{carry}"
    );
    let log = one.signer.running().stderr();
    assert!(log.contains("cannot read ConfigMap `signpost-ledger/ledger`"), "{log}");
    assert!(log.contains("cannot sync announcements in namespace `signpost-ledger`"), "{log}");
    assert!(announced_in(&one.server, "cp-1").is_none());
    obey(&kubectl, &carry);
    eventually("it announces", || announced_in(&one.server, "cp-1"));
    obey(&kubectl, &read);

    // The publisher has a certificate too. The permission for its ledger is tested elsewhere.
    let publisher_kubeconfig = users.folder.path().join("publisher");
    let certificate = users.certificate("signpost-publisher");
    one.server.kubeconfig(&publisher_kubeconfig, &Bearer::Certificate(&certificate));
    let ledger = "create role signpost-ledger --verb=get,update,create --resource=configmaps --namespace=signpost-ledger";
    let bind = "create rolebinding signpost-ledger --role=signpost-ledger --user=signpost-publisher --namespace=signpost-ledger";
    for words in [ledger, bind] {
        kubectl.run(words.split(' ')).expect_code(0);
    }
    let admin = users.folder.path().join("admin");
    one.server.admin_kubeconfig(&admin);
    let public = users.folder.path().join("public");
    let settings = json!({
        "jwks_max_age": "1s", "propagation": "2s", "margin": "1s", "rotate_after": "720h", "max_token_lifetime": "10m",
        "sources": [
            {"kind": "api-server", "name": "cp-1", "kubeconfig": admin, "discover": false, "every": "1s"},
            {"kind": "announcements", "every": "1s"},
        ],
        "targets": [directory_target(&public)],
        "ledger": {"config_map": map.reference(), "kubeconfig": publisher_kubeconfig},
    });
    let mut service = Installation::new(ISSUER, &settings).run();
    let hint = "let it hear the nodes: `kubectl create role signpost-announcements --namespace=signpost-ledger \
                --verb=list --resource=configmaps && kubectl create rolebinding signpost-announcements \
                --namespace=signpost-ledger --role=signpost-announcements --user='signpost-publisher'`";
    service.until("it says what it lacks", |service| service.running.stderr().contains(hint));
    obey(&kubectl, hint);

    // The order changes the node's announcement.
    let update = hint_after(&mut one.signer, "announcement sync failed", "update its announcement");
    assert!(
        update.starts_with(
            "let it update its announcement: `kubectl create role signpost-signer-cp-1 --namespace=signpost-ledger \
             --verb=update --resource=configmaps --resource-name=ledger.cp-1 && "
        ),
        "{update}"
    );
    obey(&kubectl, &update);
    eventually("it announces anew", || {
        let posted = announced_in(&one.server, "cp-1")?;
        let own = fs::read_to_string(one.signer.data_dir().join("announcements/cp-1.json")).ok()?;
        (posted["data"]["announcement.json"] == own).then_some(())
    });
    eventually("it may sign for others", || (one.request(OTHERS).status == 201).then_some(()));

    // The second node has the manual's permissions, and reports nothing.
    kubectl.feed(["apply", "--filename=-"], &documented("cp-2")).expect_code(0);
    let mut two = users.node("cp-2", &etcd);
    for (node, other) in [(&one, "cp-2"), (&two, "cp-1")] {
        let file = node.signer.data_dir().join(format!("announcements/{other}.json"));
        eventually("it has the announcement of the other", || file.exists().then_some(()));
    }
    for (node, other) in [(&one, &two), (&two, &one)] {
        node.admit(other);
    }
    eventually("the second may sign for others", || (two.request(OTHERS).status == 201).then_some(()));
    for (node, other) in [(&one, &two), (&two, &one)] {
        let token = node.token(OTHERS);
        eventually("the other accepts its token", || other.accepts(&token, OTHERS).then_some(()));
    }
    let log = two.signer.running().stderr();
    // An API server that has just started has not loaded its roles yet.
    for (trouble, over) in [
        ("cannot read the ledger", "the ledger can be read again"),
        ("announcement sync failed", "announcement sync works again"),
    ] {
        assert!(log.rfind(trouble) <= log.rfind(over), "{trouble}: {log}");
    }
    the_manifest_gives_no_more(&kubectl);
}

#[test]
fn whatever_becomes_of_the_config_map_of_a_node_it_announces_again_and_takes_over_what_is_one_alone() {
    let (etcd, folder) = (Etcd::start(), TempDir::new().expect("a temporary folder"));
    let mut node = Node::start("cp-1", &etcd, folder.path());
    ConfigMap::in_new_namespace(&node.server, MAP);
    let proxy = FaultProxy::start_trusting(&node.server.url(), Some(node.server.ca_file()));
    write_kubeconfig(&node.kubeconfig, &proxy.url(), node.server.ca_file(), &Bearer::Token(ADMIN_TOKEN));
    node.signer.restart();
    let directory = node.signer.data_dir().join("announcements");
    let own = fs::read_to_string(directory.join("cp-1.json")).expect("it is announced");
    let is_right = |server: &ApiServer| {
        (announced_in(server, "cp-1")?["data"] == json!({"announcement.json": own})).then_some(())
    };
    eventually("it announces", || is_right(&node.server));

    // Another writer, a deletion; and either while the node is about to write.
    overwrite(&node.server, "cp-1", "{");
    eventually("it puts that right", || is_right(&node.server));
    node.server.admin_request("DELETE", &path_of("cp-1")).answer().expect_status(200);
    eventually("it makes it anew", || is_right(&node.server));
    let slow = || Rule::new(Action::Delay(Duration::from_secs(2))).method("PUT").once();
    for deletes in [false, true] {
        proxy.script([slow()]);
        let before = proxy.count("PUT", "ledger.cp-1");
        overwrite(&node.server, "cp-1", "{");
        eventually("it is about to write", || (proxy.count("PUT", "ledger.cp-1") > before).then_some(()));
        if deletes {
            node.server.admin_request("DELETE", &path_of("cp-1")).answer().expect_status(200);
        } else {
            overwrite(&node.server, "cp-1", "[");
        }
        eventually("the next round puts that right", || is_right(&node.server));
    }
    let log = node.signer.running().stderr();
    assert!(!log.contains("announcement sync failed"), "a lost race is no trouble: {log}");

    // Objects that are not an announcement of their node, or belong to another ledger, are skipped; a valid
    // one is copied.
    let others = ExternalSigner::of_several(ISSUER, "cp-2", "allow_issuer_mismatch: true");
    others.verb(&["signer"]).start().wait_for_output("signing for");
    let other = fs::read_to_string(others.data_dir().join("announcements/cp-2.json")).expect("announced");
    pretend(&node.server, "ledger.cp-3", Some("ledger"), &other);
    pretend(&node.server, "ledger.cp-4", Some("ledger"), "{");
    pretend(&node.server, "ledger.cp-5", Some("another"), &other);
    pretend(&node.server, "ledger.cp-6", None, &other);
    pretend(&node.server, "ledger.cp-2", Some("ledger"), &other);
    eventually("the node is heard", || directory.join("cp-2.json").exists().then_some(()));
    let names =
        fs::read_dir(&directory).expect("it is there").map(|entry| entry.expect("readable").file_name());
    assert_eq!(names.collect::<BTreeSet<_>>(), ["cp-1.json", "cp-2.json"].map(Into::into).into());

    // Without its label it is not found, and cannot be created.
    let mut unlabelled = announced_in(&node.server, "cp-1").expect("it is there");
    unlabelled["metadata"]["labels"] = json!({});
    node.server.admin_request("PUT", &path_of("cp-1")).json(&unlabelled).answer().expect_status(200);
    let hint = hint_after(&mut node.signer, "announcement sync failed", "label the one that is there");
    let command =
        "`kubectl label configmap ledger.cp-1 --namespace=signpost-ledger signpost/announces-for=ledger`";
    assert!(hint.contains(command), "{hint}");
    obey(&Kubectl::of(&node.server), &hint);
    let is_carried = |signer: &mut ExternalSigner, times: usize| {
        let log = signer.running().stderr();
        (log.matches("announcement sync works again").count() == times).then_some(())
    };
    eventually("it is carried again", || is_carried(&mut node.signer, 1));

    // No object makes a node read without limit.
    let large = "x".repeat(1000 * 1000);
    let names: Vec<_> = (0..18).map(|index| format!("large-{index}")).collect();
    for name in &names {
        pretend(&node.server, name, Some("ledger"), &large);
    }
    eventually("it says so", || node.signer.running().stderr().contains("16777216 bytes").then_some(()));
    for name in &names {
        let path = format!("/api/v1/namespaces/{MAP}/configmaps/{name}");
        node.server.admin_request("DELETE", &path).answer().expect_status(200);
    }
    eventually("it is carried again", || is_carried(&mut node.signer, 2));
}
