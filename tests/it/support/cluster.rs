//! One cluster for all tests that only read it: starting an API server takes longer than most tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use super::api_server::{ADMIN_TOKEN, ApiServer, Bearer, Options, write_kubeconfig};
use super::etcd::Etcd;
use super::fault_proxy::FaultProxy;
use super::pki::KeyFiles;

/// The issuer that the API server writes into tokens.
pub(crate) const ISSUER: &str = "https://oidc.example/cluster";

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    /// Both keys verify; the first one signs.
    pub(crate) keys: [KeyFiles; 2],
    _etcd: Etcd,
    _folder: TempDir,
}

impl Cluster {
    /// The running cluster, or a new one. It ends with the last test that holds it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        // A start that panicked leaves the old value, which is valid.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let keys = ["first", "second"].map(|name| KeyFiles::rsa(folder.path(), name));
        let mut options = Options::new(ISSUER, &keys[0]);
        options.verification_keys.push(keys[1].public.clone());
        let etcd = Etcd::start();
        let server = ApiServer::start(&etcd, options);
        server.create_service_account("default", "signpost");
        Self { server, keys, _etcd: etcd, _folder: folder }
    }

    /// A separate proxy in front of the API server.
    pub(crate) fn proxy(&self) -> FaultProxy {
        FaultProxy::start_trusting(&self.server.url(), Some(self.server.ca_file()))
    }

    /// A kubeconfig of the administrator, for a proxy.
    pub(crate) fn kubeconfig_through(&self, proxy: &FaultProxy, folder: &Path) -> PathBuf {
        let file = folder.join("kubeconfig");
        write_kubeconfig(&file, &proxy.url(), self.server.ca_file(), &Bearer::Token(ADMIN_TOKEN));
        file
    }
}
