//! What is said of a child that did not end as it should: why, by whose doing, and where. Pure: the board and the death go
//! in, words come out.
//!
//! The plugin is known for certain where the instruction that faulted lies in its library, or where the thread that died was
//! polling one of its handlers. Else the nearest return address on that thread's stack names it, which is how a plugin's
//! own threads are told, and calls of `abort` and `exit`.
//!
//! Invariant: what it says decides nothing; which task a crash counts against is `fate`'s business.

use super::life::OVER_CEILING;
use super::started::{Begun, Started};
use super::{Death, Fate, Scene, Seat};
use crate::crash::{Board, Entry, Fault, Place};
use cardcage_protocol::Timestamp;
use serde::Serialize;

/// Why a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A fault: a signal that its own doing brought upon it.
    Signal,
    /// Something in it called `exit`.
    Exit,
    /// The kernel, or its memory ceiling, because of the memory that it used.
    Memory,
    /// Somebody sent it a signal.
    Killed,
    /// Its supervisor, for another reason.
    Supervisor,
}

impl Cause {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Exit => "exit",
            Self::Memory => "memory",
            Self::Killed => "killed",
            Self::Supervisor => "supervisor",
        }
    }
}

/// What the thread that died was polling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Work {
    /// `route` or `task`; unknown where it is not in flight any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The name of the route or task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The request's or the task's id.
    pub id: String,
}

/// How a child ended, and by whose doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CrashReport {
    /// When, by this machine's clock.
    pub at: Timestamp,
    /// Which process of which worker group, where there are groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seat: Option<Seat>,
    /// Why.
    pub cause: Cause,
    /// In words: "died of SIGSEGV".
    pub how: String,
    /// The plugin whose doing it was, where that is known.
    pub plugin: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The path of its library.
    #[serde(skip)]
    pub file: Option<String>,
    /// What the thread that died was polling, where it was.
    pub work: Option<Work>,
    /// Where in the plugin's library the fault lies, or what called where it lies: for `addr2line`.
    pub library_offset: Option<String>,
    /// Whether the thread had used up its stack.
    pub is_stack_overflow: bool,
    /// Whether something that was asked of the plugin may have done it, from whatever thread: a task, or a call.
    #[serde(skip)]
    pub may_be_asked: bool,
}

/// What a dead child's board says of the fault.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wound {
    fault: Option<Fault>,
    /// The library that the instruction lies in.
    pub(super) at: Option<Place>,
    /// The library that the nearest return address lies in.
    pub(super) from: Option<Place>,
}

impl Wound {
    /// Reads it; before the board is emptied.
    pub(super) fn of(board: &Board) -> Self {
        let fault = board.fault();
        let place = |address: u64| Some(address).filter(|at| *at != 0).and_then(|at| board.library_at(at));
        Self {
            fault,
            at: fault.and_then(|fault| place(fault.pc)),
            from: fault.and_then(|fault| place(fault.caller)),
        }
    }

    /// The plugin in whose library it happened, or that called where it happened.
    pub(super) fn plugin<'a>(&self, begun: &'a Started) -> Option<&'a Begun> {
        begun.numbered(self.at.or(self.from)?.plugin)
    }
}

/// What is to be said of the death.
pub(super) fn report(
    death: &Death,
    scene: &Scene,
    wound: &Wound,
    entries: &[Entry],
    fates: &[Fate],
    begun: &Started,
) -> CrashReport {
    let polled = scene.culprit.and_then(|tid| scene.polling.iter().find(|thread| thread.tid == tid));
    let entry = polled.and_then(|thread| entries.iter().find(|entry| entry.id == thread.id));
    let index = wound.at.map(|place| place.plugin).or(polled.map(|thread| thread.plugin));
    let plugin = index
        .and_then(|number| begun.numbered(number))
        .or_else(|| entry.and_then(|entry| begun.named(&entry.plugin)))
        .or_else(|| wound.from.and_then(|place| begun.numbered(place.plugin)));
    let is_of = |place: &Place| plugin.is_some() && begun.numbered(place.plugin) == plugin;
    let is_asked = |entry: &Entry| !entry.kind.is_task() || entry.attempt > 0;
    let of_it = |entry: &&Entry| plugin.is_some_and(|plugin| plugin.name == entry.plugin);
    let is_blamed = fates.iter().any(|fate| matches!(fate, Fate::Crashed | Fate::Suspected));
    let place = wound.at.or(wound.from).filter(is_of);
    CrashReport {
        at: Timestamp::now(),
        seat: None,
        cause: cause(death),
        how: death.to_string(),
        plugin: plugin.map(|plugin| plugin.name.clone()),
        version: plugin.map(|plugin| plugin.version.clone()),
        file: plugin.map(|plugin| plugin.file.clone()),
        work: polled.map(|thread| work(thread.id, entry)),
        library_offset: place.map(|place| format!("{:#x}", place.offset)),
        is_stack_overflow: wound.fault.is_some_and(|fault| fault.is_stack_overflow()),
        may_be_asked: is_blamed || entries.iter().filter(of_it).any(is_asked),
    }
}

/// Ids as the other logs write them.
fn work(id: [u8; 16], entry: Option<&Entry>) -> Work {
    let id = uuid::Uuid::from_bytes(id);
    let kind = entry.map(|entry| if entry.kind.is_task() { "task" } else { "route" });
    let id = if kind == Some("task") { id.to_string() } else { id.simple().to_string() };
    Work { kind, name: entry.map(|entry| entry.name.clone()), id }
}

fn cause(death: &Death) -> Cause {
    match death {
        Death::Exited(_) => Cause::Exit,
        Death::OutOfMemory => Cause::Memory,
        Death::Killed(why) if *why == OVER_CEILING => Cause::Memory,
        Death::Killed(_) => Cause::Supervisor,
        Death::Signalled(name) => match name.as_str() {
            "SIGKILL" | "SIGTERM" | "SIGINT" | "SIGHUP" | "SIGQUIT" => Cause::Killed,
            _ => Cause::Signal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::{Kind, Polling};

    fn plugins() -> Started {
        Started::from_iter([(1, "hello"), (2, "chaos")])
    }

    fn entry(kind: Kind, n: u8) -> Entry {
        Entry {
            kind,
            id: [n; 16],
            subject: String::new(),
            plugin: "chaos".into(),
            name: "fulfil".into(),
            attempt: 1,
            hard_deadline_unix_ms: 0,
            since_unix_ms: 0,
        }
    }

    fn scene(culprit: Option<u32>) -> Scene {
        let thread = |tid, plugin, n| Polling { tid, plugin, id: [n; 16], poll: 1 };
        Scene { polling: vec![thread(10, 1, 1), thread(11, 2, 2)], culprit, ..Scene::default() }
    }

    fn wound(at: Option<u32>, from: Option<u32>) -> Wound {
        let place = |plugin| Place { plugin, offset: 0x1234 };
        Wound { fault: Some(Fault::default()), at: at.map(place), from: from.map(place) }
    }

    fn told(scene: &Scene, wound: &Wound, entries: &[Entry]) -> CrashReport {
        report(&Death::Signalled("SIGSEGV".into()), scene, wound, entries, &[], &plugins())
    }

    #[test]
    fn plugin_handler_and_id_come_from_what_the_thread_that_died_was_polling() {
        let entries = [entry(Kind::Task, 1), entry(Kind::Task, 2), entry(Kind::Inline, 3)];
        let report = told(&scene(Some(11)), &wound(Some(2), None), &entries);
        assert_eq!((report.plugin.as_deref(), report.version.as_deref()), (Some("chaos"), Some("1.2.3")));
        let id = "02020202-0202-0202-0202-020202020202".to_owned();
        assert_eq!(report.work, Some(Work { kind: Some("task"), name: Some("fulfil".into()), id }));
        assert_eq!(report.library_offset.as_deref(), Some("0x1234"));
        let entries = [entry(Kind::Inline, 2)];
        let work = told(&scene(Some(11)), &wound(None, None), &entries).work.unwrap();
        assert_eq!((work.kind, work.id.len()), (Some("route"), 32), "as requests are logged");
        let work = told(&scene(Some(11)), &wound(None, None), &[]).work.unwrap();
        assert_eq!((work.kind, work.name), (None, None), "it was given up before");
    }

    #[test]
    fn a_thread_that_polls_nothing_is_told_by_its_instruction_or_by_what_called_it() {
        for wound in [wound(Some(2), None), wound(None, Some(2)), wound(Some(2), Some(1))] {
            let report = told(&scene(Some(99)), &wound, &[]);
            assert_eq!((report.plugin.as_deref(), report.work), (Some("chaos"), None));
            assert!(report.library_offset.is_some());
        }
        let nobody = told(&scene(None), &Wound::default(), &[]);
        assert_eq!((nobody.plugin, nobody.work, nobody.library_offset), (None, None, None));
    }

    #[test]
    fn what_was_asked_of_the_plugin_that_is_named_may_have_done_it_from_another_thread() {
        let mut unstarted = entry(Kind::Task, 3);
        unstarted.attempt = 0;
        let of_another = Entry { plugin: "hello".into(), ..entry(Kind::Call, 4) };
        for (entries, may_be) in [
            (vec![], false),
            (vec![unstarted, of_another], false),
            (vec![entry(Kind::Call, 3)], true),
            (vec![entry(Kind::Inline, 3)], true),
            (vec![entry(Kind::Task, 3)], true),
        ] {
            let report = told(&scene(Some(99)), &wound(Some(2), None), &entries);
            assert_eq!(
                (report.plugin.as_deref(), report.may_be_asked),
                (Some("chaos"), may_be),
                "{entries:?}"
            );
        }
    }

    #[test]
    fn an_offset_is_told_only_of_the_library_of_the_plugin_that_is_named() {
        // It polled chaos, in the C library; below on its stack lies an old address of hello's.
        let report = told(&scene(Some(11)), &wound(None, Some(1)), &[]);
        assert_eq!((report.plugin.as_deref(), report.library_offset), (Some("chaos"), None));
    }

    #[test]
    fn kills_for_memory_by_somebody_and_by_the_supervisor_have_causes_of_their_own() {
        let signalled = |name: &str| cause(&Death::Signalled(name.into()));
        assert_eq!((signalled("SIGABRT"), signalled("SIGKILL")), (Cause::Signal, Cause::Killed));
        assert_eq!((cause(&Death::OutOfMemory), cause(&Death::Exited(0))), (Cause::Memory, Cause::Exit));
        assert_eq!(cause(&Death::Killed("hung")), Cause::Supervisor);
        assert_eq!(cause(&Death::Killed(OVER_CEILING)), Cause::Memory);
    }
}
