//! What a child's death means for each task that it held. Pure: the board and the death go in, a word for each comes out.
//!
//! A crash is one task's doing, and the others only shared its process. Who it was is known where the crashing thread
//! was polling it. Where it is not known, all that may have been it are suspects, and run again one at a time; the one
//! that is there when it happens again is the culprit.
//!
//! Invariant: a death counts against one task at most.
//!
//! What it refuses: to blame a task for a death that came from outside, or from a call.

use super::Death;
use crate::crash::{Entry, Polling};

/// What a child's death means for one thing that it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It crashed the child: counts towards the crash limit.
    Crashed,
    /// It may have: it runs again while no other suspect does.
    Suspected,
    /// It only shared the child: counts towards nothing.
    Interrupted,
    /// The child was ended from outside: counts towards the limit of losses, for it may have been its doing, as when
    /// memory ran out.
    Lost,
    /// It held its thread past its time limit, and only the child's end could end it.
    TimedOut,
    /// It was not started: no attempt.
    Unstarted,
}

/// What was being polled when the child died, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// The threads that were polling something.
    pub polling: Vec<Polling>,
    /// The thread whose fault or `exit` it was, if that is known.
    pub culprit: Option<u32>,
    /// The plugin whose code that thread ran, if that is known.
    pub plugin: Option<String>,
    /// A drain was under way.
    pub stopping: bool,
}

/// The fates of `entries`, in their order.
pub(super) fn fates(entries: &[Entry], scene: &Scene, death: &Death) -> Vec<Fate> {
    let blamed = if is_crash(death, scene.stopping) { suspects(entries, scene) } else { Vec::new() };
    let alone = blamed.iter().any(|entry| entry.kind == crate::crash::Kind::Suspect);
    let blames = |entry: &Entry| blamed.iter().any(|one| one.id == entry.id);
    let known = blamed.len() == 1 || alone;
    // One at most: suspects run one at a time, and a board that says otherwise was scribbled on.
    let mut named = false;
    let fate = |entry: &Entry| {
        if entry.attempt == 0 {
            return Fate::Unstarted;
        }
        if !blames(entry) {
            return if is_outside(death, scene.stopping) { Fate::Lost } else { Fate::Interrupted };
        }
        match known {
            false => Fate::Suspected,
            true if !named && (!alone || entry.kind == crate::crash::Kind::Suspect) => {
                named = true;
                Fate::Crashed
            }
            true => Fate::Interrupted,
        }
    };
    entries.iter().map(fate).collect()
}

/// The tasks that may have been it.
fn suspects<'a>(entries: &'a [Entry], scene: &Scene) -> Vec<&'a Entry> {
    let tasks = || entries.iter().filter(|entry| entry.kind.is_task() && entry.attempt > 0);
    let polled = |entry: &&Entry| scene.polling.iter().any(|thread| thread.id == entry.id);
    let by_culprit = scene.culprit.map(|tid| scene.polling.iter().find(|thread| thread.tid == tid));
    match by_culprit {
        // What it polled is a task here; or it is a call, or was given up, and then no task is to blame.
        Some(Some(thread)) => tasks().filter(|entry| entry.id == thread.id).collect(),
        // A thread that a plugin started for itself.
        Some(None) => {
            let plugin = scene.plugin.as_ref();
            tasks().filter(|entry| plugin.is_none_or(|plugin| entry.plugin == *plugin)).collect()
        }
        // Nobody could note it, as where a plugin has put a signal handler of its own in the place of ours.
        None if scene.polling.is_empty() => tasks().collect(),
        None => tasks().filter(polled).collect(),
    }
}

/// Whether something in the child ended it.
fn is_crash(death: &Death, stopping: bool) -> bool {
    const OWN: [&str; 7] = ["SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS", "SIGABRT"];
    match death {
        Death::Signalled(name) => OWN.contains(&name.as_str()),
        // A drain ends in an exit too.
        Death::Exited(_) => !stopping,
        Death::Killed(_) | Death::OutOfMemory => false,
    }
}

/// Whether somebody else ended it, and not at the end of a drain.
fn is_outside(death: &Death, stopping: bool) -> bool {
    !stopping && !is_crash(death, stopping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Kind;

    fn entry(kind: Kind, n: u8, attempt: u32) -> Entry {
        Entry {
            kind,
            id: [n; 16],
            subject: format!("ack.{n}"),
            plugin: "orders".into(),
            name: "fulfil".into(),
            attempt,
            hard_deadline_unix_ms: 1,
            since_unix_ms: 0,
        }
    }

    fn scene(polling: &[(u32, u8)], culprit: Option<u32>) -> Scene {
        let polling = polling.iter().map(|(tid, n)| Polling { tid: *tid, plugin: 1, id: [*n; 16], poll: 1 });
        Scene { polling: polling.collect(), culprit, ..Scene::default() }
    }

    fn segv() -> Death {
        Death::Signalled("SIGSEGV".into())
    }

    fn three() -> [Entry; 4] {
        let task = |n| entry(Kind::Task, n, 1);
        [task(1), task(2), entry(Kind::Call, 3, 0), entry(Kind::Task, 4, 0)]
    }

    use Fate::{Crashed, Interrupted, Lost, Suspected, Unstarted};

    #[test]
    fn crash_counts_against_what_the_crashing_thread_polled_and_the_others_are_interrupted() {
        let seen = scene(&[(10, 1), (11, 2)], Some(11));
        assert_eq!(fates(&three(), &seen, &segv()), [Interrupted, Crashed, Unstarted, Unstarted]);
        assert_eq!(fates(&three(), &seen, &Death::Exited(0))[1], Crashed);
    }

    #[test]
    fn crash_in_a_call_counts_against_no_task() {
        let seen = scene(&[(10, 1), (11, 3)], Some(11));
        assert_eq!(fates(&three(), &seen, &segv())[..2], [Interrupted, Interrupted]);
    }

    #[test]
    fn what_ran_when_nobody_polled_it_is_suspected_and_the_only_one_is_the_culprit() {
        for seen in [scene(&[], None), scene(&[], Some(99)), scene(&[(10, 1), (11, 2)], None)] {
            assert_eq!(fates(&three(), &seen, &segv()), [Suspected, Suspected, Unstarted, Unstarted]);
        }
        assert_eq!(fates(&three()[1..], &scene(&[], Some(99)), &segv())[0], Crashed);
        assert_eq!(fates(&three(), &scene(&[(10, 2)], None), &segv())[..2], [Interrupted, Crashed]);
    }

    #[test]
    fn a_thread_that_a_plugin_started_makes_suspects_of_that_plugins_tasks_only() {
        let mut entries = three();
        entries[1].plugin = "payments".into();
        let of = |plugin: &str| Scene { plugin: Some(plugin.into()), ..scene(&[(10, 1)], Some(99)) };
        assert_eq!(fates(&entries, &of("payments"), &segv())[..2], [Interrupted, Crashed]);
        assert_eq!(fates(&entries, &of("hello"), &segv())[..2], [Interrupted, Interrupted]);
        entries[0].kind = Kind::Suspect;
        assert_eq!(
            fates(&entries, &of("payments"), &segv())[..2],
            [Interrupted, Crashed],
            "it is of another"
        );
        // The culprit polled a task: where its instruction lay says nothing of others.
        let polled = Scene { plugin: Some("payments".into()), ..scene(&[(10, 1)], Some(10)) };
        assert_eq!(fates(&entries, &polled, &segv())[..2], [Crashed, Interrupted]);
    }

    #[test]
    fn suspect_that_runs_when_it_happens_again_is_the_culprit() {
        let mut entries = three();
        entries[1].kind = Kind::Suspect;
        assert_eq!(fates(&entries, &scene(&[], Some(99)), &segv())[..2], [Interrupted, Crashed]);
        // Unless the crashing thread was polling another one.
        assert_eq!(fates(&entries, &scene(&[(7, 1)], Some(7)), &segv())[..2], [Crashed, Interrupted]);
    }

    #[test]
    fn a_kill_from_outside_is_a_loss_and_the_end_of_a_drain_interrupts() {
        let kill = Death::Signalled("SIGKILL".into());
        let mut seen = scene(&[(10, 1)], None);
        assert_eq!(fates(&three(), &seen, &kill)[..2], [Lost, Lost]);
        seen.stopping = true;
        for death in [kill, Death::Exited(75), Death::Killed("did not finish within the grace")] {
            assert_eq!(fates(&three(), &seen, &death)[..2], [Interrupted, Interrupted]);
        }
        seen.culprit = Some(10);
        assert_eq!(fates(&three(), &seen, &segv())[0], Crashed, "a crash stays one");
    }
}
