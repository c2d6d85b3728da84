//! Plugins that crash their child again and again by themselves: left out for a while, so that the others go on.
//!
//! A crash in a task counts against the task, and many against the plugin's version (`protocol`'s crash history); a crash in a
//! call costs that call. A plugin whose own thread crashes ends every child that loads it, whatever anybody asks of it. The
//! third time within [`WINDOW`] it is left out, then tried again; each time that it crashes a child after that, for twice as long.
//!
//! Invariants: only what a plugin does by itself counts: what happens while a task or a call of its own is in flight may be that
//! one's doing. What others cannot do without is not left out for long: a child that cannot start
//! for lack of it brings it back.
//!
//! What it refuses: it loads and ends nothing, and it forgets everything with its supervisor.

use super::CrashReport;
use super::control::Refusal;
use super::crash_report::Cause;
use crate::loader::Code;
use cardcage_protocol::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// So many crashes …
const CRASHES: usize = 3;
/// … within this time are a loop. A plugin that does without for so long begins anew.
const WINDOW: Duration = Duration::from_secs(600);
/// How long it is left out the first time.
const FIRST: Duration = Duration::from_secs(10);
/// The longest that it is left out.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
struct Loop {
    crashes: Vec<Instant>,
    /// How long it was left out the last time.
    wait: Option<Duration>,
    /// Until when it is or was, and what is said of it.
    out: Option<(Instant, Refusal)>,
}

impl Loop {
    /// Notes a crash; how long it is left out for it, if it is.
    fn wait_after(&mut self, now: Instant) -> Option<Duration> {
        if let (Some(wait), Some((back, _))) = (self.wait, &self.out) {
            if now.saturating_duration_since(*back) < WINDOW {
                return Some((wait * 2).min(LONGEST));
            }
            *self = Self::default();
        }
        self.crashes.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        self.crashes.push(now);
        (self.crashes.len() >= CRASHES).then_some(FIRST)
    }
}

/// What is remembered of crashes, by plugin.
#[derive(Debug, Default)]
pub(super) struct CrashLoops {
    plugins: BTreeMap<String, Loop>,
    /// Children did not start without what was left out.
    is_off: bool,
}

impl CrashLoops {
    /// Notes how a child died; answers how long the plugin whose doing it was is left out from now on, if it is.
    pub(super) fn note(&mut self, report: &CrashReport, now: Instant) -> Option<Duration> {
        let is_own = matches!(report.cause, Cause::Signal | Cause::Exit)
            && report.work.is_none()
            && !report.may_be_asked;
        let plugin = report.plugin.as_ref().filter(|_| is_own && !self.is_off)?;
        let known = self.plugins.entry(plugin.clone()).or_default();
        let wait = known.wait_after(now)?;
        known.wait = Some(wait);
        let refusal = refusal(plugin, report, wait);
        tracing::error!(
            plugin,
            version = report.version,
            left_out_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            reason = refusal.message,
            "a plugin crashes its child again and again; it is left out for a while"
        );
        known.out = Some((now + wait, refusal));
        Some(wait)
    }

    /// What is left out now.
    pub(super) fn out(&self, now: Instant) -> Vec<Refusal> {
        let out = self.plugins.values().filter_map(|known| known.out.as_ref());
        out.filter(|(until, _)| *until > now).map(|(_, refusal)| refusal.clone()).collect()
    }

    /// Leaves nothing out any more; false where nothing was.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let was_out = !self.out(now).is_empty();
        if was_out {
            tracing::error!(
                "no child starts without the plugin that was left out; it is loaded whatever it does"
            );
            self.plugins.clear();
            self.is_off = true;
        }
        was_out
    }
}

/// Whether the host may serve without a plugin that was refused so, even if it is required.
pub(super) fn is_for_a_while(refusal: &Refusal) -> bool {
    refusal.code == Code::CrashLoop.as_str()
}

fn refusal(plugin: &str, report: &CrashReport, wait: Duration) -> Refusal {
    let version = report.version.as_deref().unwrap_or_default();
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let until = Timestamp::now().plus_ms(wait_ms);
    let (how, file) = (&report.how, report.file.clone().unwrap_or_default());
    Refusal {
        plugin: plugin.to_owned(),
        code: Code::CrashLoop.as_str().to_owned(),
        message: format!(
            "{file}: {plugin} {version} crashes its child again and again, on a thread of its own (the last one {how}); it is left \
             out until {until} and tried again then; mend the plugin"
        ),
        file,
        required: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Work;

    fn crash(cause: Cause, work: Option<Work>) -> CrashReport {
        CrashReport {
            at: Timestamp::now(),
            seat: None,
            cause,
            how: "died of SIGABRT".into(),
            plugin: Some("chaos".into()),
            version: Some("1.2.3".into()),
            file: Some("libchaos.so".into()),
            work,
            library_offset: None,
            is_stack_overflow: false,
            may_be_asked: false,
        }
    }

    fn own() -> CrashReport {
        crash(Cause::Signal, None)
    }

    #[tokio::test(start_paused = true)]
    async fn third_crash_of_its_own_leaves_a_plugin_out_and_each_one_after_that_for_twice_as_long() {
        let (mut loops, start) = (CrashLoops::default(), Instant::now());
        assert_eq!((loops.note(&own(), start), loops.note(&own(), start)), (None, None));
        assert_eq!(loops.note(&own(), start), Some(FIRST));
        let out = loops.out(start);
        assert_eq!((out.len(), out[0].plugin.as_str(), out[0].required), (1, "chaos", false));
        assert!(
            out[0].message.contains("libchaos.so: chaos 1.2.3") && out[0].message.contains("SIGABRT"),
            "{}",
            out[0].message
        );
        assert!(loops.out(start + FIRST).is_empty(), "its time is over");
        // It crashes again as soon as it is back.
        let (mut now, mut seconds) = (start + FIRST, Vec::new());
        for _ in 0..8 {
            let wait = loops.note(&own(), now + Duration::from_secs(1)).unwrap();
            now += Duration::from_secs(1) + wait;
            seconds.push(wait.as_secs());
        }
        assert_eq!(seconds, [20, 40, 80, 160, 320, 600, 600, 600]);
        // For a while it does not, and begins anew.
        assert_eq!(loops.note(&own(), now + WINDOW), None);
    }

    #[tokio::test(start_paused = true)]
    async fn plugin_that_does_without_crashes_begins_anew() {
        let (mut loops, start) = (CrashLoops::default(), Instant::now());
        (0..2).for_each(|_| _ = loops.note(&own(), start));
        assert_eq!(loops.note(&own(), start + WINDOW), None, "those before are long ago");
        (0..2).for_each(|_| _ = loops.note(&own(), start + WINDOW));
        let later = start + 3 * WINDOW;
        assert_eq!((loops.note(&own(), later), loops.note(&own(), later)), (None, None));
        assert_eq!(loops.note(&own(), later), Some(FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn crashes_in_calls_and_tasks_and_kills_from_outside_are_not_the_plugins_own() {
        let (mut loops, now) = (CrashLoops::default(), Instant::now());
        let work = Work { kind: Some("route"), name: Some("call".into()), id: "7".into() };
        let beside_a_call = CrashReport { may_be_asked: true, ..own() };
        for report in [
            beside_a_call,
            crash(Cause::Signal, Some(work)),
            crash(Cause::Killed, None),
            crash(Cause::Memory, None),
        ] {
            assert!((0..9).all(|_| loops.note(&report, now).is_none()), "{report:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_child_starts_without_is_left_out_no_more() {
        let (mut loops, now) = (CrashLoops::default(), Instant::now());
        assert!(!loops.give_up(now), "nothing is left out");
        (0..3).for_each(|_| _ = loops.note(&own(), now));
        assert!(loops.give_up(now) && loops.out(now).is_empty());
        assert!((0..9).all(|_| loops.note(&own(), now).is_none()));
    }
}
