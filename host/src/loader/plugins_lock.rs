//! The lock of a plugin set: which files, by hash, are what an operator chose.
//!
//! ```toml
//! version = 1
//!
//! [[plugin]]
//! name = "orders"
//! version = "1.4.2"
//! target = "x86_64-unknown-linux-gnu"
//! sha256 = "9f86d0…"
//! ```
//!
//! Invariants: a file is in the lock where its hash is; name and version are then compared too, since they are what people
//! read. One plugin may be there several times: for several targets, and in two versions while the older one drains.
//!
//! What it refuses to do: it does not read libraries or signatures; `trust.rs` brings what it judges.

use super::inspect::{Inspection, Manifest};
use crate::regular_file;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The one format that there is.
const FORMAT: u32 = 1;
/// Room for thousands of plugins.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;
const HEAD: &str = "# The plugin set, as it was chosen. Written by `cardcage plugin lock`; commit it beside the configuration.\n\n";

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginsLock {
    version: u32,
    /// The files.
    #[serde(default, rename = "plugin", skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Locked>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Locked {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is built for.
    #[serde(default)]
    pub target: String,
    /// The file's hash, hex.
    pub sha256: String,
    /// The boundary that it is built against.
    #[serde(default)]
    pub abi: String,
    /// The SDK that it is built with.
    #[serde(default)]
    pub sdk: String,
    /// The revision that it is built from, where its build told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_revision: Option<String>,
    /// The key that signed it, where a trusted one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// Why a file is not what was locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unlike {
    /// No such plugin, or the plugin with another hash; the text completes the sentence that starts with the file.
    NotThere(String),
    /// The file is there, as another plugin or version, or signed by someone else.
    Differs(String),
}

impl Locked {
    /// What is locked of a file.
    #[must_use]
    pub fn of(inspection: &Inspection, sha256: String, signer: Option<String>) -> Self {
        let manifest = &inspection.manifest;
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            target: manifest.target.clone(),
            sha256,
            abi: manifest.abi.clone(),
            sdk: manifest.sdk.clone(),
            git_revision: Some(manifest.git_revision.clone()).filter(|revision| !revision.is_empty()),
            signer,
        }
    }
}

impl PluginsLock {
    /// A lock of these files.
    #[must_use]
    pub fn new(mut plugins: Vec<Locked>) -> Self {
        plugins.sort();
        Self { version: FORMAT, plugins }
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// Why not, as the end of a sentence that names the file.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text =
            regular_file::text(file, FILE_MAX_BYTES).map_err(|error| format!("cannot be read ({error})"))?;
        Self::parse(&text)
    }

    /// Reads a lock.
    ///
    /// # Errors
    /// As [`PluginsLock::read`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let lock: Self = toml::from_str(text)
            .map_err(|error| format!("is no lock ({})", error.message().replace('\n', " ")))?;
        match lock.version {
            FORMAT => Ok(lock),
            other => Err(format!("has the format {other}, and this host reads {FORMAT}")),
        }
    }

    /// The lock as it is written.
    ///
    /// # Errors
    /// Never, as far as anybody knows: all of it is text.
    pub fn text(&self) -> Result<String, toml::ser::Error> {
        Ok(format!("{HEAD}{}", toml::to_string(self)?))
    }

    /// Whether the file, whose SHA-256 is `hash`, is what was locked. `signer` is the key that is known to have signed it.
    pub(super) fn judge(&self, manifest: &Manifest, hash: &str, signer: Option<&str>) -> Result<(), Unlike> {
        let Some(locked) = self.plugins.iter().find(|locked| locked.sha256 == hash) else {
            let mut named = self.plugins.iter().filter(|locked| locked.name == manifest.name).peekable();
            if named.peek().is_none() {
                return Err(Unlike::NotThere(format!("has the plugin `{}`, which is not in", manifest.name)));
            }
            let known: Vec<String> =
                named.map(|locked| format!("{} ({}…)", locked.version, start(&locked.sha256))).collect();
            let (name, version) = (&manifest.name, &manifest.version);
            return Err(Unlike::NotThere(format!(
                "is {name} {version} with the hash {}…, and {name} {} is what was chosen in",
                start(hash),
                known.join(" or ")
            )));
        };
        if (&locked.name, &locked.version) != (&manifest.name, &manifest.version) {
            return Err(Unlike::Differs(format!(
                "is {} {}, and its hash stands for {} {} in",
                manifest.name, manifest.version, locked.name, locked.version
            )));
        }
        match (&locked.signer, signer) {
            (Some(locked), Some(signer)) if locked != signer => {
                Err(Unlike::Differs(format!("is signed with the key {signer}, and {locked} signed it in")))
            }
            _ => Ok(()),
        }
    }
}

/// As much of a hash as people compare.
fn start(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_is_read_as_it_is_written_and_an_unknown_format_is_not_guessed_at() {
        let locked = Locked {
            name: "hello".into(),
            version: "0.1.0".into(),
            target: "x86_64-unknown-linux-gnu".into(),
            sha256: "ab".repeat(32),
            abi: "1.0.0".into(),
            sdk: "0.1.0".into(),
            git_revision: None,
            signer: Some("0123456789ABCDEF".into()),
        };
        let lock = PluginsLock::new(vec![locked]);
        let text = lock.text().unwrap();
        assert_eq!(PluginsLock::parse(&text).unwrap(), lock);
        assert!(text.contains("[[plugin]]") && !text.contains("git_revision"), "{text}");
        let newer = PluginsLock::parse(&text.replace("version = 1\n", "version = 2\n"));
        assert!(newer.unwrap_err().contains("has the format 2"));
        assert!(PluginsLock::parse("noise").unwrap_err().starts_with("is no lock"));
        assert_eq!(PluginsLock::parse("version = 1").unwrap().plugins, []);
    }
}
