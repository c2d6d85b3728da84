//! Schedules: tasks that the broker starts, again and again, whether or not any host runs.
//!
//! ```
//! # use plugin_api::prelude::*;
//! # #[derive(Clone)] struct App;
//! # #[derive(Serialize, Deserialize, JsonSchema)] struct Reconcile { days: u32 }
//! # /// Compares.
//! # #[task] async fn reconcile(_ctx: TaskContext<App>, _body: Reconcile) -> TaskResult<()> { Ok(()) }
//! # let plugin = Plugin::new(|_| async { Ok(App) });
//! plugin
//!     .task(reconcile)
//!     .schedule("hourly", Schedule::every("1h").overlap(Overlap::Skip), reconcile, Reconcile { days: 1 })
//!     .schedule(
//!         "nightly",
//!         Schedule::cron("0 30 2 * * *").time_zone("Europe/Berlin").missed(Missed::RunOnce),
//!         reconcile,
//!         Reconcile { days: 30 },
//!     )
//! # ;
//! ```
//!
//! Mistakes are the host's to find: a library whose schedules are wrong is refused in one sentence, and `cardcage check`
//! says the same.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// When a schedule fires, and what becomes of a slot that cannot run as planned.
#[derive(Debug, Clone)]
pub struct Schedule {
    every: Option<String>,
    cron: Option<String>,
    time_zone: Option<String>,
    overlap: Overlap,
    missed: Missed,
}

/// What becomes of a slot while the task of an earlier one has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// Its task is queued all the same.
    Queue,
}

/// What becomes of slots that no worker took up in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The last of them is made up for, the others are left out.
    #[default]
    RunOnce,
    /// They are left out.
    Skip,
}

impl Schedule {
    fn new(every: Option<String>, cron: Option<String>) -> Self {
        Self { every, cron, time_zone: None, overlap: Overlap::default(), missed: Missed::default() }
    }

    /// Fires at an interval of at least a second, such as `90s`, `5m` or `1h30m`, counted from when it is first declared.
    pub fn every(interval: impl Into<String>) -> Self {
        Self::new(Some(interval.into()), None)
    }

    /// Fires at the times of a cron expression with six fields: second, minute, hour, day, month, weekday; in UTC unless
    /// [`Schedule::time_zone`] says otherwise.
    pub fn cron(expression: impl Into<String>) -> Self {
        Self::new(None, Some(expression.into()))
    }

    /// Whose clocks the cron expression means, such as `Europe/Berlin`.
    pub fn time_zone(mut self, name: impl Into<String>) -> Self {
        self.time_zone = Some(name.into());
        self
    }

    /// What becomes of a slot while the task of an earlier one has not ended; [`Overlap::Skip`] unless stated.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// What becomes of slots that no worker took up in time; [`Missed::RunOnce`] unless stated.
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    pub(crate) fn describe(&self, name: &str, task: &str, body: impl Serialize) -> Value {
        let (body, fault) = match serde_json::to_value(body) {
            Ok(body) => (body, None),
            Err(error) => (Value::Null, Some(error.to_string())),
        };
        json!({
            "name": name,
            "task": task,
            "every": self.every,
            "cron": self.cron,
            "time_zone": self.time_zone,
            "overlap": self.overlap,
            "missed": self.missed,
            "body": body,
            "body_fault": fault,
        })
    }
}
