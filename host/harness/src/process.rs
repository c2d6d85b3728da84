//! One child process with its output in files, and what `/proc` says about processes.
//!
//! Output goes to files, not pipes: a full pipe would stop the process under test, and a file outlives it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, kill_process, kill_process_group};

use crate::wait::{Deadline, eventually};
use crate::{Error, Result};

pub use rustix::process::Signal;

/// How much of a process's output goes into an error.
const TAIL_BYTES: usize = 6 * 1024;

/// A started process. Dropping it kills it and waits for it; it says nothing about its own children.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with no input and with its output appended to files in `folder`.
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let stdout = folder.join(format!("{name}.stdout"));
        let stderr = folder.join(format!("{name}.stderr"));
        command.stdin(Stdio::null()).stdout(append(&stdout)?).stderr(append(&stderr)?);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(Error::doing(format!("cannot start {program}")))?;
        Ok(Self { name: name.to_owned(), child, status: None, stdout, stderr })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has exited.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    pub(crate) async fn wait_exit(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        let what = format!("{} exited", self.name);
        match eventually(deadline, &what, async || self.exited()).await {
            Ok(status) => Ok(status),
            Err(error) => Err(Error::new(format!("{error}\n{}", self.tail()))),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).map_err(Error::doing(format!("cannot signal {}", self.name)))
    }

    /// Stops it in its tracks; returns when no thread of it runs any more.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let what = format!("{} is stopped", self.name);
        eventually(Deadline::seconds(10), &what, async || is_stopped(self.id()).then_some(())).await
    }

    /// Signals its process group, which it must lead.
    pub(crate) fn signal_group(&self, signal: Signal) -> Result<()> {
        kill_process_group(self.pid()?, signal)
            .map_err(Error::doing(format!("cannot signal {}'s group", self.name)))
    }

    /// Kills it without a chance to clean up, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        // Both fail only where it has exited already, which is what is wanted.
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait() {
            self.status = Some(status);
        }
    }

    pub(crate) fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// What it wrote last, for error messages.
    pub(crate) fn tail(&self) -> String {
        let text = self.stderr();
        let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES));
        let end = text.get(from..).unwrap_or_default();
        format!("--- {} (pid {}) wrote to stderr:\n{end}---", self.name, self.child.id())
    }

    /// An id is only signalled while the process is ours to wait for, so it cannot be another's by now.
    fn pid(&self) -> Result<Pid> {
        if self.status.is_some() {
            return Err(Error::new(format!("{} has exited already", self.name)));
        }
        Ok(Pid::from_child(&self.child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.kill9();
        }
    }
}

/// Whether every thread of a process is stopped. The signal to stop is only the beginning of that: a thread that is
/// running on another core goes on for a moment, and can still answer somebody.
fn is_stopped(id: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything but is closed by the last bracket.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// The ids of all living processes whose environment holds `entry` (`NAME=value`).
///
/// The environment is inherited, so it finds grandchildren whose parent is gone, which parent ids do not. A process
/// that is dead but not yet waited for has none, and is rightly not found.
pub(crate) fn processes_marked(entry: &str) -> Vec<u32> {
    let marked = |id: &u32| {
        fs::read(format!("/proc/{id}/environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()))
    };
    let Ok(folders) = fs::read_dir("/proc") else { return Vec::new() };
    folders.flatten().filter_map(|folder| folder.file_name().to_str()?.parse().ok()).filter(marked).collect()
}

/// Kills all processes whose environment holds `entry`; the caller looks again, since one may just have forked.
pub(crate) fn kill_marked(entry: &str) {
    for id in processes_marked(entry) {
        signal_id(id, Signal::KILL);
    }
}

/// Signals a process that was just found by its mark; false where it has exited since.
pub(crate) fn signal_id(id: u32, signal: Signal) -> bool {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

fn append(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::doing(format!("cannot open {}", path.display())))
}

/// Output is for people: what is not UTF-8 is replaced, a missing file is empty.
fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
