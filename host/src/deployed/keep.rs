//! Keeps at the broker how this host's plugins describe themselves: for `cardcage check --against broker`, and for `cardcage
//! instances list`, which holds what API instances accept against what workers read.
//!
//! Nobody's work depends on it: a failure is tried again and told once, and no start waits for it.
//!
//! Refuses: removing anything. What nobody has any more vanishes by itself.

use std::sync::Arc;
use std::time::Duration;

use cardcage_protocol::Timestamp;

use super::{By, Deployed};
use crate::broker::Broker;
use crate::loader::{Description, PluginSet};

/// An entry vanishes when nobody has said it for so long.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How often it is said.
const SAY_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// Prefix and description of each plugin.
pub type Described = Vec<(String, Arc<Description>)>;

/// Where each plugin of the set is mounted, and how it describes itself.
#[must_use]
pub fn described(set: &PluginSet) -> Described {
    let all = set.descriptions();
    all.map(|(source, description)| (source.prefix.clone(), description.clone())).collect()
}

/// Says them until it is dropped.
pub async fn keep(by: By, broker: Broker, plugins: Described) {
    let mut was_told = false;
    loop {
        let mut pause = SAY_EVERY;
        for (prefix, description) in &plugins {
            let now = Timestamp::from_unix_ms(broker.now_unix_ms());
            let deployed = Deployed::new(prefix, Description::clone(description), now);
            if let Err(error) = broker.say_deployed(by, &deployed, KEPT).await {
                if error.is_retryable() {
                    pause = AGAIN;
                }
                if !std::mem::replace(&mut was_told, true) {
                    let plugin = &description.name;
                    tracing::warn!(plugin, %error, "the broker cannot be told how a plugin describes itself");
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}
