//! Processor time of processes, from `/proc/<pid>/stat`: it says where the time goes when a goal is missed.

use std::fs;

use serde::{Deserialize, Serialize};

/// The kernel's unit here, `USER_HZ`: part of Linux' interface to programs, and 100 on every architecture in use.
const TICKS_PER_SECOND: u64 = 100;

/// A process to look at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// What it is called in the report. Those of one name are added up.
    pub(crate) name: String,
    pub(crate) pid: u32,
}

/// Processor time, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuTime {
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
}

/// Processor time that one process used in a window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) name: String,
    pub(crate) time: CpuTime,
}

/// What each process has used since its start; `None` for one that is gone.
pub(crate) fn read(watched: &[Watched]) -> Vec<Option<CpuTime>> {
    let stat = |pid: u32| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    watched.iter().map(|process| stat(process.pid)).collect()
}

/// What each process used between two readings. One that is gone is left out.
pub(crate) fn used(watched: &[Watched], before: &[Option<CpuTime>], after: &[Option<CpuTime>]) -> Vec<Used> {
    let between = |((process, before), after): ((&Watched, &Option<CpuTime>), &Option<CpuTime>)| {
        let (before, after) = ((*before)?, (*after)?);
        let time = CpuTime {
            user_us: after.user_us.saturating_sub(before.user_us),
            system_us: after.system_us.saturating_sub(before.system_us),
        };
        Some(Used { name: process.name.clone(), time })
    };
    watched.iter().zip(before).zip(after).filter_map(between).collect()
}

/// The command's name may hold anything, also blanks and brackets, so fields are counted from its closing bracket.
fn parse(stat: &str) -> Option<CpuTime> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let us = |ticks: u64| ticks.saturating_mul(1_000_000 / TICKS_PER_SECOND);
    Some(CpuTime { user_us: us(user), system_us: us(system) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_command_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 1 2 3 4 250 31 7 8 20 0 3 0 100 1 1";
        assert_eq!(parse(stat), Some(CpuTime { user_us: 2_500_000, system_us: 310_000 }));
        assert_eq!(parse("17 (a"), None);
    }

    #[test]
    fn own_time_can_be_read_and_a_missing_process_is_left_out() {
        let process = |pid| Watched { name: "x".into(), pid };
        let watched = [process(std::process::id()), process(u32::MAX)];
        let now = read(&watched);
        assert!(now[0].is_some() && now[1].is_none());
        assert_eq!(used(&watched, &now, &now).len(), 1);
    }
}
