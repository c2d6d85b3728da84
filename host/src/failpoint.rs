//! Dies where a test says, so that what happens between any two writes can be seen to end well.
//!
//! A signal from outside comes at a moment that nobody chose; two writes to a broker lie microseconds apart. So the
//! places between them have names, and in a debug build `CARDCAGE_FAILPOINT=<name>[:<n>][@child]` makes the process end itself
//! with SIGKILL when it comes there for the `n`th time (the first, where nothing is said). A child takes its supervisor
//! with it, which could otherwise put things right: what is left is the broker and other workers. With `@child` behind all
//! that, only the child dies, and what its supervisor puts right is seen.
//!
//! Invariants: nothing is flushed, answered or cleaned up on the way out, exactly as when the machine does it; in a release
//! build this room is empty, whatever the environment says.

/// A place between two writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Point {
    /// The turn of a delivery's serial key is about to be asked for.
    BeforeTurn,
    /// It stands that a delivery's attempt is begun, and the board does not say so yet.
    BeforeStart,
    /// A delivery's decision stands, and its record is about to be written.
    BeforeRecord,
    /// The record is stored, and nothing that it owes.
    AfterRecord,
    /// One of the children is stored.
    AfterChild,
    /// One of the publishes that the record owes is stored.
    AfterFollowUp,
    /// All that the record owes is stored, and the task's keys are still its own.
    BeforeRelease,
    /// The task's unique key is released, and the turn of its serial key is not yet passed on.
    AfterUniqueRelease,
    /// A serial key's lock names the next task, which still stands in its line.
    AfterTurnPassed,
    /// A task whose turn it is stands in its queue, and in its line as well.
    AfterPutBack,
    /// A task stands in the line of its serial key, and in its queue as well.
    AfterLinedUp,
    /// All that the record owes is stored, and the delivery is about to be acknowledged.
    BeforeAck,
    /// A task whose time has come stands in its queue, and in the schedule as well.
    AfterDuePublished,
    /// A schedule's slot is remembered as its last firing, and its task is not yet published.
    AfterSlotRemembered,
    /// A slot's task is published, and its firing is about to be acknowledged.
    AfterSlotPublished,
    /// The broker has messages of a batch, and not the last one.
    InBatch,
    /// A parked task's record says that it is queued, and it is not yet.
    UnparkedRecord,
    /// A parked task stands in its queue, and is parked as well.
    UnparkedPublish,
}

impl Point {
    /// Its name in the environment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeTurn => "before_turn",
            Self::BeforeStart => "before_start",
            Self::BeforeRecord => "before_record",
            Self::AfterRecord => "after_record",
            Self::AfterChild => "after_child",
            Self::AfterFollowUp => "after_follow_up",
            Self::BeforeRelease => "before_release",
            Self::AfterUniqueRelease => "after_unique_release",
            Self::AfterTurnPassed => "after_turn_passed",
            Self::AfterPutBack => "after_put_back",
            Self::AfterLinedUp => "after_lined_up",
            Self::BeforeAck => "before_ack",
            Self::AfterDuePublished => "after_due_published",
            Self::AfterSlotRemembered => "after_slot_remembered",
            Self::AfterSlotPublished => "after_slot_published",
            Self::InBatch => "in_batch",
            Self::UnparkedRecord => "unparked_record",
            Self::UnparkedPublish => "unparked_publish",
        }
    }
}

/// The process is at `point`. It does not return where that is the armed one.
#[inline]
pub fn reach(point: Point) {
    #[cfg(debug_assertions)]
    armed::reach(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
mod armed {
    use super::Point;
    use crate::process::SUBCOMMAND;
    use rustix::process::{Signal, getpid, getppid, kill_process};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    const VARIABLE: &str = "CARDCAGE_FAILPOINT";

    struct Armed {
        name: String,
        /// How many more times it is passed, this one included.
        left: AtomicU32,
        only_child: bool,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, times, only_child) = parse(&text);
        Some(Armed { name: name.to_owned(), left: AtomicU32::new(times), only_child })
    });

    /// The point's name, which time it is, and whether only a child dies.
    pub(super) fn parse(text: &str) -> (&str, u32, bool) {
        let (text, only_child) = text.strip_suffix("@child").map_or((text, false), |text| (text, true));
        match text.split_once(':').and_then(|(name, times)| Some((name, times.parse().ok()?))) {
            Some((name, times)) => (name, times, only_child),
            None => (text, 1, only_child),
        }
    }

    pub(super) fn reach(point: Point) {
        let Some(armed) = &*ARMED else { return };
        if armed.name == point.name() && armed.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            die(armed.only_child);
        }
    }

    fn die(only_child: bool) {
        // A signal that cannot be sent leaves a process that the test sees running.
        if !only_child
            && std::env::args().nth(1).as_deref() == Some(SUBCOMMAND)
            && let Some(supervisor) = getppid()
        {
            let _ = kill_process(supervisor, Signal::KILL);
        }
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::parse;

    #[test]
    fn point_is_the_first_time_unless_it_says_which() {
        assert_eq!(parse("after_record"), ("after_record", 1, false));
        assert_eq!(parse("after_follow_up:3"), ("after_follow_up", 3, false));
        assert_eq!(parse("before_start:2@child"), ("before_start", 2, true));
    }
}
