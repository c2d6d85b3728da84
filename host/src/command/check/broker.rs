//! The broker's part of the check: can it be reached, is it fit, do its streams agree with the settings?
//!
//! It creates nothing: a stream that is not there yet is a note, since a starting host creates it.

use cardcage_protocol::Name;

use super::report::BrokerReport;
use crate::broker::{Broker, DIFFERENCES_REMEDY, Difference, Error, Options};
use crate::command::session::connect;
use crate::config::Settings;
use crate::loader::Description;
use crate::role::consumers;

/// Connects, and looks at version and JetStream. Answers with the connection where that is worth a closer look.
pub(super) async fn probe(settings: &Settings) -> (BrokerReport, Option<Broker>) {
    let mut report = BrokerReport {
        url: settings.broker.url.clone(),
        namespace: settings.broker.namespace.clone(),
        server_version: None,
        faults: Vec::new(),
        differences: Vec::new(),
        notes: Vec::new(),
    };
    let broker = match crate::role::broker_options(settings, "cardcage check") {
        Ok(options) => examine(&mut report, options).await,
        Err(error) => {
            report.faults.push(error.to_string());
            None
        }
    };
    (report, broker)
}

async fn examine(report: &mut BrokerReport, options: Options) -> Option<Broker> {
    let broker = match connect(options).await {
        Ok(broker) => broker,
        Err(error) => {
            report.faults.push(format!("{error}; start nats-server, or correct `broker.url`"));
            return None;
        }
    };
    match broker.check_server().await {
        Ok(facts) => {
            report.server_version = Some(facts.version);
            Some(broker)
        }
        Err(errors) => {
            report.faults.extend(errors.iter().map(ToString::to_string));
            None
        }
    }
}

/// Compares the streams and consumers that are there with the settings.
pub(super) async fn compare<'a>(
    report: &mut BrokerReport,
    broker: &Broker,
    settings: &Settings,
    plugins: impl IntoIterator<Item = &'a Description>,
) {
    // The settings have checked the names.
    let names: Vec<Name> = settings.plugins.keys().filter_map(|name| Name::new(name).ok()).collect();
    let mut differ = |difference: &Difference| {
        report.differences.push(format!("{difference}; {DIFFERENCES_REMEDY}"));
    };
    let consumers = broker.compare_consumers(&consumers(broker, plugins)).await;
    match broker.compare_layout(&names).await {
        Ok(layout) => {
            layout.differences.iter().for_each(&mut differ);
            match consumers {
                Ok(()) => {}
                Err(Error::Layout(differences)) => differences.iter().for_each(&mut differ),
                Err(error) => report.faults.push(error.to_string()),
            }
            if !layout.missing.is_empty() {
                let missing = layout.missing.join(", ");
                report.notes.push(format!("streams that the first host will create: {missing}"));
            }
        }
        Err(error) => report.faults.push(error.to_string()),
    }
}
