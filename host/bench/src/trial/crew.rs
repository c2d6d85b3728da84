//! What a trial needs running: a broker and workers, with a bare client beside them.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use bytes::Bytes;
use cardcage_harness::{
    Cardcage, Config, Deadline, Error, Launch, Nats, NatsOptions, Port, Result, eventually,
};
use cardcage_protocol::{State, TaskId, TaskRecord};
use futures_util::{StreamExt, TryStreamExt};

use crate::cli::Settings;
use crate::cpu::Watched;
use crate::envelope::{self, Envelopes, PLUGIN};
use crate::floor::{self, Wire};
use crate::load::{Load, Measured, Target, TaskTarget};
use crate::part::{Part, Running};
use crate::stage::settled;
use crate::streams::TASK_CONCURRENCY;

/// Publishes whose acknowledgement is waited for at the same time.
const PUBLISHES: usize = 1024;
/// How long a process of the bench may take beyond its load's time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for what takes seconds on a machine of its own.
const LONG: Duration = Duration::from_secs(900);

/// Broker, workers and client. Fields are dropped in order: workers before their broker.
pub(super) struct Crew {
    pub(super) workers: Vec<Cardcage>,
    pub(super) envelopes: Envelopes,
    jetstream: jetstream::Context,
    config: Config,
    nats: Nats,
    monitor: Port,
}

impl Crew {
    /// Starts so many workers, and waits until they do no more than they will do.
    pub(super) async fn start(
        workers: usize,
        settings: &Settings,
        change: impl FnOnce(Config) -> Config,
    ) -> Result<Self> {
        let monitor = Port::reserve()?;
        let arguments = vec!["--http_port".to_owned(), monitor.number().to_string()];
        let nats = Nats::start_with(NatsOptions { arguments, ..NatsOptions::default() }).await?;
        let concurrency = i64::try_from(TASK_CONCURRENCY).unwrap_or(i64::MAX);
        let mut config = Config::new(&nats).plugin(PLUGIN)?.set("worker.task_concurrency", concurrency);
        if settings.smoke {
            // A worker settles for a lease.
            config = config.set("tasks.lease_ms", 2_000).set("drain.grace_ms", 1_000);
        }
        let config = change(config);
        let mut crew = Self {
            workers: Vec::new(),
            envelopes: Envelopes::new(config.namespace())?,
            jetstream: jetstream::new(floor::connect(&nats.url()).await?),
            config,
            nats,
            monitor,
        };
        for _ in 0..workers {
            crew.workers.push(Cardcage::worker(&crew.config).await?);
        }
        for worker in &crew.workers {
            settled(worker).await?;
        }
        Ok(crew)
    }

    /// A closed loop of so many callers, as for the durable task.
    pub(super) async fn load(&self, callers: usize, settings: &Settings) -> Result<Measured> {
        let mut watched = vec![Watched { name: "nats-server".into(), pid: self.nats.pid() }];
        for worker in &self.workers {
            let children = worker.child_pids().into_iter();
            watched.extend(children.map(|pid| Watched { name: "worker child".into(), pid }));
        }
        let load = Load {
            target: Target::Task(self.target()),
            callers,
            warm_up: settings.warm_up,
            measured: settings.measured,
            watched,
            monitor: self.monitor.address(),
        };
        Running::start(&Part::Load(load))?.says(settings.warm_up + settings.measured + PATIENCE).await
    }

    /// Where this crew's tasks go.
    pub(super) fn target(&self) -> TaskTarget {
        let namespace = self.config.namespace().to_owned();
        TaskTarget { nats_url: self.nats.url(), namespace, wire: Wire::Same }
    }

    /// Enqueues so many tasks; returns when all are acknowledged.
    pub(super) async fn enqueue(&self, count: u64) -> Result<()> {
        let body = envelope::body();
        self.publish((0..count).map(|_| self.envelopes.write(TaskId::generate(), &body)), &body).await
    }

    /// Publishes messages; returns when all are acknowledged.
    pub(super) async fn publish(
        &self,
        messages: impl Iterator<Item = (String, HeaderMap)>,
        body: &Bytes,
    ) -> Result<()> {
        let publishes = messages.map(|(subject, headers)| async {
            let stored = self.jetstream.publish_with_headers(subject, headers, body.clone()).await;
            let stored = stored.map_err(Error::doing("cannot publish a task"))?;
            stored.await.map_err(Error::doing("a task's publish was not acknowledged")).map(drop)
        });
        futures_util::stream::iter(publishes).buffer_unordered(PUBLISHES).try_collect().await
    }

    /// Messages in the plugin's queue, those that are being run among them.
    pub(super) async fn queued(&self) -> Result<u64> {
        self.messages(&self.envelopes.subjects.tasks_stream(&self.envelopes.plugin)).await
    }

    /// Waits until the queue is empty.
    pub(super) async fn drained(&self) -> Result<()> {
        eventually(Deadline::after(LONG), "the queue is empty", async || {
            self.queued().await.is_ok_and(|count| count == 0).then_some(())
        })
        .await
    }

    /// Waits until so many records are there, and reads them. Each must say `succeeded`.
    pub(super) async fn outcomes(&self, count: u64) -> Result<Vec<TaskRecord>> {
        let name = self.envelopes.subjects.state_stream();
        eventually(Deadline::after(LONG), "every task has a record", async || {
            self.messages(&name).await.is_ok_and(|there| there >= count).then_some(())
        })
        .await?;
        self.drained().await?;
        let unreadable = |what: String| Error::new(format!("cannot read {name}: {what}"));
        let stream = self.jetstream.get_stream(&name).await.map_err(|error| unreadable(error.to_string()))?;
        let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(|error| unreadable(error.to_string()))?;
        let mut messages = consumer.messages().await.map_err(|error| unreadable(error.to_string()))?;
        let mut records = Vec::new();
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| unreadable(error.to_string()))?;
            let record =
                TaskRecord::decode(&message.payload).map_err(|error| unreadable(error.to_string()))?;
            if record.state != State::Succeeded {
                return Err(Error::new(format!("task {} ended {}", record.id, record.state)));
            }
            records.push(record);
            if message.info().map_err(|error| unreadable(error.to_string()))?.pending == 0 {
                break;
            }
        }
        Ok(records)
    }

    /// `cardcage queues pause` or `resume` of the plugin.
    pub(super) async fn queues(&self, verb: &str) -> Result<()> {
        let done =
            Launch::new(["queues", verb, PLUGIN]).config(&self.config).run(Deadline::seconds(30)).await?;
        if done.status.success() {
            return Ok(());
        }
        Err(Error::new(format!("cardcage queues {verb} failed: {}", done.stderr)))
    }

    async fn messages(&self, stream: &str) -> Result<u64> {
        let found = self.jetstream.get_stream(stream).await;
        Ok(found.map_err(Error::doing(format!("cannot look at {stream}")))?.cached_info().state.messages)
    }
}
