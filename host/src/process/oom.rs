//! Whether the kernel killed a child because memory ran out.
//!
//! Such a child dies of SIGKILL, as one does that an operator kills. The kernel counts the processes that it kills for
//! memory, in the cgroup and for the machine; where a count grew in the seconds before a child died of SIGKILL, memory was
//! why.
//!
//! Invariant: a count that cannot be read never grows, so nothing is blamed on memory without the kernel's word.
//!
//! What it refuses: it does not know *which* process the kernel killed; another one that is killed for memory within the
//! same seconds is taken for ours.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Looks that are remembered: taking a large process down takes the kernel a while, and the count grows first.
const LOOKS: usize = 8;
const MACHINE: &str = "/proc/vmstat";

/// Remembers how many processes the kernel had killed for memory.
#[derive(Debug)]
pub(super) struct OomWatch {
    files: Vec<PathBuf>,
    looks: VecDeque<u64>,
}

impl OomWatch {
    /// Watches this process's cgroup, and the machine.
    pub(super) fn start() -> Self {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut files = counters(&cgroups, Path::new("/sys/fs/cgroup"));
        files.retain(|file| file.exists());
        files.push(MACHINE.into());
        Self::of(files)
    }

    fn of(files: Vec<PathBuf>) -> Self {
        let mut watch = Self { files, looks: VecDeque::new() };
        watch.look();
        watch
    }

    fn count(&self) -> u64 {
        let read = |file: &PathBuf| kills(&std::fs::read_to_string(file).ok()?);
        self.files.iter().filter_map(read).fold(0, u64::saturating_add)
    }

    /// To be called from time to time while the child lives.
    pub(super) fn look(&mut self) {
        self.looks.push_back(self.count());
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
    }

    /// Whether the kernel has killed a process for memory since the oldest look that is remembered.
    pub(super) fn has_killed(&self) -> bool {
        self.looks.front().is_some_and(|before| self.count() > *before)
    }
}

/// The files with the counts of a process that is in these cgroups: of the second version, or of the first.
fn counters(cgroups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (roots, name): (&[&str], _) = match controllers {
            "" => (&["", "unified"], "memory.events"),
            _ if controllers.split(',').any(|one| one == "memory") => (&["memory"], "memory.oom_control"),
            _ => continue,
        };
        // In a container the path is often that of the machine, and what is mounted is the container's own.
        let below = |mount: &&str| {
            [path.trim_start_matches('/'), ""].map(|path| root.join(mount).join(path).join(name))
        };
        files.extend(roots.iter().flat_map(below));
    }
    files.dedup();
    files
}

fn kills(text: &str) -> Option<u64> {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_both_kinds_of_cgroups_and_of_the_machine_are_read() {
        assert_eq!(kills("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(kills("pgfault 4\noom_kill 9\nswap_ra 1\n"), Some(9));
        assert_eq!(kills("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn the_own_cgroup_comes_from_what_the_kernel_says_of_the_process() {
        let root = Path::new("/c");
        let paths = |text: &str| -> Vec<String> {
            counters(text, root).iter().map(|path| path.display().to_string()).collect()
        };
        let second = paths("0::/system.slice/cardcage.service\n");
        assert!(second.contains(&"/c/system.slice/cardcage.service/memory.events".to_owned()), "{second:?}");
        let first = paths("9:cpu,cpuacct:/x\n4:memory:/box/7\n");
        assert_eq!(first, ["/c/memory/box/7/memory.oom_control", "/c/memory/memory.oom_control"]);
    }

    #[test]
    fn only_a_count_that_grew_blames_memory_and_the_looks_of_the_last_seconds_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        let set = |count: u64| std::fs::write(&file, format!("oom_kill {count}\n")).unwrap();
        set(3);
        let mut watch = OomWatch::of(vec![file.clone(), dir.path().join("not-there")]);
        assert!(!watch.has_killed(), "what was before is not ours");
        set(4);
        watch.look();
        assert!(watch.has_killed(), "the child may take a while to die after the count grew");
        (0..LOOKS).for_each(|_| watch.look());
        assert!(!watch.has_killed(), "that was another time");
        std::fs::remove_file(&file).unwrap();
        assert!(!watch.has_killed());
    }
}
