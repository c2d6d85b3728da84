//! What a dead child leaves behind, and the renewal of leases: the supervisor's two duties towards the broker.

use crate::broker::{Ack, Broker, Error, Options};
use crate::crash::Entry;
use crate::process::{Aftermath, Begun, Death, Deceased, Fate, Renewer};
use crate::worker::tasks::obituary;
use bytes::Bytes;
use cardcage_protocol::{
    CallId, CallReply, Crash, InstanceId, Name, QuarantinePolicy, ReplyKind, TaskId, Timestamp,
};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Tasks whose records are written at the same time.
const AT_ONCE: usize = 64;

/// How long the broker may take to notice a child's death. Where another child of this worker lives, it never does.
const GONE_MAX: Duration = Duration::from_millis(500);
/// How long it has for one answer.
const GONE_ASK: Duration = Duration::from_millis(50);

/// Answers a dead child's calls and hands its tasks back, each with a word in its record.
#[derive(Debug, Clone)]
pub(super) struct BrokerAftermath {
    pub(super) broker: Broker,
    pub(super) instance: InstanceId,
    pub(super) quarantine: QuarantinePolicy,
}

impl Aftermath for BrokerAftermath {
    fn child_died(&self, remains: Vec<(Entry, Fate)>, child: Deceased) -> BoxFuture<'_, ()> {
        let now = Timestamp::from_unix_ms(self.broker.now_unix_ms());
        let born = now.minus_ms(u64::try_from(child.alive.as_millis()).unwrap_or(u64::MAX));
        Box::pin(async move {
            let (tasks, calls): (Vec<_>, Vec<_>) =
                remains.into_iter().partition(|(entry, _)| entry.kind.is_task());
            let (tasks_held, calls_held) = (tasks.len(), calls.len());
            // Somebody waits for these.
            for (entry, _) in calls {
                self.answer(&entry).await;
            }
            let how = &child.how;
            if !tasks.is_empty() {
                self.wait_until_gone().await;
            }
            // Before anything is handed back: who takes it next must know.
            for (entry, _) in tasks.iter().filter(|(_, fate)| *fate == Fate::Crashed) {
                self.note_crash(entry, &child.begun, how).await;
            }
            // A task may stand there twice, with the attempt that runs and with its next message: the attempt's end first.
            let (unstarted, begun): (Vec<_>, Vec<_>) =
                tasks.into_iter().partition(|(_, fate)| *fate == Fate::Unstarted);
            for those in [begun, unstarted] {
                let handing_back =
                    those.into_iter().map(|(entry, fate)| self.hand_back(entry, fate, how, born));
                futures_util::stream::iter(handing_back).buffer_unordered(AT_ONCE).collect::<()>().await;
            }
            let flushed = self.broker.flush(Duration::from_secs(2)).await.is_ok();
            tracing::info!(
                calls = calls_held,
                tasks = tasks_held,
                how = %child.how,
                flushed,
                "what a dead child held was answered"
            );
        })
    }

    fn overran(&self, task: Entry) -> BoxFuture<'_, ()> {
        let how = Death::Killed("held a thread");
        let now = Timestamp::from_unix_ms(self.broker.now_unix_ms());
        Box::pin(async move { self.hand_back(task, Fate::TimedOut, &how, now).await })
    }
}

impl BrokerAftermath {
    async fn answer(&self, call: &Entry) {
        let crashed =
            CallReply::bare(ReplyKind::Crashed, self.instance.as_str()).encode().unwrap_or_default();
        if let Err(error) = self.broker.publish(call.subject.clone(), crashed).await {
            tracing::warn!(%error, plugin = call.plugin, name = call.name, "a dead child's call runs into its deadline");
        }
    }

    /// Waits until the broker has noticed that the child is gone: a task that is handed back before goes to the dead child's
    /// standing pull as likely as to anybody else, and waits there for a lease.
    async fn wait_until_gone(&self) {
        let until = Instant::now() + GONE_MAX;
        while Instant::now() < until {
            // Only a child listens there, and answers nothing: no listener is an answer of the broker's.
            let subject = self.broker.subjects().callio(&self.instance, CallId::generate());
            if !matches!(self.broker.call(subject, Bytes::new(), GONE_ASK).await, Err(Error::Timeout { .. }))
            {
                return;
            }
        }
    }

    /// Counts a crash against the plugin's version.
    async fn note_crash(&self, task: &Entry, plugins: &[Begun], how: &Death) {
        // The board may have been scribbled on.
        let Some(plugin) = plugins.iter().find(|plugin| plugin.name == task.plugin) else { return };
        let (Ok(task_id), Ok(name), Ok(of)) =
            (TaskId::from_bytes(task.id), Name::new(&task.name), Name::new(&plugin.name))
        else {
            return;
        };
        let crash = Crash {
            task_id,
            task: name,
            at: Timestamp::from_unix_ms(self.broker.now_unix_ms()),
            worker: self.instance.clone(),
            how: how.to_string(),
        };
        let version = plugin.version.as_str();
        match self.broker.note_crash(&of, version, crash, self.quarantine).await {
            Ok(Some(history)) => tracing::error!(
                plugin = %of, version, reason = history.reason(),
                "a plugin is quarantined: its tasks wait and its calls are refused until it is released"
            ),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, plugin = %of, version, "a plugin's crash could not be counted")
            }
        }
    }

    /// The record first: who gets the task next reads why it comes again.
    async fn hand_back(&self, task: Entry, fate: Fate, how: &Death, born: Timestamp) {
        let (plugin, name) = (task.plugin.as_str(), task.name.as_str());
        if let Err(error) = obituary::record(&self.broker, &self.instance, &task, fate, how, born).await {
            tracing::warn!(%error, plugin, name, "why a task was cut off could not be recorded");
        }
        if let Err(error) = self.broker.ack(&task.subject, Ack::HandBack).await {
            tracing::warn!(%error, plugin, name, "a dead child's task comes back after its lease");
        }
    }
}

/// An API's child holds nothing that the broker knows: its callers see their connections close.
#[derive(Debug)]
pub(super) struct NoAftermath;

impl Aftermath for NoAftermath {
    fn child_died(&self, _: Vec<(Entry, Fate)>, _: Deceased) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn overran(&self, _: Entry) -> BoxFuture<'_, ()> {
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
