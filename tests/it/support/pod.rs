//! The product as it runs in a pod, without a container engine: with the environment, the files, the user and
//! the read-only root file system of its Deployment.
//!
//! A mount namespace replaces the container. The image's own files are the machine's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::signpost::Signpost;

/// The path of the service account's credential in a pod.
const API_ACCESS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Sets up the file system of the container and executes its process.
///
/// `$0` is the folder with the files of the volumes and `$1` the program.
const CONTAINER: &str = r#"
set -e
program=$1; shift
mount --make-rprivate /
# /var/run is a link to /run nearly everywhere.
mount -t tmpfs none "$(readlink -f /var/run)"
mkdir -p /var/run/secrets/kubernetes.io /var/run/bin
cp -r "$0/api-access" /var/run/secrets/kubernetes.io/serviceaccount
touch /var/run/bin/signpost
mount --bind "$program" /var/run/bin/signpost
mount -t overlay none -o "lowerdir=$0/etc:/etc" /etc
mount -t tmpfs -o size=16m,mode=755 none /var/lib
mkdir -m 777 /var/lib/signpost
mount --bind /var/lib/signpost /var/lib/signpost
for there in $(cut -d ' ' -f 5 /proc/self/mountinfo | sort -u); do
    case $there in
        /proc | /proc/* | /sys | /sys/* | /dev | /dev/* | /var/lib/signpost) ;;
        *) mount -o remount,bind,ro "$there" ;;
    esac
done
cd /var/lib/signpost
# In a user namespace of one user there is nobody else to become.
if setpriv --reuid 65532 --regid 65532 --clear-groups true 2>/dev/null; then
    exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
        /var/run/bin/signpost "$@"
fi
exec /var/run/bin/signpost "$@"
"#;

/// A pod of a Deployment.
pub(crate) struct Pod {
    /// The pod spec of the Deployment's template.
    spec: Value,
    /// The values of the downward API, by field path.
    fields: BTreeMap<&'static str, String>,
    files: TempDir,
}

impl Pod {
    /// `fields` are the values that the kubelet would set, such as `status.podIP`.
    pub(crate) fn new(spec: &Value, fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let files = TempDir::new().expect("a temporary folder");
        for folder in ["api-access", "etc"] {
            fs::create_dir(files.path().join(folder)).expect("the folder can be written");
        }
        Self { spec: spec.clone(), fields: fields.into_iter().collect(), files }
    }

    /// Mounts the credential of the service account.
    pub(crate) fn with_access(self, token: &str, ca_file: &Path) -> Self {
        let folder = self.files.path().join("api-access");
        fs::write(folder.join("token"), token).expect("the folder can be written");
        fs::copy(ca_file, folder.join("ca.crt")).expect("it can be copied");
        fs::write(folder.join("namespace"), &self.fields["metadata.namespace"]).expect("it can be written");
        let mounts = self.container()["volumeMounts"].as_array().expect("it mounts volumes");
        assert!(mounts.iter().any(|mount| mount["mountPath"] == API_ACCESS), "{mounts:?}");
        self
    }

    /// Adds a file of a volume below `/etc`.
    pub(crate) fn with_file(self, path: &str, content: &str) -> Self {
        let file = self.files.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("it is below the folder")).expect("it can be written");
        fs::write(file, content).expect("the folder can be written");
        self
    }

    fn container(&self) -> &Value {
        &self.spec["containers"][0]
    }

    /// The environment variables, with references to earlier ones expanded.
    fn environment(&self) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = Vec::new();
        for variable in self.container()["env"].as_array().expect("it has an environment") {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let value = match (field, variable["value"].as_str()) {
                (Some(field), _) => self.fields.get(field).unwrap_or_else(|| panic!("no {field}")).clone(),
                (None, Some(value)) => environment
                    .iter()
                    .fold(value.to_owned(), |value, (name, of)| value.replace(&format!("$({name})"), of)),
                (None, None) => panic!("{variable} has no value"),
            };
            environment.push((variable["name"].as_str().expect("a name").to_owned(), value));
        }
        environment
    }

    /// The command of its container, in the cluster of the API server at `https://HOST:PORT`.
    pub(crate) fn command(&self, api_server: &str) -> Signpost {
        let address = api_server.strip_prefix("https://").and_then(|address| address.split_once(':'));
        let (host, port) = address.expect("a URL with a port");
        let arguments = self.container()["args"].as_array().expect("it has arguments");
        let arguments = arguments.iter().map(|argument| argument.as_str().expect("a text"));
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "/bin/sh", "-c", CONTAINER]).arg(self.files.path());
        let mut command = Signpost::within(unshare, arguments);
        for (name, value) in self.environment() {
            command = command.env(&name, value);
        }
        command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port)
    }
}
