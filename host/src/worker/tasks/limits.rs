//! What bounds a task's attempts: its declaration, over which the operator's options for this task have been laid
//! already (`loader::overrides`), and the operator's defaults for what it leaves open.

use crate::config::{OnLost, Tasks, TimeScale};
use crate::loader::TaskDescription;
use cardcage_protocol::{Rate, RetryPolicy, limits};
use std::time::Duration;

/// The shortest time that an outcome is kept. Whoever was given a receipt must be able to use it; and for as long as the broker
/// remembers message ids, and a lease may run, it is how a repeat or a late worker learns that the task has ended.
pub(super) const RESULT_TTL_MIN: Duration = Duration::from_secs(120);
/// The same, in leases.
const RESULT_TTL_MIN_LEASES: u32 = 4;

/// The bounds of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskLimits {
    /// How often, and with which pauses.
    pub(super) retry: RetryPolicy,
    /// Factor of a wait that the handler asked for; the policy's pauses are scaled already.
    pub(super) time_scale: TimeScale,
    /// Hard limit of one attempt.
    pub(super) timeout: Duration,
    /// When the handler is told to come to an end; always before the hard limit.
    pub(super) soft_timeout: Option<Duration>,
    /// Largest result that is kept.
    pub(super) result_max_bytes: usize,
    /// Crashes of its worker before it is given up.
    pub(super) crash_limit: u32,
    /// Unexplained losses before it is given up.
    pub(super) lost_limit: u32,
    /// How long an outcome is kept, where that is shorter than the operator's time for all.
    pub(super) result_ttl: Option<Duration>,
    /// Handlers at the same time in this worker.
    pub(super) concurrency: Option<u32>,
    /// Handlers at the same time over all workers.
    pub(super) max_running: Option<u32>,
    /// Whether it has a queue for each priority.
    pub(super) priorities: bool,
    /// Starts over all workers.
    pub(super) rate: Option<Rate>,
    /// Whether a lost lease ends it: it is never started twice.
    pub(super) lost_is_final: bool,
}

impl TaskLimits {
    /// The limits of `task` under these settings. Numbers out of bounds are brought within them.
    pub(super) fn of(task: &TaskDescription, settings: &Tasks) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let initial_ms = task.backoff_initial_ms.unwrap_or_else(|| ms(settings.backoff.first()));
        let max_ms = task.backoff_max_ms.unwrap_or_else(|| ms(settings.backoff.longest()));
        let max_ms = max_ms.max(initial_ms).min(limits::RETRY_DELAY_MAX_MS);
        let max_attempts = task.max_attempts.unwrap_or(settings.max_attempts).clamp(1, limits::ATTEMPTS_MAX);
        // The operator's limit is the longest that anyone gets: renewal must stop some time.
        let timeout_ms = task.timeout_ms.unwrap_or(u64::MAX).clamp(1, settings.timeout_ms.max(1));
        Self {
            retry: RetryPolicy { max_attempts, initial_ms: initial_ms.min(max_ms), max_ms },
            time_scale: TimeScale::REAL,
            timeout: Duration::from_millis(timeout_ms),
            soft_timeout: task
                .soft_timeout_ms
                .filter(|soft_ms| *soft_ms < timeout_ms)
                .map(Duration::from_millis),
            result_max_bytes: settings.result_max_bytes.min(limits::RESULT_MAX_BYTES),
            crash_limit: settings.crash_limit.max(1),
            lost_limit: settings.lost_limit.max(1),
            // The stream's own limit holds for everything in it.
            result_ttl: task.result_ttl_s.filter(|ttl_s| *ttl_s < settings.result_ttl_s).map(|ttl_s| {
                let least =
                    RESULT_TTL_MIN.max(Duration::from_millis(settings.lease_ms) * RESULT_TTL_MIN_LEASES);
                Duration::from_secs(ttl_s).max(least)
            }),
            concurrency: task.concurrency.map(|handlers| handlers.max(1)),
            max_running: task.max_running.map(|handlers| handlers.max(1)),
            priorities: task.priorities,
            rate: task.rate,
            lost_is_final: task.on_lost == Some(OnLost::Fail),
        }
    }

    /// The same with every wait between attempts scaled.
    pub(super) fn scaled(mut self, time_scale: TimeScale) -> Self {
        self.retry.initial_ms = time_scale.ms(self.retry.initial_ms);
        self.retry.max_ms = time_scale.ms(self.retry.max_ms);
        self.time_scale = time_scale;
        self
    }
}
