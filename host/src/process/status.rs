//! What a supervisor shows of itself: the source of readiness and of the supervisor's own metrics.

use super::control::{LoadedPlugin, Refusal, Role};
use super::{Cause, CrashReport, Seat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Where a supervisor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// No child serves yet, or a new one is on its way.
    Starting,
    /// A child serves.
    Serving,
    /// A stop was asked for.
    Draining,
    /// The child has ended for good.
    Ended,
}

/// A plugin that takes no work, because it crashed too often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedPlugin {
    /// Its name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Since when.
    pub since: cardcage_protocol::Timestamp,
    /// Why.
    pub reason: String,
}

/// A plugin whose runtime does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedPlugin {
    /// Its name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Since when.
    pub since: cardcage_protocol::Timestamp,
    /// Its handlers that were being polled then, by name and id.
    pub held_by: Vec<String>,
}

/// A supervisor's status at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// What the host is for.
    pub role: Role,
    /// Which process of which worker group, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seat: Option<Seat>,
    /// The instance's name.
    pub instance: String,
    /// Where the supervisor stands.
    pub status: Stage,
    /// Whether it should get traffic.
    pub ready: bool,
    /// Whether a worker takes work; `None` for an API.
    pub consuming: Option<bool>,
    /// Whether the child shows signs of life; one that is stopped shows none.
    pub responding: bool,
    /// What is missing; it serves what it can. Follows from what the child lacks and from what is refused.
    pub degraded: Vec<String>,
    /// What the child says that it lacks.
    #[serde(skip)]
    pub(crate) lacks: Vec<String>,
    /// Plugins that are not loaded, and why.
    pub refused: Vec<Refusal>,
    /// Plugins that are.
    pub plugins: Vec<LoadedPlugin>,
    /// Those of them that take no work, because they crashed too often.
    pub quarantined: Vec<QuarantinedPlugin>,
    /// Those of them whose runtime is held up by a handler, or by something that it started.
    pub blocked: Vec<BlockedPlugin>,
    /// Where the child listens.
    pub bound: Vec<String>,
    /// The child's process id, while one runs.
    pub child_pid: Option<u32>,
    /// How many children were started in place of one that died, or was replaced for a handler.
    pub restarts: u64,
    /// How many times another plugin set, or other settings, took over.
    pub reloads: u64,
    /// How the last child ended that did not end as it should.
    pub last_crash: Option<CrashReport>,
    /// Each process' own, where the host has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<Snapshot>,
    /// How many were replaced while they served, by why.
    #[serde(skip)]
    pub replaced: BTreeMap<&'static str, u64>,
    /// How many did so, by cause and plugin.
    #[serde(skip)]
    pub crashes: BTreeMap<(Cause, Option<String>), u64>,
}

impl Snapshot {
    /// That of a supervisor that has not started yet.
    pub(super) fn new(role: Role, instance: String) -> Self {
        Self {
            role,
            seat: None,
            instance,
            status: Stage::Starting,
            ready: false,
            consuming: (role == Role::Worker).then_some(false),
            responding: true,
            degraded: Vec::new(),
            lacks: Vec::new(),
            refused: Vec::new(),
            plugins: Vec::new(),
            quarantined: Vec::new(),
            blocked: Vec::new(),
            bound: Vec::new(),
            child_pid: None,
            restarts: 0,
            reloads: 0,
            last_crash: None,
            replaced: BTreeMap::new(),
            crashes: BTreeMap::new(),
            seats: Vec::new(),
        }
    }

    fn judge(&mut self) {
        self.ready = self.status == Stage::Serving && self.consuming != Some(false) && self.responding;
        let refused =
            self.refused.iter().map(|one| format!("plugin `{}` is refused: {}", one.plugin, one.message));
        self.degraded = self.lacks.iter().cloned().chain(refused).collect();
    }

    /// Shows how a child ended that did not end as it should.
    pub(super) fn report(&mut self, report: CrashReport) {
        let count = self.crashes.entry((report.cause, report.plugin.clone())).or_default();
        *count = count.saturating_add(1);
        self.last_crash = Some(CrashReport { seat: self.seat.clone(), ..report });
    }

    /// Shows that another child is on its way, without these plugins.
    pub(super) fn renew(&mut self, banned: &[Refusal]) {
        self.status = Stage::Starting;
        self.consuming = (self.role == Role::Worker).then_some(false);
        self.refused = banned.to_vec();
        self.lacks.clear();
        self.plugins.clear();
        self.blocked.clear();
        self.bound.clear();
    }

    /// Shows the child that was followed, as it was seen while it came up.
    pub(super) fn take_over(&mut self, seen: Snapshot) {
        (self.status, self.responding) = (Stage::Serving, true);
        (self.consuming, self.lacks) = (seen.consuming, seen.lacks);
        (self.refused, self.plugins) = (seen.refused, seen.plugins);
        (self.quarantined, self.bound) = (seen.quarantined, seen.bound);
        self.blocked = seen.blocked;
        self.reloads += 1;
    }

    /// Shows a refusal; one per plugin, the first stands.
    fn refuse(&mut self, refusal: Refusal) {
        if !self.refused.iter().any(|known| known.plugin == refusal.plugin) {
            self.refused.push(refusal);
        }
    }
}

/// A supervisor's status, for reading. Clones are cheap and see the same.
#[derive(Clone, Debug)]
pub struct Status {
    sender: Arc<watch::Sender<Snapshot>>,
}

impl Status {
    pub(super) fn new(role: Role, instance: String) -> Self {
        Self { sender: Arc::new(watch::Sender::new(Snapshot::new(role, instance))) }
    }

    /// The status now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.sender.borrow().clone()
    }

    /// Waits until the status is as wanted, and returns it.
    pub async fn wait_for(&self, wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        match self.sender.subscribe().wait_for(wanted).await {
            Ok(snapshot) => snapshot.clone(),
            // The sender is in `self`.
            Err(_) => self.snapshot(),
        }
    }

    /// Logs a refusal, and shows it.
    pub(super) fn refuse(&self, refusal: Refusal) {
        tracing::error!(
            plugin = refusal.plugin,
            file = refusal.file,
            code = refusal.code,
            reason = refusal.message,
            "a plugin was refused"
        );
        self.update(|now| now.refuse(refusal));
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.sender.send_modify(|snapshot| {
            change(snapshot);
            snapshot.judge();
        });
    }
}

/// Asks the child for its metrics. Clones are cheap.
#[derive(Clone, Debug)]
pub struct ChildMetrics {
    requests: mpsc::Sender<oneshot::Sender<String>>,
}

impl ChildMetrics {
    pub(super) fn channel() -> (Self, mpsc::Receiver<oneshot::Sender<String>>) {
        let (requests, receiver) = mpsc::channel(8);
        (Self { requests }, receiver)
    }

    /// The child's metrics text; `None` when there is no child or it does not answer in time.
    pub async fn text(&self, within: Duration) -> Option<String> {
        let (answer, text) = oneshot::channel();
        self.requests.try_send(answer).ok()?;
        tokio::time::timeout(within, text).await.ok()?.ok()
    }
}

/// What others see of a supervisor. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Its status.
    pub status: Status,
    /// Its child's metrics.
    pub metrics: ChildMetrics,
    /// The metrics of what it does beside watching its child.
    pub duties: DutyMetrics,
}

/// Text of metrics, made when it is asked for. Clones are cheap.
#[derive(Clone, Default)]
pub struct DutyMetrics(Option<Arc<dyn Fn() -> String + Send + Sync>>);

impl DutyMetrics {
    /// What `text` says, without an end mark.
    pub fn new(text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(text)))
    }

    pub(crate) fn text(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |text| text())
    }
}

impl std::fmt::Debug for DutyMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DutyMetrics").field(&self.0.is_some()).finish()
    }
}
