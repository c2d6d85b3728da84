//! Whether a handler may be polled on a thread that the host lends.
//!
//! The hop to the plugin's own runtime and back costs two wake-ups, which is most of what a short handler costs.
//! Polling it on the thread that brings the request saves both, but a handler that blocks there blocks a thread of
//! the host. So a lane must earn it: only handlers that ended with their first poll, in a short time and many times
//! in a row, are polled in place, and one that blocks goes back for a long while.
//!
//! On a busy machine a short poll takes long when its thread must wait for a processor. That is not the handler's
//! doing, and the kernel knows: for how long the thread waited for a processor does not count, and one that never
//! switched off by its own wish did not wait for anything else. To ask costs system calls before each poll, so the kernel is
//! asked only about lanes where a poll has just been slow: for long what costs one call, and for a short while, or as long as
//! it matters, also how long the thread waited, which is read from a file and costs several times as much.
//!
//! # Invariants
//! * Each handler begins on the plugin's own threads.
//! * A race between two polls loses a point at most; the score is a habit, not a count.
//!
//! # What it refuses
//! It cannot interrupt a poll. The host lends only as many threads as it can do without, and lends none while one
//! of them is held up.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Short first polls in a row before a lane is trusted.
const PROBATION: i32 = 64;
/// The score above which nothing is gained.
const TRUSTED: i32 = 512;
/// A poll that takes longer is not short. What is saved is some ten microseconds. In a debug build the SDK alone takes
/// up to half a millisecond for what takes two microseconds in a release build.
const SHORT: Duration =
    if cfg!(debug_assertions) { Duration::from_millis(5) } else { Duration::from_micros(500) };
/// What a poll costs that computes for longer than that.
const SLOW_COSTS: i32 = 50;
/// A poll that takes longer, and waited or computed meanwhile, has blocked its thread.
const BLOCKED: Duration = Duration::from_millis(20);
/// Short first polls before a lane that was found blocking is trusted again.
const PENANCE: i32 = 10_000;
/// A poll that takes so long is found blocking without a look at what its thread did.
const HOPELESS: Duration = Duration::from_secs(1);
/// For so many polls after a slow one the kernel is asked.
const WATCHED: i32 = 5_000;
/// For so many of them it is also asked how long the thread waited for a processor,
const WEIGHED: i32 = 64;
/// and for so many after one that cannot be judged without.
const WEIGHED_LONG: i32 = 1_000;

/// A handler's habit.
#[derive(Debug)]
pub(super) struct Lane {
    /// Above or at zero: short. Below: so many short polls are missing.
    score: AtomicI32,
    /// So many more polls are watched.
    watched: AtomicI32,
    /// Of so many more it is known how long they waited for a processor.
    weighed: AtomicI32,
}

impl Default for Lane {
    fn default() -> Self {
        let none = || AtomicI32::new(0);
        Self { score: AtomicI32::new(-PROBATION), watched: none(), weighed: none() }
    }
}

/// A handler's first poll, under way.
pub(super) struct FirstPoll<'a> {
    lane: &'a Lane,
    began: Instant,
    before: Option<Before>,
}

/// What the kernel knew of the thread before a poll that is watched.
struct Before {
    usage: Usage,
    queued: Queued,
}

/// For how long the thread had waited for a processor.
#[derive(Debug, Clone, Copy)]
enum Queued {
    /// Nobody asked.
    Unasked,
    /// The kernel does not tell.
    Untold,
    Nanoseconds(u64),
}

/// What a thread did during a poll.
#[derive(Debug, Clone, Copy)]
struct Took {
    time: Duration,
    /// Whether it waited for something, or computed for all that time; `None` where nobody watched.
    by_itself: Option<bool>,
    ended: bool,
}

impl Lane {
    /// Whether the handler may be polled in place.
    pub(super) fn is_trusted(&self) -> bool {
        self.score.load(Ordering::Relaxed) >= 0
    }

    /// To be called before a handler's first poll, wherever it is polled.
    pub(super) fn first_poll(&self) -> FirstPoll<'_> {
        let before = take_one(&self.watched).then(|| {
            let queued = if take_one(&self.weighed) { queued() } else { Queued::Unasked };
            Some(Before { usage: getrusage(UsageWho::RUSAGE_THREAD).ok()?, queued })
        });
        FirstPoll { lane: self, began: Instant::now(), before: before.flatten() }
    }

    /// From now on it is watched, and so many polls are weighed.
    fn watch(&self, weighed: i32) {
        self.watched.store(WATCHED, Ordering::Relaxed);
        self.weighed.fetch_max(weighed, Ordering::Relaxed);
    }

    fn note(&self, took: Took) {
        let score = self.score.load(Ordering::Relaxed);
        let next = match took.by_itself {
            _ if took.time >= HOPELESS => -PENANCE,
            Some(true) if took.time >= BLOCKED => -PENANCE,
            Some(true) if took.time >= SHORT => score - SLOW_COSTS,
            // Nobody looked, or it waited for a processor.
            _ if took.time >= SHORT => return,
            // In place it would be polled for nothing.
            _ if !took.ended => score - 1,
            _ if score < TRUSTED => score + 1,
            _ => return,
        };
        let lost_trust = score >= 0 && next < 0;
        let next = if lost_trust { next.min(-PROBATION) } else { next.max(-PENANCE) };
        self.score.store(next, Ordering::Relaxed);
    }
}

impl FirstPoll<'_> {
    /// To be called after it.
    pub(super) fn over(self, ended: bool) {
        let mut time = self.began.elapsed();
        let mut by_itself = None;
        if time >= SHORT {
            let after =
                self.before.and_then(|before| Some((before, getrusage(UsageWho::RUSAGE_THREAD).ok()?)));
            let mut weighed = WEIGHED;
            if let Some((before, after)) = after {
                let computed = computed(&after).saturating_sub(computed(&before.usage)) >= SHORT;
                let waited = after.voluntary_context_switches() != before.usage.voluntary_context_switches();
                by_itself = Some(computed || waited);
                match before.queued {
                    Queued::Nanoseconds(before) => {
                        if let Queued::Nanoseconds(after) = queued() {
                            time = time.saturating_sub(Duration::from_nanos(after.wrapping_sub(before)));
                        }
                    }
                    // It waited, and for what is told by the time that it did not wait for a processor.
                    Queued::Unasked if waited && !computed => (by_itself, weighed) = (None, WEIGHED_LONG),
                    Queued::Unasked | Queued::Untold => {}
                }
            }
            self.lane.watch(weighed);
        }
        self.lane.note(Took { time, by_itself, ended });
    }
}

/// Takes one of what is left, and says whether there was one. Of two at once both may get the last one.
fn take_one(left: &AtomicI32) -> bool {
    let now = left.load(Ordering::Relaxed);
    if now > 0 {
        left.store(now - 1, Ordering::Relaxed);
    }
    now > 0
}

fn computed(usage: &Usage) -> Duration {
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
}

/// For how long this thread has waited for a processor in its life: the second number of `schedstat`, in nanoseconds
/// (Linux, Documentation/scheduler/sched-stats). The file stays open as long as the thread lives, for to open it costs more
/// than all the rest.
fn queued() -> Queued {
    thread_local! {
        static SCHEDSTAT: OnceCell<Option<File>> = const { OnceCell::new() };
    }
    let read = |file: &File| {
        let mut numbers = [0; 64];
        let length = file.read_at(&mut numbers, 0).ok()?;
        std::str::from_utf8(numbers.get(..length)?).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    // A thread that ends has no more to tell.
    let told = SCHEDSTAT.try_with(|file| {
        file.get_or_init(|| File::open("/proc/thread-self/schedstat").ok()).as_ref().and_then(read)
    });
    told.ok().flatten().map_or(Queued::Untold, Queued::Nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(lane: &Lane, ended: bool) {
        lane.note(Took { time: Duration::from_micros(3), by_itself: None, ended });
    }

    fn slow(lane: &Lane, time: Duration, by_itself: bool) {
        lane.note(Took { time, by_itself: Some(by_itself), ended: true });
    }

    fn trusted() -> Lane {
        let lane = Lane::default();
        (0..TRUSTED).for_each(|_| quick(&lane, true));
        assert!(lane.is_trusted());
        lane
    }

    #[test]
    fn a_lane_earns_trust_by_short_polls_that_end_the_handler() {
        let lane = Lane::default();
        assert!(!lane.is_trusted());
        (1..PROBATION).for_each(|_| quick(&lane, true));
        assert!(!lane.is_trusted());
        quick(&lane, true);
        assert!(lane.is_trusted());
    }

    #[test]
    fn a_handler_that_waits_is_never_trusted() {
        let lane = Lane::default();
        (0..100_000).for_each(|_| quick(&lane, false));
        assert!(!lane.is_trusted());
    }

    #[test]
    fn one_blocking_poll_loses_trust_for_long() {
        let lane = trusted();
        slow(&lane, BLOCKED, true);
        (1..PENANCE).for_each(|_| quick(&lane, true));
        assert!(!lane.is_trusted());
        quick(&lane, true);
        assert!(lane.is_trusted());
    }

    #[test]
    fn rare_long_polls_are_forgiven_and_frequent_ones_are_not() {
        let long_one_in = |n: i32| {
            let lane = Lane::default();
            let mut in_place = 0;
            for i in 0..100_000 {
                in_place += i32::from(lane.is_trusted());
                if i % n == 0 { slow(&lane, SHORT, true) } else { quick(&lane, true) }
            }
            in_place
        };
        assert!(long_one_in(1_000) > 99_000);
        assert!(long_one_in(20) < 10_000);
    }

    #[test]
    fn waiting_for_a_processor_costs_nothing() {
        let lane = trusted();
        (0..1_000).for_each(|_| slow(&lane, BLOCKED, false));
        assert!(lane.is_trusted());
    }

    #[test]
    fn a_thread_that_sleeps_is_told_from_one_that_does_not() {
        let poll = |what: &dyn Fn()| {
            let lane = trusted();
            lane.watch(1);
            let first = lane.first_poll();
            what();
            first.over(true);
            lane.is_trusted()
        };
        assert!(!poll(&|| std::thread::sleep(2 * BLOCKED)));
        assert!(!poll(&|| {
            let began = Instant::now();
            while began.elapsed() < HOPELESS {}
        }));
        assert!(poll(&|| {}));
    }

    #[test]
    fn a_poll_that_waits_shortly_and_then_long_for_a_processor_is_no_blocking_one() {
        let lane = trusted();
        lane.watch(1);
        let mut first = lane.first_poll();
        std::thread::sleep(Duration::from_micros(50));
        // As if the kernel had let it wait for another second.
        first.began = first.began.checked_sub(Duration::from_secs(1)).unwrap();
        let before = first.before.as_mut().unwrap();
        let Queued::Nanoseconds(queued) = before.queued else { panic!("the kernel tells") };
        before.queued = Queued::Nanoseconds(queued.wrapping_sub(1_000_000_000));
        first.over(true);
        assert!(lane.is_trusted());
    }

    #[test]
    fn a_poll_that_waited_for_nobody_knows_what_is_forgiven_once_and_the_next_one_is_judged() {
        let lane = trusted();
        lane.watched.store(1, Ordering::Relaxed);
        for blocked_for_good in [false, true] {
            let first = lane.first_poll();
            std::thread::sleep(2 * BLOCKED);
            first.over(true);
            assert_eq!(lane.is_trusted(), !blocked_for_good);
        }
    }

    #[test]
    fn a_lane_that_is_watched_for_long_is_weighed_for_a_short_while_only() {
        let lane = trusted();
        lane.watch(WEIGHED);
        let weighed = |lane: &Lane| {
            let before = lane.first_poll().before.unwrap();
            !matches!(before.queued, Queued::Unasked)
        };
        assert_eq!((0..WATCHED).filter(|_| weighed(&lane)).count(), usize::try_from(WEIGHED).unwrap());
        assert!(lane.first_poll().before.is_none());
    }

    #[test]
    fn a_lane_is_watched_from_its_first_slow_poll_on() {
        let lane = trusted();
        for blocked_for_good in [false, true] {
            let first = lane.first_poll();
            std::thread::sleep(2 * BLOCKED);
            first.over(true);
            assert_eq!(lane.is_trusted(), !blocked_for_good);
        }
    }
}
