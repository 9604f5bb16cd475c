//! Sources: their kinds and names.

use glob::Pattern;

use super::unique_name;
use crate::config::{
    Instance, SourceConfig,
    keys::{ANNOUNCEMENTS, API_SERVER, EMBEDDED, FILES, URL},
    problem::{Fault, Problems},
    reader::Mapping,
    value::{self, Web},
};

pub(super) fn read(issuer: &Mapping<'_>, problems: &mut Problems) -> Option<Vec<SourceConfig>> {
    let written = issuer.kinds("sources", problems)?;
    let count = written.len();
    let mut sources = Vec::new();
    let mut names = Vec::new();
    for (kind, mapping) in written {
        let source = match kind {
            API_SERVER => api_server(&mapping, problems),
            FILES => files(&mapping, problems),
            URL => url(&mapping, problems),
            ANNOUNCEMENTS => announcements(&mapping, issuer.get("ledger").is_some(), problems),
            EMBEDDED => Some(SourceConfig::Embedded),
            _ => unreachable!("the table of keys has five kinds"),
        };
        // API servers that use this signer list the keys it has signed with.
        if kind == EMBEDDED && count > 1 && issuer.get("signer").is_none() {
            let fault = Fault::new("`embedded` is not the only source, expected no other");
            let hint = "if kube-apiserver uses this process as its signer, add `signer`";
            mapping.at.refuse(fault.hint(hint), problems);
        } else if let Some(source) = &source {
            unique_name(source.name(), &mapping, &mut names, problems);
        }
        sources.extend(source);
    }
    Some(sources)
}

fn api_server(source: &Mapping<'_>, problems: &mut Problems) -> Option<SourceConfig> {
    let name = source.text("name", problems);
    let kubeconfig = source.path("kubeconfig", problems);
    let context = source.text("context", problems);
    let discover = source.bool("discover", problems);
    let instances = instances(source, problems);
    if let (Some(true), Some(at)) = (discover, source.get("discover"))
        && source.get("instances").is_some()
    {
        let fault = Fault::new("is `true` together with `instances`, expected one of the two");
        at.refuse(fault.hint("remove `instances` to discover the API servers"), problems);
    }
    let probe = source.parsed("probe", problems, value::service_account);
    let every = source.duration("every", problems);
    let name = name.unwrap_or_else(|| match &context {
        Some(context) => format!("kubernetes:{context}"),
        None => "kubernetes".to_owned(),
    });
    let discover = discover? && instances.is_empty();
    Some(SourceConfig::ApiServer { name, kubeconfig, context, discover, instances, probe, every: every? })
}

fn instances(source: &Mapping<'_>, problems: &mut Problems) -> Vec<Instance> {
    let mut instances: Vec<Instance> = Vec::new();
    for mapping in source.mappings("instances", problems).unwrap_or_default() {
        let url = mapping.parsed("url", problems, |text| {
            value::web_url(text, Web::Secure)?;
            if instances.iter().any(|other| other.url == text) {
                return Err(Fault::new(format!("`{text}` is listed twice, expected each API server once")));
            }
            Ok(text.to_owned())
        });
        let tls_server_name = mapping.parsed("tls_server_name", problems, |text| {
            if text.split('.').all(value::is_label) {
                Ok(text.to_owned())
            } else {
                Err(Fault::new(format!(
                    "`{text}` is not a DNS name, expected one such as `kubernetes.default.svc`"
                )))
            }
        });
        instances.extend(url.map(|url| Instance { url, tls_server_name }));
    }
    instances
}

fn files(source: &Mapping<'_>, problems: &mut Problems) -> Option<SourceConfig> {
    let name = source.text("name", problems);
    let mut paths = Vec::new();
    for (at, text) in source.texts("paths", problems)? {
        match value::absolute_path(text).and_then(|_| glob(text)) {
            Ok(()) => paths.push(text.to_owned()),
            Err(fault) => at.refuse(fault, problems),
        }
    }
    let optional = source.bool("optional", problems);
    let every = source.duration("every", problems);
    let name = name.unwrap_or_else(|| paths.join(","));
    Some(SourceConfig::Files { name, paths, optional: optional?, every: every? })
}

fn url(source: &Mapping<'_>, problems: &mut Problems) -> Option<SourceConfig> {
    let name = source.text("name", problems);
    let url = source.parsed("url", problems, |text| {
        // The general hint, for stores, would be wrong here.
        let hint = "write a token into a file, and name that in `bearer_token_file`";
        let secret = text.contains(['@', '?']);
        value::without_secrets(text).map_err(|fault| if secret { fault.hint(hint) } else { fault })?;
        value::web_url(text, Web::Secure).map(|_| text.to_owned())
    });
    let bearer_token_file = source.path("bearer_token_file", problems);
    let ca_file = source.path("ca_file", problems);
    let every = source.duration("every", problems);
    let url = url?;
    let name = name.unwrap_or_else(|| url.clone());
    Some(SourceConfig::Url { name, url, bearer_token_file, ca_file, every: every? })
}

fn announcements(
    source: &Mapping<'_>,
    has_config_map: bool,
    problems: &mut Problems,
) -> Option<SourceConfig> {
    let name = source.text("name", problems).unwrap_or_else(|| ANNOUNCEMENTS.to_owned());
    let directory = source.path("directory", problems);
    let every = source.duration("every", problems);
    if source.get("directory").is_none() && !has_config_map {
        let fault = Fault::new("has no `directory`, and the issuer has no `ledger` in a ConfigMap");
        source.at.refuse(fault.hint("name the `announcements` directory of the signer"), problems);
    }
    Some(SourceConfig::Announcements { name, directory, every: every? })
}

fn glob(text: &str) -> Result<(), Fault> {
    match Pattern::new(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(format!("`{text}` is not a glob: {}", error.msg))),
    }
}
