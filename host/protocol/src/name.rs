//! Names that become subject tokens.
//!
//! Plugins, tasks, routes and the namespace are spliced into NATS subjects, stream names and bucket names. A dot,
//! a space, a star or an upper-case letter in one of them would change what a subject means, so the rule is
//! checked once, here, and the type is the proof.
//!
//! Invariant: a [`Name`] or [`Namespace`] matches `[a-z0-9_-]{1,64}`.
//! Refuses: normalising. A name that does not fit is an error, never lower-cased or trimmed into another one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::NAME_MAX_BYTES;

/// First path segments that belong to the host: no plugin's prefix or route begins with one.
pub const RESERVED_SEGMENTS: [&str; 4] = ["tasks", "docs", "openapi.json", "problems"];

/// Why a text is no name. The fault lies with whoever wrote the name; a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid name: use 1 to 64 of the characters a-z, 0-9, '_' and '-'")]
pub struct NameError {
    /// The refused text, cut to 80 characters.
    pub text: String,
}

impl NameError {
    fn new(text: &str) -> Self {
        Self { text: text.chars().take(80).collect() }
    }
}

/// Says whether `text` follows the rule for names.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_MAX_BYTES
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `text` against the rule.
            ///
            /// # Errors
            /// [`NameError`] when the text does not match `[a-z0-9_-]{1,64}`.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_name(text) { Ok(Self(Arc::from(text))) } else { Err(NameError::new(text)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The name of a plugin, task or route.
    Name
}

name_type! {
    /// The prefix of every subject, stream and bucket of one installation, so that several can share a NATS account.
    Namespace
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Arc::from("cardcage"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_subject_safe_texts_are_names() {
        for good in ["a", "orders", "commerce-tools_2", &"x".repeat(64)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a.b", "a b", "*", ">", "é", "$x", &"x".repeat(65)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn serde_checks_the_rule() {
        assert_eq!(serde_json::from_str::<Name>("\"orders\"").unwrap(), "orders");
        assert!(serde_json::from_str::<Name>("\"or.ders\"").is_err());
    }
}
