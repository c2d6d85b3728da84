//! What was really done, which may be less than was planned.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::{Blow, Step, Target};

/// One blow that met its target.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) at: Duration,
    pub(crate) step: Step,
    /// Which of several was met.
    pub(crate) name: String,
}

/// How many kills met each target.
pub(crate) fn kills(deeds: &[Deed]) -> BTreeMap<Target, u64> {
    let mut kills = BTreeMap::new();
    for deed in deeds.iter().filter(|deed| matches!(deed.step.blow, Blow::Kill(_))) {
        *kills.entry(deed.step.target).or_default() += 1;
    }
    kills
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let child = matches!(self.step.target, Target::WorkerChild | Target::ApiChild);
        let what = match self.step.blow {
            Blow::Kill(away) if away.is_zero() => "killed".to_owned(),
            Blow::Kill(away) => format!("killed, away for {} ms,", away.as_millis()),
            Blow::Stop(still) => format!("stopped for {} ms", still.as_millis()),
            Blow::Drain => "drained".to_owned(),
        };
        let of = if child { "the child of " } else { "" };
        write!(f, "{:.1} s: {what} {of}{}", self.at.as_secs_f64(), self.name)
    }
}
