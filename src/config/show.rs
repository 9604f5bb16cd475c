//! Renders the effective configuration as an equivalent file.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    Config, EventsConfig, Instance, IssuerConfig, LedgerConfig, Pkcs11Config, PreviousIssuerConfig,
    SignerConfig, SourceConfig, TargetConfig, TlsConfig, VerificationKeyConfig, VerifyConfig,
    document::{Node, Origin, Value},
    keys::{ANNOUNCEMENTS, API_SERVER, EMBEDDED, FILES, URL},
    value::duration_text,
};
use crate::core::{
    jose::issuer::{Issuer, path_below},
    rotation::Window,
    verification::Party,
};

impl Config {
    /// Every key with its value, including defaults, as YAML. It contains no secret: none can be configured.
    #[must_use]
    pub fn show(&self) -> String {
        let mut entries = vec![("listen", text(self.listen)), ("admin_listen", text(self.admin_listen))];
        entries.extend(self.tls.as_ref().map(|paths| ("tls", tls(paths))));
        entries.extend([
            ("max_connections", node(Value::Number(self.max_connections.to_string()))),
            ("data_dir", text(self.data_dir.display())),
        ]);
        entries.extend(self.events.as_ref().map(|config| ("events", events(config))));
        entries.push(("issuers", list(self.issuers.iter().map(issuer).collect())));
        to_yaml(&Node::map(entries, Origin::BuiltIn))
    }
}

fn tls(config: &TlsConfig) -> Node {
    Node::map(
        [
            ("certificate", text(config.certificate.display())),
            ("private_key", text(config.private_key.display())),
        ],
        Origin::BuiltIn,
    )
}

fn events(config: &EventsConfig) -> Node {
    let mut entries = vec![("pod", text(format!("{}/{}", config.namespace, config.pod)))];
    entries.extend(config.pod_uid.as_ref().map(|uid| ("pod_uid", text(uid))));
    entries.extend(config.kubeconfig.as_ref().map(|path| ("kubeconfig", text(path.display()))));
    entries.extend(config.context.as_ref().map(|context| ("context", text(context))));
    Node::map(entries, Origin::BuiltIn)
}

fn issuer(config: &IssuerConfig) -> Node {
    let schedule = text(&config.schedule);
    let ledger = config.ledger.as_ref().map(|config| ("ledger", ledger(config)));
    let former = config.previous_issuers.iter().map(former).collect::<Vec<_>>();
    let former = (!former.is_empty()).then(|| ("previous_issuers", list(former)));
    let signer = config.signer.as_ref().map(|config| ("signer", signer(config)));
    let window = config.rotate_within.as_ref().map(|config| ("rotate_within", window(config)));
    Node::map(
        [
            ("issuer", text(&config.issuer)),
            ("jwks_uri", text(&config.jwks_uri)),
            ("profile", text(config.profile.name())),
            ("jwks_max_age", text(duration_text(config.jwks_max_age))),
            ("max_token_lifetime", text(duration_text(config.max_token_lifetime))),
            ("margin", text(duration_text(config.margin))),
            ("propagation", text(duration_text(config.propagation))),
            ("rotate_after", text(duration_text(config.rotate_after))),
            ("allow_issuer_mismatch", node(Value::Bool(config.allow_issuer_mismatch))),
            ("sources", list(config.sources.iter().map(source).collect())),
            ("targets", list(config.targets.iter().map(target).collect())),
            ("schedule", schedule),
        ]
        .into_iter()
        .chain(elsewhere(&config.issuer, &config.jwks_uri))
        .chain(window)
        .chain(ledger)
        .chain(former)
        .chain(signer)
        .chain(config.verify.as_ref().map(|config| ("verify", verify(config)))),
        Origin::BuiltIn,
    )
}

/// The `jwks_served_elsewhere` key, where another service serves the JWKS: only then it may be outside the
/// issuer's URL.
fn elsewhere(issuer: &Issuer, jwks_uri: &str) -> Option<(&'static str, Node)> {
    let is_elsewhere = path_below(issuer.as_str(), jwks_uri).is_none();
    is_elsewhere.then(|| ("jwks_served_elsewhere", node(Value::Bool(true))))
}

fn window(config: &Window) -> Node {
    let entries = [
        ("opens", text(config.opens().as_str())),
        ("for", text(duration_text(config.open_for()))),
        ("time_zone", text(config.zone())),
    ];
    Node::map(entries, Origin::BuiltIn)
}

fn signer(config: &SignerConfig) -> Node {
    let mut entries = Vec::new();
    entries.extend(config.socket.as_ref().map(|socket| ("socket", text(socket))));
    entries.push(("mode", text(format_args!("{:04o}", config.mode))));
    entries.extend(config.gid.map(|gid| ("group", text(gid))));
    let texts = |texts: Vec<Node>| (!texts.is_empty()).then(|| list(texts));
    entries.extend(texts(config.uids.iter().map(text).collect()).map(|users| ("users", users)));
    entries.extend(config.node.as_ref().map(|node| ("node", text(node))));
    let audiences = texts(config.api_audiences.iter().map(text).collect());
    entries.extend(audiences.map(|audiences| ("api_audiences", audiences)));
    entries.push(("refresh_hint", text(duration_text(config.refresh_hint))));
    entries.push(("key_type", text(config.key_type.name())));
    entries.extend(config.pkcs11.as_ref().map(|Pkcs11Config { module, token_label, pin_file }| {
        let (module, pin_file) = (text(module.display()), text(pin_file.display()));
        let keys = [("module", module), ("token_label", text(token_label)), ("pin_file", pin_file)];
        ("pkcs11", Node::map(keys, Origin::BuiltIn))
    }));
    entries.extend(config.admin_listen.map(|address| ("admin_listen", text(address))));
    let legacy = |legacy: &VerificationKeyConfig| {
        let exclude = node(Value::Bool(legacy.exclude));
        Node::map([("file", text(legacy.file.display())), ("exclude", exclude)], Origin::BuiltIn)
    };
    entries.extend(
        texts(config.additional_verification_keys.iter().map(legacy).collect())
            .map(|legacy| ("additional_verification_keys", legacy)),
    );
    Node::map(entries, Origin::BuiltIn)
}

fn verify(config: &VerifyConfig) -> Node {
    let mut entries = vec![("every", text(duration_text(config.every))), ("for", text(config.party.word()))];
    // Other parties ignore the key, so the reader rejects it.
    entries.extend((config.party == Party::Entra).then(|| ("cloud", text(config.cloud.word()))));
    entries.push(("audience", text(&config.audience)));
    entries.extend(config.service_account.as_ref().map(|account| ("service_account", text(account))));
    entries.push(("allow_private", node(Value::Bool(config.allow_private))));
    entries.extend(config.ca_file.as_ref().map(|path| ("ca_file", text(path.display()))));
    Node::map(entries, Origin::BuiltIn)
}

fn ledger(config: &LedgerConfig) -> Node {
    let mut entries = vec![("config_map", text(format_args!("{}/{}", config.namespace, config.name)))];
    entries.extend(config.kubeconfig.as_ref().map(|path| ("kubeconfig", text(path.display()))));
    entries.extend(config.context.as_ref().map(|context| ("context", text(context))));
    Node::map(entries, Origin::BuiltIn)
}

fn former(config: &PreviousIssuerConfig) -> Node {
    let targets = list(config.targets.iter().map(target).collect());
    let entries =
        [("issuer", text(&config.issuer)), ("jwks_uri", text(&config.jwks_uri)), ("targets", targets)];
    let elsewhere = elsewhere(&config.issuer, &config.jwks_uri);
    Node::map(entries.into_iter().chain(elsewhere), Origin::BuiltIn)
}

fn source(config: &SourceConfig) -> Node {
    let mut entries = Vec::new();
    match config {
        SourceConfig::ApiServer { name, kubeconfig, context, discover, instances, probe, every } => {
            entries.extend([("kind", text(API_SERVER)), ("name", text(name))]);
            entries.extend(kubeconfig.as_ref().map(|path| ("kubeconfig", text(path.display()))));
            entries.extend(context.as_ref().map(|context| ("context", text(context))));
            if instances.is_empty() {
                entries.push(("discover", node(Value::Bool(*discover))));
            } else {
                entries.push(("instances", list(instances.iter().map(instance).collect())));
            }
            entries.extend(probe.as_ref().map(|account| ("probe", text(account))));
            entries.push(("every", text(duration_text(*every))));
        }
        SourceConfig::Files { name, paths, optional, every } => {
            let paths = list(paths.iter().map(text).collect());
            entries.extend([("kind", text(FILES)), ("name", text(name)), ("paths", paths)]);
            entries.push(("optional", node(Value::Bool(*optional))));
            entries.push(("every", text(duration_text(*every))));
        }
        SourceConfig::Url { name, url, bearer_token_file, ca_file, every } => {
            entries.extend([("kind", text(URL)), ("name", text(name)), ("url", text(url))]);
            let files = [("bearer_token_file", bearer_token_file), ("ca_file", ca_file)];
            entries.extend(
                files.into_iter().filter_map(|(key, path)| Some((key, text(path.as_ref()?.display())))),
            );
            entries.push(("every", text(duration_text(*every))));
        }
        SourceConfig::Announcements { name, directory, every } => {
            entries.push(("kind", text(ANNOUNCEMENTS)));
            entries.push(("name", text(name)));
            entries.extend(directory.as_ref().map(|directory| ("directory", text(directory.display()))));
            entries.push(("every", text(duration_text(*every))));
        }
        SourceConfig::Embedded => entries.push(("kind", text(EMBEDDED))),
    }
    Node::map(entries, Origin::BuiltIn)
}

fn instance(config: &Instance) -> Node {
    let name = config.tls_server_name.as_ref().map(|name| ("tls_server_name", text(name)));
    Node::map([("url", text(&config.url))].into_iter().chain(name), Origin::BuiltIn)
}

fn target(config: &TargetConfig) -> Node {
    let mut entries = vec![("url", text(&config.location)), ("name", text(&config.name))];
    entries.extend(config.public_url.as_ref().map(|url| ("public_url", text(url))));
    entries.extend(config.location.endpoint().map(|url| ("endpoint", text(url))));
    entries.extend(config.ca_file.as_ref().map(|path| ("ca_file", text(path.display()))));
    entries.extend([
        ("anonymous", node(Value::Bool(config.anonymous))),
        ("required_for_rotation", node(Value::Bool(config.required_for_rotation))),
        ("profile", text(config.profile.name())),
    ]);
    Node::map(entries, Origin::BuiltIn)
}

fn to_yaml(tree: &Node) -> String {
    serde_saphyr::to_string(tree).expect("a tree of texts is always YAML")
}

fn text(value: impl fmt::Display) -> Node {
    Node::text(value.to_string(), Origin::BuiltIn)
}

fn list(items: Vec<Node>) -> Node {
    Node::list(items, Origin::BuiltIn)
}

fn node(value: Value) -> Node {
    Node { value, place: Origin::BuiltIn }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null | Value::Refused => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(text) => match text.parse::<u64>() {
                Ok(number) => serializer.serialize_u64(number),
                Err(_) => serializer.serialize_str(text),
            },
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    map.serialize_entry(key, node)?;
                }
                map.end()
            }
        }
    }
}
