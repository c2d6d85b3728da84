//! One process with its output in files: a full pipe would stop it, and a file outlives it.
//!
//! Invariant: dropping it ends the process. A host first gets the chance to end its children in order.

use crate::{Error, Result, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of a process's output goes into an error.
const TAIL_BYTES: usize = 8 * 1024;
/// How long a process may take to end in order when it is dropped.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    status: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    pub(crate) fn start(name: &'static str, mut command: Command, folder: &Path) -> Result<Self> {
        let (stdout, stderr) = (folder.join(format!("{name}.stdout")), folder.join(format!("{name}.stderr")));
        let file = |path: &Path| {
            let opened = File::options().create(true).append(true).open(path);
            opened.map_err(Error::doing(format!("cannot open {}", path.display())))
        };
        command.stdin(Stdio::null()).stdout(file(&stdout)?).stderr(file(&stderr)?);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(Error::doing(format!("cannot start {program}")))?;
        Ok(Self { name, child, status: None, stdout, stderr })
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Signals it; one that has exited is left alone, for its id may be another's by now.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.exited().is_none()
            && let Ok(id) = i32::try_from(self.child.id())
        {
            // It may have exited just now, which is as good.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    pub(crate) async fn wait(&mut self, at_most: Duration) -> Result<ExitStatus> {
        let what = format!("{} has exited", self.name);
        let exited = eventually(at_most, &what, async || self.exited()).await;
        exited.map_err(|error| Error::new(format!("{error}\n{}", self.tail())))
    }

    pub(crate) fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// What it wrote last, for errors.
    pub(crate) fn tail(&self) -> String {
        let text = self.stderr();
        let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES));
        format!("--- {} wrote to stderr:\n{}---", self.name, text.get(from..).unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let end = Instant::now() + ENDS_WITHIN;
        while self.exited().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.exited().is_none() {
            // Both fail only where it has exited, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A folder of its own; removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("cardcage-testkit-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).map_err(Error::doing(format!("cannot make {}", path.display())))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over lies in the folder for temporary things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
