//! The temporary folder of one `dev`: what nats-server stores, its log, the addresses that the hosts bound, and what they are
//! told of plugins that were built.
//!
//! It is private to the user and goes with `dev`; where `dev` is killed, the broker's guard removes it.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// How much of nats-server's log is shown when it does not start.
const TAIL_BYTES: i64 = 4 * 1024;

/// The folder. Removed when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn create() -> std::io::Result<Self> {
        let name = format!("cardcage-dev-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the host of this role writes what it bound.
    pub(super) fn addresses_of(&self, role: &str) -> PathBuf {
        self.0.join(format!("{role}.json"))
    }

    /// The settings of what was built, for hosts.
    pub(super) fn built(&self) -> PathBuf {
        self.0.join("built.toml")
    }

    /// nats-server's store, where it has no configuration of its own.
    pub(super) fn store(&self) -> PathBuf {
        self.0.join("nats")
    }

    /// What nats-server says.
    pub(super) fn broker_log(&self) -> PathBuf {
        broker_log(&self.0)
    }

    /// The last lines of it.
    pub(super) fn broker_log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = std::fs::File::open(self.broker_log())?;
            let length = i64::try_from(file.metadata()?.len()).unwrap_or(0);
            file.seek(SeekFrom::End(-length.min(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        // Without a log there is nothing to show.
        read().unwrap_or_default()
    }
}

/// The log's place in a folder.
pub(super) fn broker_log(folder: &Path) -> PathBuf {
    folder.join("nats-server.log")
}

/// Removes a folder of `dev`. Whoever comes second finds nothing.
pub(super) fn remove(path: &Path) {
    let _ = std::fs::remove_dir_all(path);
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}
