//! A real `cardcage` process with its children, seen from outside.
//!
//! Every process of one launch carries a mark in its environment, so that those left over can be found even when
//! their parent is gone. The supervisor writes the addresses that it bound to the file named by
//! `CARDCAGE_ADDRESSES_FILE`, so that tests can ask for port 0.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use crate::process::{self, Process, Signal};
use crate::wait::{self, Deadline, eventually};
use crate::{Config, Error, Http, Result, locate};

/// The environment variable that tells a supervisor where to write its addresses.
const ADDRESSES_FILE: &str = "CARDCAGE_ADDRESSES_FILE";
/// The environment variable that marks all processes of one launch.
const MARK: &str = "CARDCAGE_HARNESS_LAUNCH";
/// Generous, because many hosts start at once on two cores, in debug builds.
const START: Duration = Duration::from_secs(60);
/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// What a supervisor says that it bound.
#[derive(Debug, Clone, Deserialize)]
pub struct Addresses {
    /// The address that callers use; only the api role has one.
    pub api: Option<String>,
    /// The admin listener.
    pub admin: Option<String>,
    /// The supervisor's process id.
    pub pid: u32,
}

/// What a command that ran to its end left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it exited.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A launch in preparation.
#[derive(Debug)]
pub struct Launch {
    binary: Option<PathBuf>,
    arguments: Vec<OsString>,
    config: Option<String>,
    environment: Vec<(OsString, OsString)>,
    working_folder: Option<PathBuf>,
    own_group: bool,
}

impl Launch {
    /// `cardcage <arguments>`.
    pub fn new(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            binary: None,
            arguments: arguments.into_iter().map(Into::into).collect(),
            config: None,
            environment: Vec::new(),
            working_folder: None,
            own_group: false,
        }
    }

    /// Starts this executable instead of the one that was built beside the running one.
    #[must_use]
    pub fn binary(mut self, binary: &Path) -> Self {
        self.binary = Some(binary.to_owned());
        self
    }

    /// Adds `--config FILE` with this configuration in the file.
    #[must_use]
    pub fn config(self, config: &Config) -> Self {
        self.config_text(config.to_toml())
    }

    /// Adds `--config FILE` with this text in the file, whatever it is.
    #[must_use]
    pub fn config_text(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs it in this folder instead of the caller's.
    #[must_use]
    pub fn working_folder(mut self, folder: &Path) -> Self {
        self.working_folder = Some(folder.to_owned());
        self
    }

    /// Makes it the leader of a process group of its own, for [`Cardcage::signal_group`].
    #[must_use]
    pub fn own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Starts it and returns at once.
    ///
    /// # Errors
    /// The binary has not been built, or the machine refuses to start it.
    pub fn start(self) -> Result<Cardcage> {
        let folder = tempfile::Builder::new()
            .prefix("cardcage-host-")
            .tempdir()
            .map_err(Error::doing("cannot make a folder for cardcage"))?;
        let mark = format!("{:016x}", fastrand::u64(..));
        let mut command = Command::new(self.binary.map_or_else(locate::cardcage_binary, Ok)?);
        command
            .args(&self.arguments)
            .env(ADDRESSES_FILE, folder.path().join("addresses.json"))
            .env(MARK, &mark)
            .envs(self.environment);
        if let Some(text) = self.config {
            let file = folder.path().join("cardcage.toml");
            std::fs::write(&file, text).map_err(Error::doing(format!("cannot write {}", file.display())))?;
            command.arg("--config").arg(file);
        }
        if let Some(working_folder) = self.working_folder {
            command.current_dir(working_folder);
        }
        if self.own_group {
            command.process_group(0);
        }
        let first = self.arguments.first().map(Path::new).and_then(Path::file_name);
        let name = first.map_or("cardcage".into(), |name| name.to_string_lossy().into_owned());
        let process = Process::start(&name, command, folder.path())?;
        Ok(Cardcage { process, mark: format!("{MARK}={mark}"), addresses: None, folder })
    }

    /// Starts it and waits until `/readyz` says 200.
    ///
    /// # Errors
    /// As [`Launch::start`], or it exits or is not ready within 60 s; the error holds what it wrote.
    pub async fn ready(self) -> Result<Cardcage> {
        let mut cardcage = self.start()?;
        cardcage.wait_ready(Deadline::after(START)).await?;
        Ok(cardcage)
    }

    /// Runs it to its end, such as `check` or `plugin inspect`.
    ///
    /// # Errors
    /// As [`Launch::start`], or it does not end before the deadline. An exit status of failure is no error here.
    pub async fn run(self, deadline: Deadline) -> Result<Output> {
        let mut cardcage = self.start()?;
        let status = cardcage.wait_exit(deadline).await?;
        Ok(Output { status, stdout: cardcage.process.stdout(), stderr: cardcage.process.stderr() })
    }
}

/// A started `cardcage` and its children. Dropping it kills them all; one that survives that fails the test.
#[derive(Debug)]
pub struct Cardcage {
    process: Process,
    mark: String,
    addresses: Option<Addresses>,
    // Last, so that the processes are gone before the folder is removed.
    folder: TempDir,
}

impl Cardcage {
    /// A ready `cardcage api`.
    ///
    /// # Errors
    /// As [`Launch::ready`].
    pub async fn api(config: &Config) -> Result<Self> {
        Launch::new(["api"]).config(config).ready().await
    }

    /// A ready `cardcage worker`.
    ///
    /// # Errors
    /// As [`Launch::ready`].
    pub async fn worker(config: &Config) -> Result<Self> {
        Launch::new(["worker"]).config(config).ready().await
    }

    /// `cardcage <arguments>`, started and left alone.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn spawn(arguments: &[&str]) -> Result<Self> {
        Launch::new(arguments.iter().copied()).start()
    }

    /// Waits for the addresses and then for `/readyz` to say 200.
    ///
    /// # Errors
    /// It exited, or was not ready at the deadline; the error holds what it wrote.
    pub async fn wait_ready(&mut self, deadline: Deadline) -> Result<()> {
        let addresses = self.wait_addresses(deadline).await?;
        let admin = addresses.admin.ok_or_else(|| Error::new("cardcage wrote no admin address"))?;
        let http = Http::new(&admin)?;
        let mut last = String::from("no answer");
        let process = &mut self.process;
        let outcome = eventually(deadline, "cardcage is ready", async || {
            if let Some(status) = process.exited() {
                return Some(Err(Error::new(format!("cardcage exited before it was ready ({status})"))));
            }
            match http.get("/readyz?verbose").await {
                Ok(reply) if reply.status == 200 => return Some(Ok(())),
                Ok(reply) => last = format!("{} {}", reply.status, reply.text()),
                Err(error) => last = error.to_string(),
            }
            None
        })
        .await
        .and_then(|outcome| outcome);
        outcome.map_err(|error| Error::new(format!("{error}; /readyz said: {last}\n{}", self.process.tail())))
    }

    /// Waits until the listeners are bound, ready or not.
    ///
    /// # Errors
    /// It exited, or had bound nothing at the deadline; the error holds what it wrote.
    pub async fn wait_addresses(&mut self, deadline: Deadline) -> Result<Addresses> {
        let file = self.folder.path().join("addresses.json");
        let process = &mut self.process;
        let outcome = eventually(deadline, "cardcage has bound its addresses", async || {
            if let Some(status) = process.exited() {
                return Some(Err(Error::new(format!(
                    "cardcage exited before it had bound its addresses ({status})"
                ))));
            }
            // Half a file does not parse, and is looked at again.
            std::fs::read(&file)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Addresses>(&bytes).ok())
                .map(Ok)
        })
        .await
        .and_then(|outcome| outcome);
        let addresses = outcome.map_err(|error| Error::new(format!("{error}\n{}", self.process.tail())))?;
        self.addresses = Some(addresses.clone());
        Ok(addresses)
    }

    /// A client of the address that callers use.
    ///
    /// # Errors
    /// This role has none, or its addresses were not waited for.
    pub fn http(&self) -> Result<Http> {
        let address = self.addresses.as_ref().and_then(|addresses| addresses.api.as_deref());
        Http::new(address.ok_or_else(|| Error::new("this cardcage has no known api address"))?)
    }

    /// A client of the admin listener.
    ///
    /// # Errors
    /// Its addresses were not waited for.
    pub fn admin(&self) -> Result<Http> {
        let address = self.addresses.as_ref().and_then(|addresses| addresses.admin.as_deref());
        Http::new(address.ok_or_else(|| Error::new("this cardcage has no known admin address"))?)
    }

    /// The supervisor's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The ids of all its living processes but the supervisor, also of those whose supervisor is gone.
    pub fn child_pids(&self) -> Vec<u32> {
        let mut ids = process::processes_marked(&self.mark);
        ids.retain(|id| *id != self.process.id());
        ids
    }

    /// Stops the supervisor in its tracks, but not its children; SIGCONT lets it go on.
    ///
    /// # Errors
    /// It has exited.
    pub async fn pause(&self) -> Result<()> {
        self.process.pause().await
    }

    /// Signals the supervisor.
    ///
    /// # Errors
    /// It has exited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Signals the whole process group, as a terminal does; for a launch with [`Launch::own_group`].
    ///
    /// # Errors
    /// It has exited, or leads no group.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        self.process.signal_group(signal)
    }

    /// Signals all its children; says how many there were. One that exits meanwhile is no error.
    pub fn signal_children(&self, signal: Signal) -> usize {
        let ids = self.child_pids();
        ids.into_iter().filter(|id| process::signal_id(*id, signal)).count()
    }

    /// The supervisor's exit status, if it has exited.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Kills the supervisor without a chance to clean up. What its children then do is for the test to see.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Waits for the supervisor to exit.
    ///
    /// # Errors
    /// It had not at the deadline; the error holds what it wrote.
    pub async fn wait_exit(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        self.process.wait_exit(deadline).await
    }

    /// SIGTERM, then waits for the exit.
    ///
    /// # Errors
    /// It had exited already, or did not before the deadline.
    pub async fn stop(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait_exit(deadline).await
    }

    /// What it and its children logged so far.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }
}

impl Drop for Cardcage {
    fn drop(&mut self) {
        self.process.kill9();
        let gone = wait::eventually_blocking(Deadline::after(GONE), || {
            process::kill_marked(&self.mark);
            process::processes_marked(&self.mark).is_empty()
        });
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the failing test's output is where its reader looks")]
            {
                eprintln!("{}", self.process.tail());
            }
        } else {
            assert!(
                gone,
                "processes of this cardcage survived SIGKILL: {:?}",
                process::processes_marked(&self.mark)
            );
        }
    }
}
