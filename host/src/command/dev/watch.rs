//! Notices that a library file has changed, and waits until whoever writes it is done.
//!
//! It looks at the files every `dev.watch_interval_ms` instead of asking the kernel for events: a linker replaces
//! files, mounts and links are followed, and a handful of `stat` calls cost nothing.
//!
//! Only a file that has changed is read, to see whether its bytes have; and each once in the beginning, one a look, so that
//! many large ones hold nobody up. A file that changes before it was read counts as other bytes.
//!
//! Invariant: a change is told once, when no watched file has changed for one interval.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::content::{Content, Fingerprint};
use crate::loader::{Refusal, inspect};

/// What was found at a library's place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Other bytes, of these plugins.
    Other(Vec<String>),
    /// Files that were written anew with the bytes from before, of these plugins.
    Same(Vec<String>),
}

#[derive(Debug)]
struct Watched {
    plugin: String,
    library: PathBuf,
    /// What was there when it was last told, or at the start.
    told: Option<Fingerprint>,
    /// Its bytes, once they are known.
    content: Option<Content>,
    /// What was there at the last look.
    seen: Option<Fingerprint>,
}

impl Watched {
    fn new(plugin: String, library: PathBuf) -> Self {
        let now = Fingerprint::of(&library);
        Self { plugin, library, told: now, content: None, seen: now }
    }
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
        Self { ticks, files: libraries.map(|(plugin, library)| Watched::new(plugin, library)).collect() }
    }

    /// Watches these libraries of a plugin as they are now, in place of those that were watched for it.
    pub(super) fn follow(&mut self, plugin: &str, libraries: impl Iterator<Item = PathBuf>) {
        self.files.retain(|file| file.plugin != plugin);
        self.files.extend(libraries.map(|library| Watched::new(plugin.to_owned(), library)));
    }

    /// Waits for a change. May be dropped and called again.
    pub(super) async fn changed(&mut self) -> Change {
        loop {
            self.ticks.tick().await;
            if let Some(change) = self.look() {
                return change;
            }
        }
    }

    fn look(&mut self) -> Option<Change> {
        let mut still = true;
        for file in &mut self.files {
            let now = Fingerprint::of(&file.library);
            // A file that is away is about to be replaced.
            still &= now == file.seen && (now.is_some() || file.told.is_none());
            file.seen = now;
        }
        if !still {
            return None;
        }
        self.learn();
        let (mut other, mut same) = (Vec::new(), Vec::new());
        for file in &mut self.files {
            let Some(seen) = file.seen.filter(|seen| file.told != Some(*seen)) else { continue };
            let content = Content::of(&file.library, seen);
            let is_same = content.is_some() && content == file.content;
            (file.told, file.content) = (Some(seen), content);
            if is_same { &mut same } else { &mut other }.push(file.plugin.clone());
        }
        match (other.is_empty(), same.is_empty()) {
            (false, _) => Some(Change::Other(other)),
            (true, false) => Some(Change::Same(same)),
            (true, true) => None,
        }
    }

    /// Reads the first file of which the bytes are not known, where it is still what it was.
    fn learn(&mut self) {
        let unknown = |file: &&mut Watched| file.content.is_none() && file.seen == file.told;
        if let Some(file) = self.files.iter_mut().find(unknown) {
            file.content = file.seen.and_then(|seen| Content::of(&file.library, seen));
        }
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
    use std::path::Path;

    use super::*;

    fn watch(library: &Path) -> Watch {
        Watch::new(Duration::from_millis(1), [("hello".to_owned(), library.to_owned())].into_iter())
    }

    fn hello(change: fn(Vec<String>) -> Change) -> Option<Change> {
        Some(change(vec!["hello".to_owned()]))
    }

    /// As a linker does it: a new file under the old name.
    fn replace(library: &Path, bytes: &str) {
        let temporary = library.with_extension("new");
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(temporary, library).unwrap();
    }

    #[tokio::test]
    async fn a_change_is_told_once_and_only_when_the_file_is_still() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        std::fs::write(&library, "one").unwrap();
        let mut watch = watch(&library);
        assert_eq!(watch.look(), None, "nothing changed");
        std::fs::write(&library, "longer").unwrap();
        assert_eq!(watch.look(), None, "it may still be written to");
        std::fs::write(&library, "longer still").unwrap();
        assert_eq!(watch.look(), None, "it was");
        assert_eq!(watch.look(), hello(Change::Other));
        assert_eq!(watch.look(), None, "told already");
    }

    #[tokio::test]
    async fn a_file_that_is_away_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        std::fs::write(&library, "one").unwrap();
        let mut watch = watch(&library);
        std::fs::remove_file(&library).unwrap();
        for _ in 0..3 {
            assert_eq!(watch.look(), None);
        }
        std::fs::write(&library, "another").unwrap();
        assert_eq!(watch.look(), None);
        assert_eq!(watch.look(), hello(Change::Other));
    }

    #[tokio::test]
    async fn a_file_that_is_written_anew_with_its_bytes_is_the_same_unless_nobody_knew_them() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        std::fs::write(&library, "one").unwrap();
        let mut early = watch(&library);
        replace(&library, "one");
        let mut watch = watch(&library);
        assert_eq!((early.look(), early.look()), (None, hello(Change::Other)), "never read before");
        assert_eq!(watch.look(), None);
        for (bytes, change) in
            [("one", Change::Same as fn(_) -> _), ("two", Change::Other), ("two", Change::Same)]
        {
            replace(&library, bytes);
            assert_eq!((watch.look(), watch.look()), (None, hello(change)), "{bytes}");
        }
    }
}
