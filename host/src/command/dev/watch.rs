//! Notices that a library file has changed, and waits until whoever writes it is done.
//!
//! It looks at the files every `dev.watch_interval_ms` instead of asking the kernel for events: a linker replaces
//! files, mounts and links are followed, and a handful of `stat` calls cost nothing.
//!
//! Invariant: a change is told once, when no watched file has changed for one interval.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::loader::{Refusal, inspect};

/// What a file is told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Fingerprint {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
        })
    }
}

#[derive(Debug)]
struct Watched {
    plugin: String,
    library: PathBuf,
    /// What was there when it was last told, or at the start.
    told: Option<Fingerprint>,
    /// What was there at the last look.
    seen: Option<Fingerprint>,
}

/// The watched files.
#[derive(Debug)]
pub(super) struct Watch {
    ticks: tokio::time::Interval,
    files: Vec<Watched>,
}

impl Watch {
    /// Watches these plugins' libraries from now on. Call it inside a tokio runtime.
    pub(super) fn new(every: Duration, libraries: impl Iterator<Item = (String, PathBuf)>) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let files = libraries.map(|(plugin, library)| {
            let now = Fingerprint::of(&library);
            Watched { plugin, library, told: now, seen: now }
        });
        Self { ticks, files: files.collect() }
    }

    /// Waits for a change; answers the plugins whose library changed. May be dropped and called again.
    pub(super) async fn changed(&mut self) -> Vec<String> {
        loop {
            self.ticks.tick().await;
            let changed = self.look();
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    fn look(&mut self) -> Vec<String> {
        let mut still = true;
        for file in &mut self.files {
            let now = Fingerprint::of(&file.library);
            // A file that is away is about to be replaced.
            still &= now == file.seen && (now.is_some() || file.told.is_none());
            file.seen = now;
        }
        if !still {
            return Vec::new();
        }
        let changed = self.files.iter_mut().filter(|file| file.seen.is_some() && file.seen != file.told);
        changed
            .map(|file| {
                file.told = file.seen;
                file.plugin.clone()
            })
            .collect()
    }

    /// The first of these plugins' libraries that no host would load, without running it.
    pub(super) async fn first_refusal(&self, plugins: &[String]) -> Option<Refusal> {
        let changed = self.files.iter().filter(|file| plugins.contains(&file.plugin));
        let libraries: Vec<PathBuf> = changed.map(|file| file.library.clone()).collect();
        let inspected = tokio::task::spawn_blocking(move || {
            libraries.iter().find_map(|library| {
                inspect::file(library)
                    .and_then(|(inspection, _)| inspect::verdict(library, &inspection))
                    .err()
            })
        });
        // It does not panic; if it did, the hosts would refuse what is wrong.
        inspected.await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(library: &Path) -> Watch {
        Watch::new(Duration::from_millis(1), [("hello".to_owned(), library.to_owned())].into_iter())
    }

    #[tokio::test]
    async fn a_change_is_told_once_and_only_when_the_file_is_still() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        std::fs::write(&library, "one").unwrap();
        let mut watch = watch(&library);
        assert!(watch.look().is_empty(), "nothing changed");
        std::fs::write(&library, "longer").unwrap();
        assert!(watch.look().is_empty(), "it may still be written to");
        std::fs::write(&library, "longer still").unwrap();
        assert!(watch.look().is_empty(), "it was");
        assert_eq!(watch.look(), ["hello"]);
        assert!(watch.look().is_empty(), "told already");
    }

    #[tokio::test]
    async fn a_file_that_is_away_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        std::fs::write(&library, "one").unwrap();
        let mut watch = watch(&library);
        std::fs::remove_file(&library).unwrap();
        for _ in 0..3 {
            assert!(watch.look().is_empty());
        }
        std::fs::write(&library, "another").unwrap();
        assert!(watch.look().is_empty());
        assert_eq!(watch.look(), ["hello"]);
    }
}
