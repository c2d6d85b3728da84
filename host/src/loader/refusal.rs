//! Why a library is not loaded.

use std::path::{Path, PathBuf};

/// What is wrong, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names are the documentation
pub enum Code {
    Unreadable,
    NotALibrary,
    Truncated,
    WrongArchitecture,
    NoManifest,
    BadManifest,
    AbiMajor,
    AbiMinor,
    AbiLayout,
    NeedsNewerGlibc,
    StaticTls,
    OpenFailed,
    NameMismatch,
    DescribeFailed,
    InitFailed,
    Duplicate,
    RouteConflict,
    NeedsPlugin,
    BadDescription,
    Hung,
    Died,
}

impl Code {
    /// The code as written in logs and URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::NotALibrary => "not_a_library",
            Self::Truncated => "truncated",
            Self::WrongArchitecture => "wrong_architecture",
            Self::NoManifest => "no_manifest",
            Self::BadManifest => "bad_manifest",
            Self::AbiMajor => "abi_major",
            Self::AbiMinor => "abi_minor",
            Self::AbiLayout => "abi_layout",
            Self::NeedsNewerGlibc => "needs_newer_glibc",
            Self::StaticTls => "static_tls",
            Self::OpenFailed => "open_failed",
            Self::NameMismatch => "name_mismatch",
            Self::DescribeFailed => "describe_failed",
            Self::InitFailed => "init_failed",
            Self::Duplicate => "duplicate",
            Self::RouteConflict => "route_conflict",
            Self::NeedsPlugin => "needs_plugin",
            Self::BadDescription => "bad_description",
            Self::Hung => "hung",
            Self::Died => "died",
        }
    }
}

/// A library that is not loaded: one sentence with file, fault and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {fault}; {remedy}", file = .file.display())]
pub struct Refusal {
    /// The plugin's name in the configuration, or in its manifest.
    pub plugin: String,
    /// The library.
    pub file: PathBuf,
    /// The stable code.
    pub code: Code,
    /// What is wrong.
    pub fault: String,
    /// What to do.
    pub remedy: String,
}

impl Refusal {
    /// A refusal of a file whose plugin is not known yet.
    pub fn new(file: &Path, code: Code, fault: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            plugin: String::new(),
            file: file.to_owned(),
            code,
            // A sentence stays one line, and obeys nothing, whatever a plugin's error text contains.
            fault: fault.into().replace(char::is_control, " "),
            remedy: remedy.into(),
        }
    }

    /// Names the plugin.
    #[must_use]
    pub fn of(mut self, plugin: &str) -> Self {
        plugin.clone_into(&mut self.plugin);
        self
    }
}
