//! `SoftHSM`: a PKCS#11 token stored in a folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::components;

pub(crate) const PIN: &str = "82137-user-pin";
pub(crate) const LABEL: &str = "signpost";

pub(crate) struct SoftHsm {
    folder: TempDir,
}

impl SoftHsm {
    /// Starts with an initialised token.
    pub(crate) fn start() -> Self {
        let hsm = Self { folder: TempDir::new().expect("a temporary folder") };
        fs::create_dir(hsm.tokens()).expect("the folder can be written");
        let config = format!("directories.tokendir = {}\nlog.level = ERROR\n", hsm.tokens().display());
        fs::write(hsm.config(), config).expect("the folder can be written");
        hsm.write_pin(PIN);
        hsm.initialise(LABEL);
        hsm
    }

    pub(crate) fn initialise(&self, label: &str) {
        let mut command = Command::new(components::path("softhsm_util"));
        command.arg("--module").arg(components::path("softhsm"));
        command.args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "an-so-pin"]);
        let done = command.env("SOFTHSM2_CONF", self.config()).output().expect("it can be run");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn write_pin(&self, pin: &str) {
        fs::write(self.pin_file(), format!("{pin}\n")).expect("the folder can be written");
        fs::set_permissions(self.pin_file(), Permissions::from_mode(0o600)).expect("it is ours");
    }

    pub(crate) fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }

    /// The value of `SOFTHSM2_CONF`.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    /// The settings under `signer` to use it.
    pub(crate) fn settings(&self) -> String {
        Self::settings_with(&components::path("softhsm"), LABEL, &self.pin_file())
    }

    pub(crate) fn settings_with(module: &Path, label: &str, pin: &Path) -> String {
        let (module, pin) = (module.display(), pin.display());
        format!("pkcs11: {{module: {module}, token_label: {label}, pin_file: {pin}}}")
    }

    /// Removes the token.
    pub(crate) fn take_out(&self) {
        fs::rename(self.tokens(), self.folder.path().join("elsewhere")).expect("it is in");
        fs::create_dir(self.tokens()).expect("the folder can be written");
    }

    pub(crate) fn put_back(&self) {
        fs::remove_dir_all(self.tokens()).expect("it is ours");
        fs::rename(self.folder.path().join("elsewhere"), self.tokens()).expect("it is out");
    }

    /// The attributes of each private key in the token's files, as text.
    pub(crate) fn private_keys(&self) -> Vec<String> {
        let token =
            fs::read_dir(self.tokens()).expect("it is in").next().expect("a token").expect("readable");
        let files = fs::read_dir(token.path()).expect("a folder").map(|file| file.expect("readable").path());
        let objects = files.filter(|file| file.extension().is_some_and(|extension| extension == "object"));
        let dump = |file: PathBuf| {
            let mut command = Command::new(components::path("softhsm_dump"));
            let done = command.arg(file).output().expect("it can be run");
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        objects.map(dump).filter(|text| text.contains("CKA_NEVER_EXTRACTABLE")).collect()
    }

    fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }
}
