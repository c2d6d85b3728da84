//! The broker's part of the check: can it be reached, is it fit, do its streams agree with the settings?
//!
//! It creates nothing: a stream that is not there yet is a note, since a starting host creates it.

use std::time::Duration;

use cardcage_protocol::Name;

use super::report::BrokerReport;
use crate::broker::{Broker, Error, Options};
use crate::config::Settings;

/// How long it may take beyond one attempt to connect.
const CONNECT_MARGIN: Duration = Duration::from_secs(1);

/// Connects, and looks at version, JetStream and streams.
pub(super) async fn probe(settings: &Settings) -> BrokerReport {
    let mut report = BrokerReport {
        url: settings.broker.url.clone(),
        namespace: settings.broker.namespace.clone(),
        server_version: None,
        faults: Vec::new(),
        notes: Vec::new(),
    };
    match crate::role::broker_options(settings, "cardcage check") {
        Ok(options) => examine(&mut report, options, settings).await,
        Err(error) => report.faults.push(error.to_string()),
    }
    report
}

async fn examine(report: &mut BrokerReport, options: Options, settings: &Settings) {
    let wait = options.connect_timeout + CONNECT_MARGIN;
    let connected = async {
        let broker = Broker::connect(options).await?;
        broker.wait_connected(wait).await?;
        Ok::<_, Error>(broker)
    };
    let broker = match connected.await {
        Ok(broker) => broker,
        Err(error) => {
            report.faults.push(format!("{error}; start nats-server, or correct `broker.url`"));
            return;
        }
    };
    match broker.check_server().await {
        Ok(facts) => report.server_version = Some(facts.version),
        Err(errors) => {
            report.faults.extend(errors.iter().map(ToString::to_string));
            return;
        }
    }
    // The settings have checked the names.
    let plugins: Vec<Name> = settings.plugins.keys().filter_map(|name| Name::new(name).ok()).collect();
    match broker.compare_layout(&plugins).await {
        Ok(layout) => {
            report.faults.extend(layout.differences.iter().map(|difference| {
                format!(
                    "{difference}: change one to match the other; a host never changes an existing stream"
                )
            }));
            if !layout.missing.is_empty() {
                let missing = layout.missing.join(", ");
                report.notes.push(format!("streams that the first host will create: {missing}"));
            }
        }
        Err(error) => report.faults.push(error.to_string()),
    }
}
