//! What a dead child leaves behind, and the renewal of leases: the supervisor's two duties towards the broker.

use crate::broker::{Ack, Broker, Options};
use crate::crash::{Entry, Kind};
use crate::process::{Aftermath, Death, Renewer};
use cardcage_protocol::{CallReply, ReplyKind};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Answers a dead child's calls and hands its tasks back.
#[derive(Debug, Clone)]
pub(super) struct BrokerAftermath {
    pub(super) broker: Broker,
    pub(super) instance: String,
}

impl Aftermath for BrokerAftermath {
    fn child_died(&self, entries: Vec<Entry>, how: Death) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let crashed = CallReply::bare(ReplyKind::Crashed, &self.instance).encode().unwrap_or_default();
            let (mut calls, mut tasks) = (0_usize, 0_usize);
            for entry in entries {
                let sent = match entry.kind {
                    Kind::Call => {
                        calls += 1;
                        self.broker.publish(entry.subject.clone(), crashed.clone()).await
                    }
                    Kind::Task => {
                        tasks += 1;
                        self.broker.ack(&entry.subject, Ack::HandBack).await
                    }
                };
                if let Err(error) = sent {
                    // Calls run into their deadline, tasks come back after their lease.
                    tracing::warn!(%error, plugin = entry.plugin, name = entry.name, "what a dead child held could not be answered");
                }
            }
            let flushed = self.broker.flush(Duration::from_secs(2)).await;
            tracing::info!(calls, tasks, how = %how, flushed = flushed.is_ok(), "what a dead child held was answered");
        })
    }
}

/// An API's child holds nothing that the broker knows: its callers see their connections close.
#[derive(Debug)]
pub(super) struct NoAftermath;

impl Aftermath for NoAftermath {
    fn child_died(&self, _: Vec<Entry>, _: Death) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Renews leases over a connection of its own, made on the lease keeper's thread, so that nothing else the
/// supervisor does can hold a renewal up.
#[derive(Debug)]
pub(super) struct BrokerRenewer {
    options: Options,
    broker: OnceCell<Broker>,
}

impl BrokerRenewer {
    pub(super) fn new(options: Options) -> Self {
        Self { options, broker: OnceCell::new() }
    }
}

impl Renewer for BrokerRenewer {
    fn renew(&self, subjects: Vec<String>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let broker = match self.broker.get_or_try_init(|| Broker::connect(self.options.clone())).await {
                Ok(broker) => broker,
                Err(error) => return tracing::error!(%error, "leases cannot be renewed"),
            };
            if let Err(error) = broker.wait_connected(Duration::from_secs(1)).await {
                return tracing::warn!(%error, "leases were not renewed this time");
            }
            for subject in &subjects {
                if let Err(error) = broker.ack(subject, Ack::InProgress).await {
                    return tracing::warn!(%error, "leases were not renewed this time");
                }
            }
            if let Err(error) = broker.flush(Duration::from_secs(2)).await {
                tracing::warn!(%error, "leases were not renewed this time");
            }
        })
    }
}
