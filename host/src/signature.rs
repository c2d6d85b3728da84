//! Signatures of libraries, in minisign's format: who vouches for a file's bytes.
//!
//! # Invariants
//! * What is verified is bytes in memory: whoever asks goes on with the same bytes.
//! * Input is hostile: a signature file is bounded, and nothing in it makes this panic. That is why two crates are here:
//!   `minisign` makes signatures and tells the ids of keys, but its `verify` slices a second signature that may be too short;
//!   `minisign-verify` checks every length first.
//!
//! # What it refuses
//! It has no policy: whether an unsigned library is loaded is the loader's to decide (`loader/trust.rs`).

use crate::regular_file;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a signature file is called: the library's name, and this.
const EXTENSION: &str = "minisig";
/// A signature is four lines.
const FILE_MAX_BYTES: u64 = 16 * 1024;

/// What names a key, as minisign shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(u64);

impl KeyId {
    /// From the bytes in a key or a signature.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(u64::from_le_bytes(bytes)))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A public key whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TrustedKey {
    text: String,
    key: minisign_verify::PublicKey,
    id: KeyId,
}

impl TrustedKey {
    /// What names it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl FromStr for TrustedKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a public key as minisign writes it, which begins with `RW`";
        let text = text.trim();
        let key = minisign_verify::PublicKey::from_base64(text).map_err(|_| EXPECTED)?;
        let known = minisign::PublicKey::from_base64(text).map_err(|_| EXPECTED)?;
        let id = KeyId::from_bytes(known.keynum()).ok_or(EXPECTED)?;
        Ok(Self { text: text.to_owned(), key, id })
    }
}

impl TryFrom<String> for TrustedKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TrustedKey> for String {
    fn from(key: TrustedKey) -> Self {
        key.text
    }
}

/// Why a library counts as unsigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no signature file.
    Missing,
    /// There is one, and it is no signature; the text completes "its signature …".
    Unreadable(String),
    /// It was made with a key that is not trusted.
    Untrusted(KeyId),
    /// It was made with a trusted key, and for other bytes; or nobody knows what it is for.
    Wrong(KeyId),
}

/// A signature that a trusted key made for these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The key.
    pub key: KeyId,
    /// What the signer said, which is signed too.
    pub comment: String,
}

/// A signature that was read and not yet verified.
pub struct Signature {
    signature: minisign_verify::Signature,
    key: KeyId,
}

/// Where a library's signature lies.
#[must_use]
pub fn path_of(library: &Path) -> PathBuf {
    let mut path = library.as_os_str().to_owned();
    path.push(".");
    path.push(EXTENSION);
    path.into()
}

impl Signature {
    /// Reads the signature beside a library.
    ///
    /// # Errors
    /// [`Fault::Missing`] and [`Fault::Unreadable`].
    pub fn beside(library: &Path) -> Result<Self, Fault> {
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Fault::Missing,
            _ => Fault::Unreadable(format!("cannot be read ({error})")),
        };
        let text = regular_file::text(&path_of(library), FILE_MAX_BYTES).map_err(unreadable)?;
        Self::parse(&text)
    }

    /// Reads a signature.
    ///
    /// # Errors
    /// [`Fault::Unreadable`].
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let none = || Fault::Unreadable("is not in minisign's format".to_owned());
        let signature = minisign_verify::Signature::decode(text).map_err(|_| none())?;
        let known = minisign::SignatureBox::from_string(text).map_err(|_| none())?;
        if !known.is_prehashed() {
            return Err(Fault::Unreadable("is of minisign's old kind, without a hash before it".to_owned()));
        }
        let key = KeyId::from_bytes(known.keynum()).ok_or_else(none)?;
        Ok(Self { signature, key })
    }

    /// The key that it says it was made with.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// Whether one of the keys made it for these bytes.
    ///
    /// # Errors
    /// [`Fault::Untrusted`] and [`Fault::Wrong`].
    pub fn verify(&self, bytes: &[u8], keys: &[TrustedKey]) -> Result<Verified, Fault> {
        let trusted = keys.iter().find(|key| key.id == self.key).ok_or(Fault::Untrusted(self.key))?;
        trusted.key.verify(bytes, &self.signature, false).map_err(|_| Fault::Wrong(self.key))?;
        Ok(Verified { key: self.key, comment: self.signature.trusted_comment().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(bytes: &[u8]) -> (TrustedKey, String) {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let signature = minisign::sign(None, &pair.sk, bytes, Some("plugin:hello"), None).unwrap();
        (pair.pk.to_base64().parse().unwrap(), signature.to_string())
    }

    #[test]
    fn signature_counts_for_its_own_bytes_and_its_own_key_only() {
        let (key, text) = signed(b"bytes");
        let (other, _) = signed(b"bytes");
        let signature = Signature::parse(&text).unwrap();
        let keys = [other.clone(), key.clone()];
        let verified = signature.verify(b"bytes", &keys).unwrap();
        assert_eq!((verified.key, verified.comment.as_str()), (key.id(), "plugin:hello"));
        assert_eq!(signature.verify(b"other", &keys), Err(Fault::Wrong(key.id())));
        assert_eq!(signature.verify(b"bytes", &[other]), Err(Fault::Untrusted(key.id())));
    }

    #[test]
    fn signature_made_by_the_reference_tool_is_accepted() {
        let key: TrustedKey = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse().unwrap();
        let text = "untrusted comment: signature from minisign secret key\n\
                    RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
                    trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
                    wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";
        assert!(Signature::parse(text).unwrap().verify(b"test", &[key]).is_ok());
    }

    #[test]
    fn trusted_comment_cannot_be_changed_and_no_signature_file_panics() {
        let (key, text) = signed(b"bytes");
        let changed = text.replace("plugin:hello", "plugin:other");
        let keys = [key];
        assert!(matches!(Signature::parse(&changed).unwrap().verify(b"bytes", &keys), Err(Fault::Wrong(_))));
        let letters = text.as_bytes();
        for at in 0..letters.len() {
            for cut in [letters[..at].to_vec(), [&letters[..at], &letters[at + 1..]].concat()] {
                let verdict = String::from_utf8(cut).map(|text| {
                    Signature::parse(&text).and_then(|signature| signature.verify(b"bytes", &keys))
                });
                // Where only what nobody signed is shorter, it is still good.
                if let Ok(Ok(verified)) = verdict {
                    assert_eq!(verified.comment, "plugin:hello");
                }
            }
        }
    }
}
