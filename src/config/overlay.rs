//! Merges the flags into the file's tree, so that one reader checks both.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use glob::Pattern;

use super::{
    Flags, SignerFlags,
    document::{Node, Origin, Value},
    problem::{Fault, Problems},
    suggest,
    value::ListenAddress,
};

const LISTEN: &str = "--listen";
const DATA_DIR: &str = "--data-dir";
const TLS_CERTIFICATE: &str = "--tls-certificate";
const TLS_PRIVATE_KEY: &str = "--tls-private-key";
const SOURCE: &str = "--source";
const TARGET: &str = "--target";

/// Kinds of sources.
const API_SERVER: &str = "api-server";
const EMBEDDED: &str = "embedded";
const FILES: &str = "files";
const URL: &str = "url";
/// The source that is an API server, with or without `:CONTEXT`.
const KUBERNETES: &str = "kubernetes";
/// Listen address of the embedded default: only this machine.
const EMBEDDED_LISTEN: &str = "127.0.0.1:8080";
/// Default data directory without a file, relative to the current directory.
const LOCAL_DATA_DIR: &str = "signpost-data";

/// The file's tree with the flags applied; without a file, a built-in tree.
pub(super) fn apply(flags: &Flags, file: Option<Node>, cwd: &Path, problems: &mut Problems) -> Node {
    let from_file = file.is_some();
    let mut root = file.unwrap_or_else(|| Node::map([], Origin::BuiltIn));
    set_text(&mut root, "listen", LISTEN, flags.listen.as_deref());
    set_text(&mut root, "admin_listen", "--admin-listen", flags.admin_listen.as_deref());
    set_tls(&mut root, flags, cwd, problems);
    set_events(&mut root, flags);
    let default = Path::new(LOCAL_DATA_DIR);
    let data_dir = match &flags.keys.data_dir {
        Some(path) => Some((path.as_path(), Origin::Flag(DATA_DIR))),
        None => (!from_file).then_some((default, Origin::BuiltIn)),
    };
    if let Some((path, place)) = data_dir {
        match absolute(cwd, path) {
            Ok(path) => root.set("data_dir", Node::text(path, place)),
            Err(fault) => problems.add(place, "data_dir", fault),
        }
    }
    let keys = &flags.keys;
    if from_file {
        if let Some(issuer) = the_issuer(flags, &mut root, problems) {
            describe(issuer, flags, cwd, problems);
        }
    } else {
        let embedded = keys.issuer.is_none() && keys.sources.iter().all(|source| source == EMBEDDED);
        let mut issuer = if embedded {
            embedded_default(flags, &mut root, problems)
        } else {
            Node::map([], Origin::BuiltIn)
        };
        describe(&mut issuer, flags, cwd, problems);
        root.set("issuers", Node::list(vec![issuer], Origin::BuiltIn));
    }
    root
}

/// The issuer of the file that the flags apply to, if they concern one.
fn the_issuer<'a>(flags: &Flags, root: &'a mut Node, problems: &mut Problems) -> Option<&'a mut Node> {
    let keys = &flags.keys;
    let given = [
        ("--issuer", keys.issuer.is_some()),
        (SOURCE, !keys.sources.is_empty()),
        (TARGET, !flags.targets.is_empty()),
        ("--profile", keys.profile.is_some()),
        ("--schedule", flags.schedule.is_some()),
    ];
    let given: Vec<_> = given.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect();
    if given.is_empty() {
        return None;
    }
    if root.get("issuers").is_none() {
        root.set("issuers", Node::list(vec![Node::map([], root.place)], root.place));
    }
    let Value::Map(entries) = &mut root.value else { return None };
    let issuers =
        entries.iter_mut().find(|(name, _)| name == "issuers").map(|(_, issuers)| &mut issuers.value);
    match issuers {
        Some(Value::List(issuers)) if issuers.len() > 1 => {
            for flag in given {
                let count = issuers.len();
                let fault = Fault::new(format!("applies to one issuer, but the file has {count}"));
                problems.add(Origin::Flag(flag), flag, fault.hint("set it in the file"));
            }
            None
        }
        Some(Value::List(issuers)) => issuers.first_mut(),
        _ => None,
    }
}

/// Applies the flags that concern one issuer.
fn describe(issuer: &mut Node, flags: &Flags, cwd: &Path, problems: &mut Problems) {
    let keys = &flags.keys;
    set_text(issuer, "issuer", "--issuer", keys.issuer.as_deref());
    set_text(issuer, "profile", "--profile", keys.profile.as_deref());
    set_list(issuer, "sources", SOURCE, &keys.sources, problems, |text| source(text, cwd));
    set_list(issuer, "targets", TARGET, &flags.targets, problems, |text| target(text, cwd));
    set_text(issuer, "schedule", "--schedule", flags.schedule.as_deref());
}

fn set_text(node: &mut Node, key: &str, flag: &'static str, text: Option<&str>) {
    if let Some(text) = text {
        node.set(key, Node::text(text, Origin::Flag(flag)));
    }
}

/// Applies the flags of a signing node to the issuer that it signs for.
pub(super) fn apply_signer(flags: &SignerFlags, root: &mut Node) {
    let Value::Map(entries) = &mut root.value else { return };
    let issuers =
        entries.iter_mut().find(|(name, _)| name == "issuers").map(|(_, issuers)| &mut issuers.value);
    let Some(Value::List(issuers)) = issuers else { return };
    let only = issuers.len() == 1;
    for issuer in issuers.iter_mut().filter(|issuer| only || issuer.get("signer").is_some()) {
        let mut signer = issuer.get("signer").cloned().unwrap_or_else(|| Node::map([], Origin::BuiltIn));
        set_text(&mut signer, "socket", "--socket", flags.socket.as_deref());
        set_text(&mut signer, "node", "--node", flags.node.as_deref());
        issuer.set("signer", signer);
    }
}

/// Adds an issuer where none is written and none is needed, so that everything else can be read.
pub(super) fn set_placeholder_issuers(root: &mut Node, problems: &mut Problems) {
    let Value::Map(entries) = &mut root.value else { return };
    let issuers = entries.iter_mut().find(|(name, _)| name == "issuers").map(|(_, node)| &mut node.value);
    let Some(Value::List(issuers)) = issuers else { return };
    for (index, issuer) in issuers.iter_mut().enumerate().filter(|(_, issuer)| issuer.get("issuer").is_none())
    {
        issuer.set("issuer", Node::text("https://issuer.invalid", issuer.place));
        problems.set_unusable(format!("issuers[{index}].issuer"));
    }
}

/// Applies the paths of certificate and private key, each from its own flag.
fn set_tls(root: &mut Node, flags: &Flags, cwd: &Path, problems: &mut Problems) {
    let given = [
        ("certificate", TLS_CERTIFICATE, &flags.tls_certificate),
        ("private_key", TLS_PRIVATE_KEY, &flags.tls_private_key),
    ];
    for (key, flag, path) in given {
        let Some(path) = path else { continue };
        let place = Origin::Flag(flag);
        let mut tls = root.get("tls").cloned().unwrap_or_else(|| Node::map([], Origin::BuiltIn));
        match absolute(cwd, path) {
            Ok(path) => tls.set(key, Node::text(path, place)),
            Err(fault) => problems.add(place, key, fault),
        }
        root.set("tls", tls);
    }
}

/// Applies the pod and its UID, each from its own flag.
fn set_events(root: &mut Node, flags: &Flags) {
    let given = [
        ("pod", "--events-pod", flags.events_pod.as_deref()),
        ("pod_uid", "--events-pod-uid", flags.events_pod_uid.as_deref()),
    ];
    if given.iter().all(|(_, _, text)| text.is_none()) {
        return;
    }
    let mut events = root.get("events").cloned().unwrap_or_else(|| Node::map([], Origin::BuiltIn));
    for (key, flag, text) in given {
        set_text(&mut events, key, flag, text);
    }
    root.set("events", events);
}

fn set_list(
    node: &mut Node,
    key: &str,
    flag: &'static str,
    texts: &[String],
    problems: &mut Problems,
    read: impl Fn(&str) -> Result<Node, Fault>,
) {
    if texts.is_empty() {
        return;
    }
    let place = Origin::Flag(flag);
    let items = texts.iter().map(|text| {
        read(text).unwrap_or_else(|fault| {
            problems.add(place, key, fault);
            Node { value: Value::Refused, place }
        })
    });
    node.set(key, Node::list(items.collect(), place));
}

/// `kubernetes`, `kubernetes:CONTEXT`, `url:URL`, `embedded`, or a path.
fn source(text: &str, cwd: &Path) -> Result<Node, Fault> {
    let place = Origin::Flag(SOURCE);
    let word = |text: &str| Node::text(text, place);
    if let Some(context) = text.strip_prefix(KUBERNETES).and_then(|rest| rest.strip_prefix(':')) {
        if context.is_empty() {
            return Err(Fault::new(format!("`{text}` has no context, expected `kubernetes:CONTEXT`")));
        }
        return Ok(Node::map([("kind", word(API_SERVER)), ("context", word(context))], place));
    }
    if let Some(url) = text.strip_prefix("url:") {
        return Ok(Node::map([("kind", word(URL)), ("url", word(url))], place));
    }
    match text {
        "" => Err(Fault::new("is empty, expected `kubernetes`, `url:URL`, `embedded` or a path")),
        KUBERNETES => Ok(Node::map([("kind", word(API_SERVER))], place)),
        EMBEDDED => Ok(Node::map([("kind", word(EMBEDDED))], place)),
        _ => {
            if let Some((scheme, _)) = text.split_once("://") {
                let fault = Fault::new(format!(
                    "unknown source `{text}` with scheme `{scheme}`, expected `kubernetes`, `url:URL`, `embedded` \
                     or a path"
                ));
                return Err(fault.hint(match scheme {
                    "https" | "http" => format!("write `url:{text}`"),
                    _ => "download the JWKS and name the file; stores are for `--target`".to_owned(),
                }));
            }
            if let Some(guess) = misspelt(text) {
                return Err(Fault::new(format!("unknown source `{text}`, did you mean `{guess}`?"))
                    .hint(format!("write `./{text}` for a file of that name")));
            }
            let paths = Node::list(vec![word(&pattern(cwd, text)?)], place);
            Ok(Node::map([("kind", word(FILES)), ("paths", paths)], place))
        }
    }
}

/// The keyword that a source without any sign of a path probably means.
fn misspelt(text: &str) -> Option<&'static str> {
    let word = text.split_once(':').map_or(text, |(word, _)| word);
    let path = word.contains(['/', '.', '*', '?', '[']);
    if path { None } else { suggest::nearest(word, [KUBERNETES, API_SERVER, EMBEDDED]).map(said) }
}

/// The spelling of a file's keyword as a flag value.
fn said(word: &'static str) -> &'static str {
    if word == API_SERVER { KUBERNETES } else { word }
}

/// An absolute path or glob; special characters of the current directory are escaped.
fn pattern(cwd: &Path, text: &str) -> Result<String, Fault> {
    if text.contains(['*', '?', '[']) && !text.starts_with('/') {
        Ok(format!("{}/{text}", Pattern::escape(&absolute(cwd, Path::new(""))?)))
    } else {
        absolute(cwd, Path::new(text))
    }
}

/// A URL, or a directory.
fn target(text: &str, cwd: &Path) -> Result<Node, Fault> {
    let path = text.strip_prefix("file://").or_else(|| (!text.contains(':')).then_some(text));
    let url = match path {
        Some("") => return Err(Fault::new("is empty, expected a URL or a directory")),
        Some(path) => format!("file://{}", absolute(cwd, Path::new(path))?),
        None => text.to_owned(),
    };
    let place = Origin::Flag(TARGET);
    Ok(Node::map([("url", Node::text(url, place))], place))
}

fn absolute(cwd: &Path, path: &Path) -> Result<String, Fault> {
    let path: std::path::PathBuf = cwd.join(path).components().collect();
    path.into_os_string()
        .into_string()
        .map_err(|path| Fault::new(format!("`{}` is not UTF-8, expected a path that is", path.display())))
}

/// The product on one machine: its own keyring, loopback HTTP and a directory, with durations short enough to
/// watch the life of a key.
fn embedded_default(flags: &Flags, root: &mut Node, problems: &mut Problems) -> Node {
    if flags.listen.is_none() {
        root.set("listen", Node::text(EMBEDDED_LISTEN, Origin::BuiltIn));
    }
    let word = |text: &str| Node::text(text, Origin::BuiltIn);
    let listen = flags.listen.as_deref().unwrap_or(EMBEDDED_LISTEN);
    let sources = Node::list(vec![Node::map([("kind", word(EMBEDDED))], Origin::BuiltIn)], Origin::BuiltIn);
    let mut issuer = Node::map(
        [
            ("issuer", word(&own_issuer(listen, root.get("tls").is_some(), problems))),
            ("jwks_max_age", word("5s")),
            ("max_token_lifetime", word("30s")),
            ("margin", word("5s")),
            ("propagation", word("10s")),
            ("rotate_after", word("30s")),
            ("sources", sources),
            ("verify", Node::map([], Origin::BuiltIn)),
        ],
        Origin::BuiltIn,
    );
    if let Some(Value::Text(data_dir)) = root.get("data_dir").map(|node| &node.value) {
        let public = Node::map([("url", word(&format!("file://{data_dir}/public")))], Origin::BuiltIn);
        issuer.set("targets", Node::list(vec![public], Origin::BuiltIn));
    }
    issuer
}

/// `http://LISTEN`, or `https` with TLS, as a client on this machine writes it.
fn own_issuer(listen: &str, tls: bool, problems: &mut Problems) -> String {
    let mut refuse = |message: String, hint: &str| {
        problems.add(Origin::Flag(LISTEN), "listen", Fault::new(message).hint(hint));
    };
    // An invalid address is reported where `listen` is read.
    let address = ListenAddress::parse(listen)
        .map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), |address| address.0);
    let address = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        ip if ip.is_loopback() => address,
        _ => {
            let message =
                format!("`{listen}` is not loopback, and without an issuer the issuer is `http://LISTEN`");
            refuse(message, "listen on `127.0.0.1`, or give `--issuer`");
            SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))
        }
    };
    if address.port() == 0 {
        refuse(
            format!("`{listen}` has port 0, and without an issuer the issuer is `http://LISTEN`"),
            "give a port, or `--issuer`",
        );
    }
    // A URL omits the default port of its scheme, and an issuer is in normal form.
    let (scheme, own) = if tls { ("https", ":443") } else { ("http", ":80") };
    let address = address.to_string();
    format!("{scheme}://{}", address.strip_suffix(own).unwrap_or(&address))
}
