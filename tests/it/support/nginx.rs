//! nginx as a TLS front, so that a store on loopback has an https URL and can be an issuer.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::components;
use super::http_client::Request;
use super::pki::{Authority, ServerTls};
use super::port::Port;
use super::process::Process;

pub(crate) enum Location {
    /// The URL that replaces the location's prefix.
    Proxy(String),
    /// The folder that replaces the location's prefix, served as in `docs/targets.md`.
    Folder(PathBuf),
    /// The same, served with nginx's defaults.
    PlainFolder(PathBuf),
    /// The same with compressed files, as a store serves objects that have a `Content-Encoding`.
    Compressed(PathBuf),
}

pub(crate) struct Nginx {
    folder: TempDir,
    tls: ServerTls,
    port: Port,
    process: Option<Process>,
}

impl Nginx {
    /// Serves each prefix, such as `/some/prefix/`, from its location.
    ///
    /// End both the prefix and the URL with a slash: nginx replaces text, not path segments.
    pub(crate) fn start(locations: &[(&str, Location)]) -> Self {
        Self::start_as("localhost", locations)
    }

    /// The same with a certificate for this name.
    pub(crate) fn start_as(name: &str, locations: &[(&str, Location)]) -> Self {
        Self::start_for(&[name], locations)
    }

    /// The same with a certificate for these names.
    pub(crate) fn start_for(names: &[&str], locations: &[(&str, Location)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let tls = ServerTls::issued_by(&Authority::create(), folder.path(), names, &["127.0.0.1"]);
        Self::start_with(folder, tls, locations)
    }

    /// The same with an expired certificate.
    pub(crate) fn start_expired(locations: &[(&str, Location)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let tls = ServerTls::expired(folder.path());
        Self::start_with(folder, tls, locations)
    }

    fn start_with(folder: TempDir, tls: ServerTls, locations: &[(&str, Location)]) -> Self {
        let mut nginx = Self { folder, tls, port: Port::free(), process: None };
        nginx.point(locations);
        nginx
    }

    /// Serves other locations from now on, under the same URL.
    pub(crate) fn point(&mut self, locations: &[(&str, Location)]) {
        fs::write(self.configuration_file(), self.configuration(locations))
            .expect("the folder can be written");
        self.restart();
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    pub(crate) fn ca_file(&self) -> &Path {
        &self.tls.ca
    }

    /// Kills it; the port stays for [`Nginx::restart`].
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let log = self.folder.path().join("nginx.log");
        let mut command = Command::new(components::path("nginx"));
        // Without -e it opens its compiled-in log, below /var.
        command.arg("-e").arg(&log).arg("-p").arg(self.folder.path());
        command.arg("-c").arg(self.configuration_file());
        let mut process = Process::start("nginx", command, &log);
        // The client may not trust its certificate.
        process.wait_until_ready(|| {
            TcpStream::connect(self.address()).map(drop).map_err(|error| error.to_string())
        });
        self.process = Some(process);
    }

    /// A request that trusts this server.
    pub(crate) fn get(&self, path: &str) -> Request {
        Request::get(&format!("{}{path}", self.url())).ca_file(self.ca_file())
    }

    fn configuration_file(&self) -> PathBuf {
        self.folder.path().join("nginx.conf")
    }

    fn configuration(&self, locations: &[(&str, Location)]) -> String {
        let mut text = String::new();
        for (prefix, location) in locations {
            match location {
                Location::Proxy(url) => {
                    writeln!(text, "location {prefix} {{ proxy_pass {url}; proxy_http_version 1.1; }}")
                }
                Location::Folder(folder) => {
                    let field = "add_header Cache-Control \"public, max-age=300\";";
                    writeln!(text, "location {prefix} {{ alias {}/; {field} }}", folder.display())
                }
                Location::PlainFolder(folder) => {
                    writeln!(text, "location {prefix} {{ alias {}/; }}", folder.display())
                }
                Location::Compressed(folder) => {
                    let folder = folder.display();
                    writeln!(
                        text,
                        "location {prefix} {{ alias {folder}/; add_header Content-Encoding gzip; }}"
                    )
                }
            }
            .expect("a string can be written");
        }
        format!(
            // One process, as the user of the tests: workers of root would become `nobody`, who may not read
            // a temporary folder.
            "daemon off;\n\
             master_process off;\n\
             pid nginx.pid;\n\
             events {{}}\n\
             http {{\n\
                 access_log off;\n\
                 client_body_temp_path body;\n\
                 proxy_temp_path proxy;\n\
                 fastcgi_temp_path fastcgi;\n\
                 uwsgi_temp_path uwsgi;\n\
                 scgi_temp_path scgi;\n\
                 default_type application/json;\n\
                 server {{\n\
                     listen {address} ssl;\n\
                     ssl_certificate {certificate};\n\
                     ssl_certificate_key {key};\n\
                     {text}\
                 }}\n\
             }}\n",
            address = self.port.address(),
            certificate = self.tls.certificate.display(),
            key = self.tls.key.display(),
        )
    }
}
