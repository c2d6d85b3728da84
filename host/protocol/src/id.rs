//! Identities: tasks, calls and host instances.
//!
//! Each is used as a subject token, so each prints in a form that is safe there.
//!
//! Invariants: a [`TaskId`] is a UUID of version 7 and prints hyphenated in lower case, in one form only; a derived
//! id depends on nothing but its inputs, so whoever redoes a publish arrives at the same id.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::name::is_name;

/// Why a text is no identity. The fault lies with whoever sent it; a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is no UUIDv7 in hyphenated form.
    #[error(
        "a task id is a UUID version 7 in hyphenated form, for example 01890a5d-ac96-774b-bcce-b302099a8057"
    )]
    TaskId,
    /// The text is not 32 hexadecimal digits.
    #[error("a call id is 32 hexadecimal digits")]
    CallId,
    /// The text is no subject-safe instance name.
    #[error("an instance id is 1 to 64 of the characters a-z, 0-9, '_' and '-'")]
    InstanceId,
}

/// Identity of a task: a UUIDv7, so ids sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Uuid);

impl TaskId {
    /// Makes a new id from the local clock and the system's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of the `n`th child of `parent`: the same for everyone who computes it.
    #[must_use]
    pub fn derive(parent: TaskId, n: u32) -> Self {
        Self::derive_from(parent.unix_ms(), &[b"child", parent.as_bytes(), &n.to_be_bytes()])
    }

    /// An id that depends only on `unix_ms` and `parts`, for example a schedule's name and its firing's sequence.
    /// Only the low 48 bits of `unix_ms` (milliseconds since 1970) are used.
    #[must_use]
    pub fn derive_from(unix_ms: u64, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut random = [0u8; 10];
        for (to, from) in random.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        Self(Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// The 16 bytes, big-endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these 16 bytes.
    ///
    /// # Errors
    /// [`IdError::TaskId`] when the bytes are no UUIDv7.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, IdError> {
        Self::checked(Uuid::from_bytes(bytes))
    }

    /// Milliseconds since 1970, as written in the id by its maker.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        self.0.as_bytes().iter().take(6).fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }

    /// Writes the hyphenated form into `buffer` and returns it; for paths where an allocation counts.
    #[must_use]
    pub fn encode<'a>(&self, buffer: &'a mut [u8; 36]) -> &'a str {
        self.0.hyphenated().encode_lower(buffer)
    }

    fn checked(uuid: Uuid) -> Result<Self, IdError> {
        let rfc = uuid.get_variant() == uuid::Variant::RFC4122;
        if rfc && uuid.get_version_num() == 7 { Ok(Self(uuid)) } else { Err(IdError::TaskId) }
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    /// Accepts the hyphenated form only, in lower case: one id has one spelling, because it is looked up by subject.
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(IdError::TaskId);
        }
        Self::checked(Uuid::try_parse(text).map_err(|_| IdError::TaskId)?)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 36]))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Identity of a call: 16 random bytes. It correlates messages; it is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId([u8; 16]);

impl CallId {
    /// Makes a new random id.
    #[must_use]
    pub fn generate() -> Self {
        Self(fastrand::u128(..).to_be_bytes())
    }

    /// The id with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for CallId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0u8; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::CallId)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Identity of one running child process, for example `api-1f00ba12`; a subject token.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// A new instance of `role`, with eight random hexadecimal digits after it.
    ///
    /// # Errors
    /// [`IdError::InstanceId`] when the role is not subject-safe or too long.
    pub fn generate(role: &str) -> Result<Self, IdError> {
        Self::new(&format!("{role}-{:08x}", fastrand::u32(..)))
    }

    /// The instance with this name.
    ///
    /// # Errors
    /// [`IdError::InstanceId`] when the text does not match `[a-z0-9_-]{1,64}`.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if is_name(text) { Ok(Self(Arc::from(text))) } else { Err(IdError::InstanceId) }
    }

    /// The instance as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl AsRef<str> for InstanceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! serde_as_text {
    ($($type:ident),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(TaskId, CallId, InstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_have_one_spelling() {
        let id = TaskId::generate();
        assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        assert_eq!(TaskId::from_bytes(*id.as_bytes()), Ok(id));
        for bad in ["", "x", "936DA01F-9ABD-4D9D-80C7-02AF85C822A8", "936da01f-9abd-4d9d-80c7-02af85c822a8"] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
        assert!(id.to_string().to_uppercase().parse::<TaskId>().is_err());
    }

    #[test]
    fn derived_ids_are_the_same_for_everyone_and_differ_by_child() {
        let parent: TaskId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let first = TaskId::derive(parent, 0);
        assert_eq!(first, TaskId::derive(parent, 0));
        assert_ne!(first, TaskId::derive(parent, 1));
        assert_eq!(first.unix_ms(), parent.unix_ms());
        assert_eq!(first.to_string().parse::<TaskId>(), Ok(first));
    }

    #[test]
    fn call_and_instance_ids_round_trip() {
        let call = CallId::generate();
        assert_eq!(call.to_string().parse::<CallId>(), Ok(call));
        let instance = InstanceId::generate("api").unwrap();
        assert!(instance.as_str().starts_with("api-"));
        assert!(InstanceId::new("a.b").is_err());
    }
}
