//! When a child has served its time: after a number of tasks, or over a number of megabytes.
//!
//! Plugins leak, and heaps fragment. A child that is worn is replaced as one that is held up is: another one first, then
//! the old one drains. One over its ceiling is ended at once, before the kernel ends something else.
//!
//! Invariants: a child that is over the softer limit as soon as it serves is not worn, for the next one would be no better.
//!
//! What it refuses: memory is looked at twice a second, so what grows faster than that is the kernel's to stop.

/// Limits of a child; `None`: without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Attempts that it starts before it is replaced.
    pub recycle_after_tasks: Option<u64>,
    /// Resident memory over which it is replaced.
    pub recycle_above_mb: Option<u64>,
    /// Resident memory over which it is ended.
    pub memory_max_mb: Option<u64>,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has started so many tasks.
    Tasks(u64),
    /// It has so much memory.
    Memory(u64),
}

/// What a child was like at first.
#[derive(Debug)]
pub(super) struct Wear {
    limits: Limits,
    fresh_mb: Option<u64>,
}

impl Wear {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, fresh_mb: None }
    }

    /// Remembers what a fresh child has, before anybody is told that it serves and gives it work.
    pub(super) fn begin(&mut self, resident_mb: Option<u64>) {
        if let Some(now_mb) = resident_mb {
            self.fresh(now_mb);
        }
    }

    fn fresh(&mut self, now_mb: u64) -> u64 {
        if let Some(fresh_mb) = self.fresh_mb {
            return fresh_mb;
        }
        if self.limits.recycle_above_mb.is_some_and(|limit| now_mb > limit) {
            tracing::warn!(
                resident_mb = now_mb,
                "a fresh child is over `worker.recycle_above_mb`; it is not replaced for its memory"
            );
        }
        *self.fresh_mb.insert(now_mb)
    }

    /// How much memory it has, where that is over its ceiling.
    pub(super) fn over_ceiling(&self, resident_mb: Option<u64>) -> Option<u64> {
        resident_mb.filter(|now_mb| self.limits.memory_max_mb.is_some_and(|limit| *now_mb > limit))
    }

    /// Judges a child that serves.
    pub(super) fn look(&mut self, tasks_begun: u64, resident_mb: Option<u64>) -> Option<Verdict> {
        let over = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value > limit);
        if let Some(now_mb) = resident_mb {
            let fresh_mb = self.fresh(now_mb);
            let is_grown =
                over(self.limits.recycle_above_mb, now_mb) && !over(self.limits.recycle_above_mb, fresh_mb);
            if is_grown {
                return Some(Verdict::Memory(now_mb));
            }
        }
        let is_worn = self.limits.recycle_after_tasks.is_some_and(|limit| tasks_begun >= limit);
        is_worn.then_some(Verdict::Tasks(tasks_begun))
    }
}

/// How many MB of memory a process has resident; `None` where it has ended.
pub(super) fn resident_mb(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wear() -> Wear {
        let limits =
            Limits { recycle_after_tasks: Some(10), recycle_above_mb: Some(100), memory_max_mb: Some(200) };
        Wear::new(limits)
    }

    #[test]
    fn child_is_worn_by_tasks_and_by_memory_and_ended_over_its_ceiling() {
        let mut wear = wear();
        assert_eq!(wear.look(9, Some(100)), None);
        assert_eq!(wear.look(10, Some(100)), Some(Verdict::Tasks(10)));
        assert_eq!(wear.look(0, Some(101)), Some(Verdict::Memory(101)));
        assert_eq!((wear.over_ceiling(Some(201)), wear.over_ceiling(Some(200))), (Some(201), None));
        assert_eq!(wear.look(10, None), Some(Verdict::Tasks(10)), "its memory is not known");
    }

    #[test]
    fn fresh_child_over_the_softer_limit_is_left_alone_and_the_ceiling_holds() {
        let mut wear = wear();
        assert_eq!(wear.look(0, Some(150)), None);
        assert_eq!(wear.look(0, Some(180)), None);
        assert_eq!(wear.over_ceiling(Some(201)), Some(201));
    }

    #[test]
    fn without_limits_nothing_is_worn() {
        let mut wear = Wear::new(Limits::default());
        assert_eq!((wear.look(u64::MAX, Some(u64::MAX)), wear.over_ceiling(Some(u64::MAX))), (None, None));
    }

    #[test]
    fn a_living_process_has_memory_and_a_dead_one_has_none() {
        assert!(resident_mb(std::process::id()).unwrap() > 0);
        assert_eq!(resident_mb(u32::MAX), None);
    }
}
