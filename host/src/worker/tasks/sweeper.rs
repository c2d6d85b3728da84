//! The sweeper: ends well what a crash between two writes, or somebody's hand in the broker, left behind and no redelivery
//! will bring up.
//!
//! | what | how it is found | what is done |
//! |---|---|---|
//! | a final record whose children, hook or dead letter may not be published | its note (`crate::broker::OwedNote`), and no message in a queue | they are published |
//! | a task that its consumer will not deliver again | the consumer's counts; the same task twice, in nobody's hands | it is queued anew |
//! | a serial key whose turn nobody will end, a line that nobody started | the key's lock and line | the turn is passed on |
//! | a unique key whose task has ended, or never was | the key's entry | it is released |
//!
//! It runs in every worker's supervisor, about once per lease, and one of them at a time does a round. That only saves work: a round may be
//! broken off anywhere, and two at once do no harm.
//!
//! Invariants: nothing is touched that is younger than two leases, for whoever made it may still be at it; what a redelivery
//! will do is left to it; every step of a round is bounded, and goes on in the next one.
//!
//! Refuses: guessing. A task that has neither message nor outcome is not ended here: nobody knows what its handler did.

use super::payer::Payer;
use super::place::WhenFull;
use crate::broker::{Broker, Error, OwedNote, SerialCursor, Store};
use cardcage_protocol::presence::Question;
use cardcage_protocol::{Name, Priority, TaskAddress, TaskEnvelope, TaskId, TaskRecord};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Notes that one round looks at.
const NOTES_MAX: usize = 256;
/// Of those, so many may cost a wait in vain before the round goes on to something else.
const UNPAID_MAX: u64 = 32;
/// Queues that one round looks at.
const QUEUES_MAX: usize = 8;
/// Suspected strays that are remembered.
const SUSPECTS_MAX: usize = 1_024;
/// Time for what one record owes.
const PAY_MAX: Duration = Duration::from_secs(10);
/// How long a worker's answer is waited for.
const HOLDER_WAIT: Duration = Duration::from_millis(250);

/// What sweeps have found since the start, and how full the stores were at the last look, for `/metrics`.
#[derive(Debug, Default)]
pub struct SweepReport {
    rounds: AtomicU64,
    owed: AtomicU64,
    strays: AtomicU64,
    turns: AtomicU64,
    unique_keys: AtomicU64,
    stores: Mutex<Vec<Store>>,
}

impl SweepReport {
    /// The lines of the metrics.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from("# TYPE cardcage_sweeps counter\n");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "cardcage_sweeps_total {}", self.rounds.load(Ordering::Relaxed));
        text.push_str("# TYPE cardcage_swept counter\n");
        for (what, count) in [
            ("owed", &self.owed),
            ("stray", &self.strays),
            ("turn", &self.turns),
            ("unique_key", &self.unique_keys),
        ] {
            let _ =
                writeln!(text, "cardcage_swept_total{{what=\"{what}\"}} {}", count.load(Ordering::Relaxed));
        }
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gauge = |name: &str, read: &dyn Fn(&Store) -> u64| {
            let _ = writeln!(text, "# TYPE {name} gauge");
            for store in stores.iter() {
                let _ = writeln!(text, "{name}{{store=\"{}\"}} {}", store.name, read(store));
            }
        };
        gauge("cardcage_store_messages", &|store| store.messages);
        gauge("cardcage_store_max_messages", &|store| store.max_messages);
        gauge("cardcage_store_bytes", &|store| store.bytes);
        text
    }
}

/// Sweeps for as long as it runs.
#[derive(Debug)]
pub struct Sweeper {
    broker: Broker,
    payer: Payer,
    report: Arc<SweepReport>,
    /// Where the next round goes on.
    notes: u64,
    serial: SerialCursor,
    unique: u64,
    queue: Option<Name>,
    /// Suspected strays, and when they were first suspected.
    suspects: HashMap<(Name, u64), Instant>,
}

impl Sweeper {
    /// A sweeper; it does nothing before [`Sweeper::run`].
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        let payer = Payer { broker: broker.clone(), give_up: CancellationToken::new() };
        Self {
            broker,
            payer,
            report: Arc::default(),
            notes: 1,
            serial: SerialCursor::default(),
            unique: 1,
            queue: None,
            suspects: HashMap::new(),
        }
    }

    /// What it finds.
    #[must_use]
    pub fn report(&self) -> Arc<SweepReport> {
        self.report.clone()
    }

    /// Sweeps until it is dropped.
    pub async fn run(mut self) {
        let lease = self.broker.options().lease;
        // What is too young to be touched is too young by the broker's time.
        self.broker.wait_for_time().await;
        loop {
            match self.broker.stores().await {
                Ok(stores) => *self.report.stores.lock().unwrap_or_else(PoisonError::into_inner) = stores,
                Err(error) => tracing::debug!(%error, "the stores cannot be looked at now"),
            }
            // Drawn, so that the supervisors do not all ask at once.
            tokio::time::sleep(lease.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            match self.broker.begin_sweep(lease.mul_f64(0.75)).await {
                Ok(true) => self.round().await,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "a sweep cannot begin now"),
            }
        }
    }

    async fn round(&mut self) {
        let age = self.broker.options().lease.saturating_mul(2);
        tell(self.owed(age).await, &self.report.owed, "publishes that nobody would have made were made");
        tell(
            self.strays(age).await,
            &self.report.strays,
            "tasks that nobody would have got again were queued anew",
        );
        let turns = self.broker.sweep_serial(age / 2, &mut self.serial).await;
        tell(turns, &self.report.turns, "serial keys that nobody would have passed on were passed on");
        let unique = self.broker.sweep_unique(age, self.unique).await.map(|(released, next)| {
            self.unique = next;
            released
        });
        tell(unique, &self.report.unique_keys, "unique keys of tasks that have ended were released");
        self.report.rounds.fetch_add(1, Ordering::Relaxed);
    }

    async fn owed(&mut self, age: Duration) -> Result<u64, Error> {
        let Some((notes, next)) = self.broker.owed_page(self.notes, NOTES_MAX).await? else {
            self.notes = 1;
            return Ok(0);
        };
        // Whatever comes of these: one that cannot be paid now holds up no other, and its turn comes again.
        self.notes = next;
        let (mut paid, mut unpaid) = (0, 0);
        for note in notes.iter().filter(|note| self.is_older(note, age)) {
            match self.pay(note.id).await {
                Ok(found) => paid += u64::from(found),
                Err(error) if unpaid < UNPAID_MAX && self.broker.connected() => {
                    unpaid += 1;
                    tracing::debug!(task = %note.id, %error, "what a task owes cannot be paid now");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(paid)
    }

    fn is_older(&self, note: &OwedNote, age: Duration) -> bool {
        u128::from(self.broker.now_unix_ms().saturating_sub(note.noted_at.unix_ms())) >= age.as_millis()
    }

    /// Publishes what a task's record owes, where nobody else will. Says whether there was something.
    async fn pay(&self, id: TaskId) -> Result<bool, Error> {
        let record = self.broker.read_record(id).await?.map(|(record, _)| record);
        let Some(record) = record.filter(|record| record.state.is_final() && !record.follow_up.is_empty())
        else {
            // Of a write that was refused, or of a record whose time is over.
            self.broker.settle_owed(id).await?;
            return Ok(false);
        };
        if self.broker.find_queued(id).await?.is_some() {
            return Ok(false);
        }
        let envelope = envelope_of(&record);
        let until = Instant::now() + PAY_MAX;
        for owed in &record.follow_up {
            let paying = self.payer.follow_up(&envelope, Some(&record), owed, true, until, WhenFull::GiveUp);
            if Box::pin(paying).await.is_err() {
                return Err(Error::unavailable("what a record owes could not be published"));
            }
        }
        tracing::warn!(plugin = %record.plugin, task = %record.task, %id, "a task's message was gone before all was published that its outcome owes");
        self.broker.settle_owed(id).await?;
        Ok(true)
    }

    async fn strays(&mut self, age: Duration) -> Result<u64, Error> {
        let lease = self.broker.options().lease;
        let mut found = 0;
        for plugin in self.next_queues().await? {
            let suspects = self.broker.suspected_strays(&plugin, age).await?;
            let there: HashSet<u64> = suspects.iter().map(|stray| stray.sequence).collect();
            self.suspects.retain(|(of, sequence), _| *of != plugin || there.contains(sequence));
            if suspects.is_empty() {
                continue;
            }
            let held = self.held().await?;
            for stray in suspects {
                let key = (plugin.clone(), stray.sequence);
                let id = stray.address.id;
                // A worker may hold it unstarted, which only itself can say.
                if held.contains(&id) || self.broker.ask_holder(id, HOLDER_WAIT).await?.is_some() {
                    self.suspects.remove(&key);
                    continue;
                }
                match self.suspects.get(&key) {
                    Some(since) if since.elapsed() >= lease => {
                        self.broker.requeue_stray(&stray).await?;
                        self.suspects.remove(&key);
                        tracing::warn!(%plugin, task = %stray.address.task, %id, "a task that its consumer would not deliver again was queued anew");
                        found += 1;
                    }
                    Some(_) => {}
                    None if self.suspects.len() < SUSPECTS_MAX => {
                        self.suspects.insert(key, Instant::now());
                    }
                    None => {}
                }
            }
        }
        Ok(found)
    }

    /// The queues whose turn it is to be looked at.
    async fn next_queues(&mut self) -> Result<Vec<Name>, Error> {
        let all = self.broker.queued_plugins().await?;
        let after = self.queue.take();
        let rest = all.iter().filter(|name| after.as_ref().is_none_or(|after| *name > after));
        let next: Vec<Name> = rest.take(QUEUES_MAX).cloned().collect();
        // From the beginning after the last one.
        self.queue = next.last().filter(|last| Some(*last) != all.last()).cloned();
        Ok(next)
    }

    async fn held(&self) -> Result<HashSet<TaskId>, Error> {
        let workers = self.broker.ask_workers(Question { running: true, ..Question::default() }).await?;
        Ok(workers.into_iter().flat_map(|worker| worker.running).map(|task| task.id).collect())
    }
}

fn tell(found: Result<u64, Error>, count: &AtomicU64, what: &'static str) {
    match found {
        Ok(0) => {}
        Ok(found) => {
            count.fetch_add(found, Ordering::Relaxed);
            tracing::warn!(found, "{what}");
        }
        Err(error) => tracing::debug!(%error, "a part of a sweep was broken off"),
    }
}

/// What is left of an envelope whose message is gone: all but its body and its priority.
fn envelope_of(record: &TaskRecord) -> TaskEnvelope {
    let major = record.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let address = TaskAddress {
        plugin: record.plugin.clone(),
        major,
        task: record.task.clone(),
        priority: Priority::Normal,
        id: record.id,
    };
    let body = bytes::Bytes::new();
    TaskEnvelope {
        root_id: record.root_id,
        parent_id: record.parent_id,
        traceparent: record.traceparent.clone(),
        idempotency_key: record.idempotency_key.clone(),
        attempt: record.attempts.last().map_or(1, |attempt| attempt.n),
        ..TaskEnvelope::new(address, record.version.as_str().into(), record.enqueued_at, body)
    }
}
