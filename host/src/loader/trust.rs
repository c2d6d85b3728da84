//! Whether a library is one that the operator chose: by the lock of the plugin set, and by who signed it.
//!
//! # Invariants
//! * What is judged is the bytes in memory that the private copy is then written from, so nothing can be put in between;
//!   no constructor runs before ([`super::set`]).
//! * A lock that is required and cannot be read refuses every plugin: a missing file never means "anything goes".
//!
//! # What it refuses
//! It asks no network and no key server: the keys are in the configuration.

use super::inspect::{Inspection, Manifest, sha256};
use super::plugins_lock::{PluginsLock, Unlike};
use super::refusal::{Code, Refusal};
use crate::config::{self, Signatures};
use crate::signature::{self, Fault, Signature, TrustedKey, Verified};
use std::path::{Path, PathBuf};

const LOCK_IT: &str = "put back the file that was chosen, or choose this one with `cardcage plugin lock`";
const SIGN_IT: &str = "take the file from who signs it, or sign it with `cardcage plugin sign`";

/// What is asked of libraries.
#[derive(Debug, Clone)]
pub struct Trust {
    lock: Option<(PathBuf, Result<PluginsLock, String>)>,
    signatures: Signatures,
    keys: Vec<TrustedKey>,
}

/// What came of it for one library.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Why it may not be loaded: all of it.
    pub refusals: Vec<Refusal>,
    /// What would be refused were signatures required.
    pub warnings: Vec<Refusal>,
    /// The signature, where it was asked for and is good.
    pub signed: Option<Verified>,
}

impl Trust {
    /// Reads what the settings name.
    #[must_use]
    pub fn read(settings: &config::Trust) -> Self {
        let lock = settings.require_lock.as_ref().map(|file| (file.clone(), PluginsLock::read(file)));
        Self { lock, signatures: settings.signatures, keys: settings.trusted_keys.clone() }
    }

    /// The lock, where one is required.
    #[must_use]
    pub fn lock(&self) -> Option<(&Path, Result<&PluginsLock, &str>)> {
        let (file, lock) = self.lock.as_ref()?;
        Some((file, lock.as_ref().map_err(String::as_str)))
    }

    /// Judges a library of these bytes.
    #[must_use]
    pub fn judge(&self, path: &Path, inspection: &Inspection, bytes: &[u8]) -> Judgement {
        let mut judgement = Judgement::default();
        let name = &inspection.manifest.name;
        if self.signatures != Signatures::Off {
            match Signature::beside(path).and_then(|signature| signature.verify(bytes, &self.keys)) {
                Ok(verified) => judgement.signed = Some(verified),
                Err(fault) => {
                    let refusal = unsigned(path, &fault).of(name);
                    match self.signatures {
                        Signatures::Require => judgement.refusals.push(refusal),
                        _ => judgement.warnings.push(refusal),
                    }
                }
            }
        }
        let signer = judgement.signed.as_ref().map(|signed| signed.key.to_string());
        judgement.refusals.extend(self.unlike_lock(path, &inspection.manifest, bytes, signer.as_deref()));
        judgement
    }

    fn unlike_lock(
        &self,
        path: &Path,
        manifest: &Manifest,
        bytes: &[u8],
        signer: Option<&str>,
    ) -> Option<Refusal> {
        let (file, lock) = self.lock()?;
        let refuse = |code, fault: String, remedy: &str| {
            Some(Refusal::new(path, code, fault, remedy).of(&manifest.name))
        };
        let file = file.display();
        let lock = match lock {
            Ok(lock) => lock,
            Err(reason) => {
                let fault = format!("is not known to be chosen: the lock {file} {reason}");
                return refuse(Code::BadLock, fault, "write the lock with `cardcage plugin lock`");
            }
        };
        match lock.judge(manifest, &sha256(bytes), signer).err()? {
            Unlike::NotThere(how) => refuse(Code::NotInLock, format!("{how} {file}"), LOCK_IT),
            Unlike::Differs(how) => refuse(Code::LockMismatch, format!("{how} {file}"), LOCK_IT),
        }
    }
}

/// The sentence about a library that counts as unsigned.
fn unsigned(path: &Path, fault: &Fault) -> Refusal {
    let beside = signature::path_of(path);
    let (code, fault, remedy) = match fault {
        Fault::Missing => (Code::Unsigned, format!("has no signature at {}", beside.display()), SIGN_IT),
        Fault::Unreadable(how) => {
            (Code::BadSignature, format!("has a signature, {}, that {how}", beside.display()), SIGN_IT)
        }
        Fault::Untrusted(key) => (
            Code::UntrustedKey,
            format!("is signed with the key {key}, which is not among `plugins.trusted_keys`"),
            "add its public key there if you trust it, or take a file that a trusted key signed",
        ),
        Fault::Wrong(key) => {
            (Code::BadSignature, format!("is not what the key {key} signed: the bytes differ"), SIGN_IT)
        }
    };
    Refusal::new(path, code, fault, remedy)
}
