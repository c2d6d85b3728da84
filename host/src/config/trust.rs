//! The options of the plugin set as a whole: which libraries may be loaded at all.
//!
//! They stand in `[plugins]` beside the plugins, so no plugin can have one of their names. A file of `plugins.d` cannot
//! set them: who may drop in an extension may not decide what is asked of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::options::{Preset, Row, Section, preset, section};
use crate::signature::TrustedKey;

section! {
    /// The plugin set as a whole: which libraries may be loaded at all.
    TRUST = "plugins", Trust {
        /// Lock file, as `cardcage plugin lock` writes it; where it is set, nothing else is loaded than what it lists.
        require_lock: Option<PathBuf> = unset("plugins.lock"), Kind::Path;
        /// What is asked of each library's signature (the file beside it, with `.minisig` at its end): nothing, a warning in the log unless it is there and good, or a refusal.
        signatures: Signatures = "off", Kind::OneOf(&["off", "warn", "require"]);
        /// Public keys, in minisign's format, whose signatures count.
        trusted_keys: Vec<TrustedKey> = [], Kind::TrustedKeys;
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self { require_lock: None, signatures: Signatures::Off, trusted_keys: Vec::new() }
    }
}

/// Whether a key of `[plugins]` is an option, and no plugin.
pub(crate) fn is_option(key: &str) -> bool {
    TRUST.rows.iter().any(|row| row.name == key)
}

/// What is asked of a library's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signatures {
    /// Nothing; it is not read.
    Off,
    /// A warning unless it is there and good.
    Warn,
    /// A refusal unless it is there and good.
    Require,
}
