//! A plugin's own settings, which the host passes on and never reads.
//!
//! It exists to keep secrets out of logs: `Debug` shows the names of the keys only.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The table `plugins.<name>.config` as JSON, with secrets resolved.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PluginConfig(Map<String, Value>);

impl PluginConfig {
    /// The settings as the plugin gets them. Holds secrets: never log it.
    #[must_use]
    pub fn expose(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|key| (key, format_args!("…")))).finish()
    }
}
