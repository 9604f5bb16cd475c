//! The flags that make up a configuration, with their environment variables.

use std::path::PathBuf;

use clap::Args;

use super::document::Origin;

const KEYS: &str = "Keys";
const PUBLISHING: &str = "Publishing";

/// Flags of every verb that reads keys.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFlags {
    /// Configuration file, YAML; `signpost config schema` documents it. Flags override it
    #[arg(long, value_name = "FILE", env = "SIGNPOST_CONFIG", hide_env_values = true, help_heading = KEYS)]
    pub config: Option<PathBuf>,

    /// The issuer, exactly as in the `iss` claim of tokens
    ///
    /// Without an issuer, a source and a file, Signpost signs by itself as `http://LISTEN`.
    #[arg(long, value_name = "URL", env = "SIGNPOST_ISSUER", hide_env_values = true, help_heading = KEYS)]
    pub issuer: Option<String>,

    /// Where keys come from: `kubernetes`, `kubernetes:CONTEXT`, `url:URL`, a file, directory or glob, or
    /// `embedded`
    ///
    /// Repeatable, or separated by commas: the union of all sources is published. Replaces the sources of the
    /// file.
    #[arg(
        long = "source",
        value_name = "SRC",
        env = "SIGNPOST_SOURCE", hide_env_values = true,
        value_delimiter = ',',
        help_heading = KEYS
    )]
    pub sources: Vec<String>,

    /// Keys to publish: `entra` for RS256 only, as Microsoft Entra reads them, or `all` [default: entra; `jwks`
    /// prints all]
    #[arg(long, value_name = "entra|all", env = "SIGNPOST_PROFILE", hide_env_values = true, help_heading = KEYS)]
    pub profile: Option<String>,

    /// Directory of the ledger and the embedded keyring
    ///
    /// `/var/lib/signpost` with a configuration file, else `./signpost-data`.
    #[arg(long, value_name = "DIR", env = "SIGNPOST_DATA_DIR", hide_env_values = true, help_heading = KEYS)]
    pub data_dir: Option<PathBuf>,
}

/// Flags of the verbs that publish: those that read keys, and where keys go.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    #[command(flatten)]
    pub keys: KeyFlags,

    /// Where to publish: `az://ACCOUNT/CONTAINER/PREFIX`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`,
    /// `gcp-wif://PROVIDER` or a directory
    ///
    /// Repeatable, or separated by commas. Replaces the targets of the file.
    #[arg(
        long = "target",
        value_name = "URL",
        env = "SIGNPOST_TARGET", hide_env_values = true,
        value_delimiter = ',',
        help_heading = PUBLISHING
    )]
    pub targets: Vec<String>,

    /// Address that serves the documents to relying parties
    ///
    /// `0.0.0.0:8080` with a configuration file, an issuer or a source, else `127.0.0.1:8080`.
    #[arg(long, value_name = "ADDR", env = "SIGNPOST_LISTEN", hide_env_values = true, help_heading = PUBLISHING)]
    pub listen: Option<String>,

    /// Address that serves health, metrics and status to operators [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", env = "SIGNPOST_ADMIN_LISTEN", hide_env_values = true, help_heading = PUBLISHING)]
    pub admin_listen: Option<String>,

    /// Serve over TLS: the server's certificate and its chain, PEM; reloaded when it changes
    #[arg(long, value_name = "FILE", env = "SIGNPOST_TLS_CERTIFICATE", hide_env_values = true, help_heading = PUBLISHING)]
    pub tls_certificate: Option<PathBuf>,

    /// The private key of `--tls-certificate`, PEM without a passphrase
    #[arg(long, value_name = "FILE", env = "SIGNPOST_TLS_PRIVATE_KEY", hide_env_values = true, help_heading = PUBLISHING)]
    pub tls_private_key: Option<PathBuf>,

    /// Report changes and failures as Kubernetes Events about this pod, `NAMESPACE/NAME`
    #[arg(long, value_name = "POD", env = "SIGNPOST_EVENTS_POD", hide_env_values = true, help_heading = PUBLISHING)]
    pub events_pod: Option<String>,

    /// The UID of that pod; without it `kubectl describe pod` does not show them
    #[arg(long, value_name = "UID", env = "SIGNPOST_EVENTS_POD_UID", hide_env_values = true, help_heading = PUBLISHING)]
    pub events_pod_uid: Option<String>,

    /// Schedule to check and repair all targets: cron, five fields, UTC [default: */5 * * * *]
    #[arg(long, value_name = "CRON", env = "SIGNPOST_SCHEDULE", hide_env_values = true, help_heading = PUBLISHING)]
    pub schedule: Option<String>,
}

/// Flags of a node that signs.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerFlags {
    /// Configuration file, YAML; `signpost config schema` documents it. Flags override it
    #[arg(long, value_name = "FILE", env = "SIGNPOST_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// The issuer, exactly as in the `iss` claim of tokens
    #[arg(long, value_name = "URL", env = "SIGNPOST_ISSUER", hide_env_values = true)]
    pub issuer: Option<String>,

    /// Socket for kube-apiserver: an absolute path, or `@NAME`
    ///
    /// As in its flag `--service-account-signing-endpoint`.
    #[arg(long, value_name = "PATH|@NAME", env = "SIGNPOST_SOCKET", hide_env_values = true)]
    pub socket: Option<String>,

    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME", env = "SIGNPOST_NODE", hide_env_values = true)]
    pub node: Option<String>,

    /// Directory of the keyring
    ///
    /// `/var/lib/signpost` with a configuration file, else `./signpost-data`.
    #[arg(long, value_name = "DIR", env = "SIGNPOST_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
}

impl SignerFlags {
    /// The flags of a publisher of the same issuer. A node reads no source; without a file it uses the most
    /// common one.
    pub(super) fn as_keys(&self) -> KeyFlags {
        let sources = if self.config.is_some() { Vec::new() } else { vec!["kubernetes".to_owned()] };
        let Self { config, issuer, data_dir, .. } = self.clone();
        KeyFlags { config, issuer, sources, profile: None, data_dir }
    }
}

/// The flags that override a key, by its path in the documentation.
const OVERRIDES: [(&str, &str); 13] = [
    ("listen", "--listen"),
    ("admin_listen", "--admin-listen"),
    ("tls.certificate", "--tls-certificate"),
    ("tls.private_key", "--tls-private-key"),
    ("data_dir", "--data-dir"),
    ("events.pod", "--events-pod"),
    ("events.pod_uid", "--events-pod-uid"),
    ("issuers[].issuer", "--issuer"),
    ("issuers[].profile", "--profile"),
    ("issuers[].sources", "--source"),
    ("issuers[].targets", "--target"),
    ("issuers[].targets[].url", "--target"),
    ("issuers[].schedule", "--schedule"),
];

/// The flag that overrides a key of a section of the documentation.
pub(super) fn of(section: &str, key: &str) -> Option<&'static str> {
    OVERRIDES
        .iter()
        .find(|(path, _)| {
            path.strip_suffix(key)
                .is_some_and(|rest| rest.strip_suffix('.').unwrap_or("the top level") == section)
        })
        .map(|(_, flag)| *flag)
}

/// The flag in place of a path, where there is no file: the user knows only flags.
pub(super) fn name_of(path: &str, place: Origin) -> Option<&'static str> {
    if matches!(place, Origin::File { .. }) {
        return None;
    }
    let path: String = path.chars().filter(|char| !char.is_ascii_digit()).collect();
    OVERRIDES.iter().find(|(known, _)| *known == path).map(|(_, flag)| *flag)
}

/// The flag with an example of its value.
pub(super) fn example(flag: &str, value: &str) -> String {
    match flag {
        "--source" => {
            "`--source kubernetes`, `--source /etc/kubernetes/pki/sa.pub` or `--source embedded`".to_owned()
        }
        _ => format!("`{flag} {value}`"),
    }
}
