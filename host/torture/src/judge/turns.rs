//! Turns: of the tasks with one serial key one runs at a time.
//!
//! Told by the attempts that succeeded, for only they are known to have ended when the record says: one that was lost may have
//! been running on, stopped, beside what came after it.

use std::collections::BTreeMap;

use cardcage_protocol::{TaskId, Timestamp};

use super::{Evidence, Verdict};
use crate::submission::CLOCK_TOLERANCE_MS;

/// From when to when the successful attempt of a task ran.
type Span = (Timestamp, Timestamp, TaskId);

pub(super) fn judge(verdict: &mut Verdict, evidence: &Evidence) {
    for (key, mut spans) in spans(evidence) {
        spans.sort_unstable();
        // By when they ended, for a long one may overlap more than its next.
        let mut last: Option<Span> = None;
        for span in spans {
            if let Some((_, ended, before)) = last
                && span.0.plus_ms(CLOCK_TOLERANCE_MS) < ended
            {
                let (started, _, id) = span;
                verdict.corrupt.push(format!(
                    "{id} started at {started}, and {before}, which has the serial key {key} as well, ended at {ended}"
                ));
            }
            last = last.filter(|before| before.1 > span.1).or(Some(span));
        }
    }
}

fn spans(evidence: &Evidence) -> BTreeMap<&str, Vec<Span>> {
    let mut spans: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for entry in &evidence.entries {
        let Some(key) = entry.submission.serial() else { continue };
        let ends = entry.promised.iter().filter_map(|id| evidence.endings.get(id)?.first());
        let succeeded = ends.filter_map(|end| {
            let attempt = end.attempts.iter().find(|attempt| attempt.has_succeeded)?;
            Some((attempt.started_at, attempt.ended_at?, end.id))
        });
        spans.entry(key).or_default().extend(succeeded);
    }
    spans
}
