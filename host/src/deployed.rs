//! What is deployed, as it described itself: so that a plugin set can be held against it before it takes its place.
//!
//! A worker keeps a copy of each of its plugins' descriptions at the broker (`deployed/keep.rs`), under plugin and
//! version; `check --save-manifest` writes the same into a file. API instances keep one of what they serve, so that
//! `instances list` can hold the tasks that they accept against what workers read, and a set against routes that no worker has.
//!
//! Invariant: it is read by tools of neighbouring versions. Unknown members are ignored, new ones have defaults.

mod keep;

pub use keep::{Described, described, keep};

use crate::loader::Description;
use cardcage_protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// Whose plugin version it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A worker's, which runs it.
    Worker,
    /// An API instance's, which serves its routes and accepts its tasks.
    Api,
}

/// One plugin version, as it is or was deployed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployed {
    /// Version of this record; today 1.
    pub v: u32,
    /// Where its routes are mounted, as in `/orders`.
    pub prefix: String,
    /// When this was said last.
    pub said_at: Timestamp,
    /// Its part of the OpenAPI document was left out, for all of it together was too long.
    #[serde(default)]
    pub is_cut: bool,
    /// What it says of itself.
    pub description: Description,
}

/// A saved plugin set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedSet {
    /// Version of this file; today 1.
    pub v: u32,
    /// The host that wrote it.
    pub cardcage: String,
    /// Its plugins.
    pub plugins: Vec<Deployed>,
}

impl Deployed {
    /// This plugin, from now on.
    #[must_use]
    pub fn new(prefix: &str, description: Description, said_at: Timestamp) -> Self {
        Self { v: 1, prefix: prefix.to_owned(), said_at, is_cut: false, description }
    }
}
