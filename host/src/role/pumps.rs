//! The pumps of a worker's supervisor: two for each plugin that is configured, as long as it is.

use crate::broker::{Broker, Pump};
use crate::config::Settings;
use cardcage_protocol::Name;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time the pumps have to finish what they are moving.
const PUMP_STOP: Duration = Duration::from_secs(2);

/// Runs the pumps of the settings' plugins until `stop`.
pub(super) async fn run(
    broker: Broker,
    mut settings: watch::Receiver<Arc<Settings>>,
    stop: CancellationToken,
) {
    let mut stops: BTreeMap<Name, CancellationToken> = BTreeMap::new();
    let mut running = JoinSet::new();
    loop {
        let current = settings.borrow_and_update().clone();
        // A plugin's name there is its own.
        let wanted: Vec<Name> = current.plugins.keys().filter_map(|name| Name::new(name).ok()).collect();
        stops.retain(|plugin, stop| {
            let is_wanted = wanted.contains(plugin);
            if !is_wanted {
                stop.cancel();
            }
            is_wanted
        });
        for plugin in wanted {
            if stops.contains_key(&plugin) {
                continue;
            }
            let stop = stop.child_token();
            for pump in [Pump::new(&broker, &plugin), Pump::slots(&broker, &plugin)] {
                running.spawn(pump.run(stop.clone().cancelled_owned()));
            }
            stops.insert(plugin, stop);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = settings.changed() => {}
            // Those of plugins that are gone.
            Some(_) = running.join_next() => {}
        }
    }
    // What they have not acknowledged comes again, to whichever pump is there then.
    let _ = tokio::time::timeout(PUMP_STOP, running.join_all()).await;
}
