//! A child's copy of what is quarantined, and its word to the supervisor about its own plugins.

use super::child::report;
use crate::broker::Broker;
use crate::loader::PluginSet;
use crate::process::QuarantinedPlugin;
use crate::process::child::Outbox;
use crate::process::control::ToSupervisor;
use crate::quarantine::Quarantines;
use cardcage_protocol::CrashHistory;

/// Follows the broker for as long as the child lives.
pub(super) fn follow(quarantines: &Quarantines, broker: &Broker, outbox: &Outbox, set: &PluginSet) {
    let known = set.descriptions();
    let loaded: Vec<(String, String)> =
        known.map(|(_, description)| (description.name.clone(), description.version.clone())).collect();
    tokio::spawn(quarantines.clone().follow(broker.clone()));
    tokio::spawn(tell(outbox.clone(), quarantines.clone(), loaded));
}

async fn tell(outbox: Outbox, quarantines: Quarantines, loaded: Vec<(String, String)>) {
    let mut known = quarantines.watch();
    let mut told = None;
    loop {
        let plugins: Vec<QuarantinedPlugin> =
            known.borrow_and_update().iter().filter_map(|history| shown(history, &loaded)).collect();
        if told.as_ref() != Some(&plugins) {
            report(&outbox, &ToSupervisor::Quarantined { plugins: plugins.clone() });
            told = Some(plugins);
        }
        if known.changed().await.is_err() {
            return;
        }
    }
}

fn shown(history: &CrashHistory, loaded: &[(String, String)]) -> Option<QuarantinedPlugin> {
    let is_it = |(plugin, version): &(String, String)| {
        plugin == history.plugin.as_str() && *version == history.version
    };
    let since = history.quarantined_at?;
    loaded.iter().any(is_it).then(|| QuarantinedPlugin {
        plugin: history.plugin.to_string(),
        version: history.version.clone(),
        since,
        reason: history.reason(),
    })
}
