//! A PKCS#11 token, through its vendor's library.
//!
//! One rule for every failure: the operation is tried once more on a new connection, library included. So a
//! token that was away needs no restart, and it is not necessary to tell which of some hundred return values
//! means that it is back. A rejected PIN is not tried again: tokens lock themselves.

use std::{
    array,
    path::Path,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    session::UserType,
    slot::Slot,
    types::AuthPin,
};

use self::session::{HsmSession, SessionError};
use super::super::{KeyringError, directory::read_private};
use super::{HsmError, HsmSettings};
use crate::core::{
    jose::{jwk::Jwk, kid::Kid},
    signer::KeyType,
};

mod session;

/// Most concurrent signatures.
const SESSIONS: usize = 8;

/// A PKCS#11 token, connected or not. All methods block.
#[derive(Debug)]
pub struct Hsm {
    settings: HsmSettings,
    /// Number of connections so far, and the last one unless it failed.
    connection: RwLock<(u64, Option<Connection>)>,
    is_pin_refused: AtomicBool,
}

/// An initialised library with a logged-in user.
#[derive(Debug)]
struct Connection {
    /// Before the library, so that they are closed first.
    seats: [Mutex<Option<HsmSession>>; SESSIONS],
    /// The session to wait for next, when all are in use.
    next: AtomicUsize,
    slot: Slot,
    library: Library,
}

/// Finalises the library when it is dropped.
#[derive(Debug)]
struct Library(Pkcs11);

impl Drop for Library {
    fn drop(&mut self) {
        // A library that cannot be finalised cannot be helped.
        let _ = self.0.clone().finalize();
    }
}

impl Hsm {
    /// Opens a token and logs in.
    pub(in crate::signer::keyring) fn open(settings: &HsmSettings) -> Result<Self, HsmError> {
        let connection = Connection::open(settings)?;
        Ok(Self {
            settings: settings.clone(),
            connection: RwLock::new((0, Some(connection))),
            is_pin_refused: AtomicBool::new(false),
        })
    }

    /// Creates a key pair whose private key cannot leave the token.
    pub(in crate::signer::keyring) fn generate(&self, key_type: KeyType) -> Result<Jwk, HsmError> {
        self.work("make a key", |seat| seat.generate(key_type))
    }

    pub(in crate::signer::keyring) fn has(&self, kid: &Kid) -> Result<bool, HsmError> {
        match self.work("look for a key", |seat| seat.find(kid)) {
            Ok(_) => Ok(true),
            Err(HsmError::NoKey { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Destroys both keys of a pair. A missing key is not an error.
    pub(in crate::signer::keyring) fn destroy(&self, kid: &Kid) -> Result<(), HsmError> {
        self.work("destroy a key", |seat| seat.destroy(kid))
    }

    /// Signs a message, in the encoding of JWS (RFC 7518 sections 3.3 and 3.4).
    pub(in crate::signer::keyring) fn sign(&self, jwk: &Jwk, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.work("sign", |seat| seat.sign(jwk, message))
    }

    fn work<T>(
        &self,
        action: &'static str,
        work: impl Fn(&mut HsmSession) -> Result<T, SessionError>,
    ) -> Result<T, HsmError> {
        let label = || self.settings.token_label.clone();
        let told = |broken| match broken {
            SessionError::Refused(error) => {
                HsmError::Failed { label: label(), action, reason: reason(&error) }
            }
            SessionError::NoKey(kid) => HsmError::NoKey { label: label(), kid },
            SessionError::Exposed => HsmError::Exposed { label: label() },
        };
        let tried = {
            let connection = self.connection.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(connection) = &connection.1
                && let Ok(done) = connection.work(&work)
            {
                return Ok(done);
            }
            connection.0
        };
        let mut connection = self.connection.write().unwrap_or_else(PoisonError::into_inner);
        if connection.0 == tried {
            if self.is_pin_refused.load(Ordering::Relaxed) {
                return Err(self.wrong_pin());
            }
            *connection = (tried + 1, None);
            let opened = Connection::open(&self.settings);
            if matches!(opened, Err(HsmError::WrongPin { .. } | HsmError::LockedPin { .. })) {
                self.is_pin_refused.store(true, Ordering::Relaxed);
            }
            connection.1 = Some(opened?);
        }
        match &connection.1 {
            Some(connection) => connection.work(&work).map_err(told),
            // Another thread has just tried.
            None => Err(HsmError::Failed { label: label(), action, reason: "it is away".to_owned() }),
        }
    }

    fn wrong_pin(&self) -> HsmError {
        let HsmSettings { token_label, pin_file, .. } = self.settings.clone();
        HsmError::WrongPin { label: token_label, path: pin_file }
    }
}

impl Connection {
    fn open(settings: &HsmSettings) -> Result<Self, HsmError> {
        let HsmSettings { module, token_label, pin_file } = settings;
        let failed = |action: &'static str| {
            move |error: Error| HsmError::Failed {
                label: token_label.clone(),
                action,
                reason: reason(&error),
            }
        };
        let unusable = |error: Error| HsmError::Module { path: module.clone(), reason: reason(&error) };
        let library = Pkcs11::new(module).map_err(unusable)?;
        let initialized = library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let library = Library(library);
        initialized.map_err(unusable)?;
        let slot = find_slot(&library.0, token_label)?;
        let session = library.0.open_rw_session(slot).map_err(failed("open a session"))?;
        let pin = read_pin(pin_file)?;
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _)) => {
                return Err(HsmError::WrongPin { label: token_label.clone(), path: pin_file.clone() });
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                return Err(HsmError::LockedPin { label: token_label.clone() });
            }
            Err(error) => return Err(failed("let us log in")(error)),
        }
        // A user stays logged in as long as a session is open.
        let mut first = Some(HsmSession::new(session));
        let seats = array::from_fn(|_| Mutex::new(first.take()));
        Ok(Self { seats, next: AtomicUsize::new(0), slot, library })
    }

    fn work<T>(&self, work: impl Fn(&mut HsmSession) -> Result<T, SessionError>) -> Result<T, SessionError> {
        let free = self.seats.iter().find_map(|seat| seat.try_lock().ok());
        let mut seat = free.unwrap_or_else(|| {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % SESSIONS;
            self.seats[turn].lock().unwrap_or_else(PoisonError::into_inner)
        });
        if seat.is_none() {
            *seat = Some(HsmSession::new(self.library.0.open_rw_session(self.slot)?));
        }
        work(seat.as_mut().expect("it was just taken"))
    }
}

fn find_slot(library: &Pkcs11, label: &str) -> Result<Slot, HsmError> {
    let failed =
        |error: Error| HsmError::Failed { label: label.to_owned(), action: "answer", reason: reason(&error) };
    let mut found = Vec::new();
    for slot in library.get_slots_with_initialized_token().map_err(failed)? {
        // Skip a token that is removed meanwhile.
        if let Ok(info) = library.get_token_info(slot) {
            found.push((info.label().to_owned(), slot));
        }
    }
    let ours: Vec<_> = found.iter().filter(|(name, _)| name == label).collect();
    match ours.as_slice() {
        [(_, slot)] => Ok(*slot),
        [] => {
            let names: Vec<_> = found.iter().map(|(name, _)| format!("`{name}`")).collect();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(HsmError::NoToken { label: label.to_owned(), found })
        }
        several => Err(HsmError::Ambiguous { label: label.to_owned(), count: several.len() }),
    }
}

fn read_pin(path: &Path) -> Result<AuthPin, HsmError> {
    let wrong = |source: KeyringError| HsmError::PinFile { path: path.to_owned(), source: Box::new(source) };
    let bytes = read_private(path).map_err(wrong)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(HsmError::NoPin { path: path.to_owned() });
    }
    // Exactly sized, so that no copy is left unwiped.
    Ok(AuthPin::from(Box::<str>::from(text)))
}

/// The name of a return value, such as `DeviceRemoved`; its description is long and adds nothing.
fn reason(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} answers {code:?}"),
        other => other.to_string(),
    }
}
