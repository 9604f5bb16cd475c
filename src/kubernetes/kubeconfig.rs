//! Selects kubeconfig and proxy as kubectl does.
//!
//! `kube` fails when a listed file does not exist, and compares `NO_PROXY` with the proxy in place of the API
//! server.

use std::{
    env,
    ffi::OsString,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{Kubeconfig, KubeconfigError};

use super::KubernetesError;

#[expect(
    clippy::disallowed_methods,
    reason = "what kubectl reads from the environment is read as kubectl does"
)]
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Reads this file, else those that `KUBECONFIG` lists, else the default one.
pub(super) fn read(path: Option<&Path>) -> Result<Kubeconfig, KubernetesError> {
    let listed = variable("KUBECONFIG").unwrap_or_default();
    let listed: Vec<PathBuf> =
        env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    match path {
        Some(path) => Kubeconfig::read_from(path).map_err(KubernetesError::kubeconfig),
        None if listed.is_empty() => Kubeconfig::read().map_err(KubernetesError::kubeconfig),
        None => merged(&listed),
    }
}

/// Skips files that do not exist, unless none does.
fn merged(listed: &[PathBuf]) -> Result<Kubeconfig, KubernetesError> {
    let (mut merged, mut missing) = (None::<Kubeconfig>, None);
    for path in listed {
        match Kubeconfig::read_from(path) {
            Ok(next) => {
                let all = merged.take().unwrap_or_default().merge(next);
                merged = Some(all.map_err(KubernetesError::kubeconfig)?);
            }
            Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == io::ErrorKind::NotFound => {
                missing = Some(KubernetesError::KubeconfigFile { path: path.clone(), source: error });
            }
            Err(error) => return Err(KubernetesError::kubeconfig(error)),
        }
    }
    merged.ok_or_else(|| missing.expect("a list has a file"))
}

pub(super) struct Proxies {
    /// `proxy-url` of the cluster.
    cluster: Option<String>,
    https_proxy: String,
    no_proxy: String,
}

/// Reads the proxy settings of the kubeconfig and the environment.
pub(super) fn proxies(kubeconfig: &Kubeconfig, context: Option<&str>) -> Proxies {
    let set = |names: [&str; 2]| names.into_iter().find_map(variable)?.into_string().ok();
    Proxies {
        cluster: of_cluster(kubeconfig, context),
        https_proxy: set(["HTTPS_PROXY", "https_proxy"]).unwrap_or_default(),
        no_proxy: set(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
    }
}

fn of_cluster(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let current = context.or(kubeconfig.current_context.as_deref())?;
    let named = kubeconfig.contexts.iter().find(|named| named.name == current)?;
    let cluster = &named.context.as_ref()?.cluster;
    let named = kubeconfig.clusters.iter().find(|named| named.name == *cluster)?;
    named.cluster.as_ref()?.proxy_url.clone().filter(|url| !url.is_empty())
}

impl Proxies {
    /// The proxy for an API server: that of the kubeconfig in any case; that of the environment unless
    /// `NO_PROXY` names the server, or it is on this machine.
    pub(super) fn to(&self, server: &Uri) -> Result<Option<Uri>, KubernetesError> {
        let Self { cluster, https_proxy, no_proxy } = self;
        let of_environment = || {
            let matcher = Matcher::builder().https(https_proxy.as_str()).no(no_proxy.as_str()).build();
            let is_meant = !is_loopback(server) && matcher.intercept(server).is_some();
            is_meant.then(|| https_proxy.clone())
        };
        let Some(url) = cluster.clone().or_else(of_environment) else { return Ok(None) };
        let url = if url.contains("://") { url } else { format!("http://{url}") };
        // The URL may hold a password.
        url.parse().map(Some).map_err(|source| KubernetesError::Proxy { source })
    }
}

fn is_loopback(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The address of a proxy without its credentials.
pub(super) fn shown(proxy: &Uri) -> String {
    let authority = proxy.authority().map_or("", |authority| authority.as_str());
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    format!("{}://{address}", proxy.scheme_str().unwrap_or("http"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(cluster: Option<&str>, https_proxy: &str, no_proxy: &str, server: &str) -> Option<String> {
        let (https_proxy, no_proxy) = (https_proxy.to_owned(), no_proxy.to_owned());
        let proxies = Proxies { cluster: cluster.map(str::to_owned), https_proxy, no_proxy };
        let proxy = proxies.to(&server.parse().expect("a URL")).expect("a proxy that is a URL");
        proxy.map(|proxy| proxy.to_string())
    }

    const SERVER: &str = "https://k8s.corp.example:6443/";

    #[test]
    fn the_proxy_of_the_environment_leads_to_every_server_but_those_that_no_proxy_names() {
        let of = |no_proxy, server| proxy(None, "http://proxy.corp.example:3128", no_proxy, server);
        assert_eq!(Some("http://proxy.corp.example:3128/".to_owned()), of("", SERVER));
        assert_eq!(None, of("k8s.corp.example", SERVER));
        assert_eq!(None, of(".corp.example,", SERVER));
        assert_eq!(None, of("10.0.0.0/8", "https://10.1.2.3:6443/"));
        // `NO_PROXY` names the server, not the proxy.
        assert!(of("proxy.corp.example", SERVER).is_some());
    }

    #[test]
    fn this_machine_is_asked_without_the_proxy_of_the_environment() {
        for server in ["https://127.0.0.1:6443/", "https://localhost:6443/", "https://[::1]:6443/"] {
            assert_eq!(None, proxy(None, "http://proxy:3128", "", server), "{server}");
            assert!(proxy(Some("socks5://jump:1080"), "", "", server).is_some(), "{server}");
        }
    }

    #[test]
    fn the_proxy_of_the_kubeconfig_goes_before_everything() {
        let of = |cluster| proxy(Some(cluster), "http://other:1", "*", SERVER);
        assert_eq!(Some("socks5://jump:1080/".to_owned()), of("socks5://jump:1080"));
        assert_eq!(Some("http://jump:3128/".to_owned()), of("jump:3128"));
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let url = "http://user:hunter2@proxy:3128".parse().expect("a URL");
        assert_eq!("http://proxy:3128", shown(&url));
    }
}
