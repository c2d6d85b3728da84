//! A real nats-server with JetStream, of this test alone, that can be killed, restarted and stopped in its tracks.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, Signal};
use crate::wait::{Deadline, eventually};
use crate::{Error, Port, Result, locate};

/// Generous, because many servers start at once on two cores.
const START: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The binary; the pinned one if none is named.
    pub binary: Option<PathBuf>,
    /// Lines for its configuration file, such as `max_payload: 64KB`.
    pub config: String,
    /// More arguments, such as `-DV`.
    pub arguments: Vec<String>,
    /// Starts it without JetStream.
    pub jetstream_off: bool,
}

/// A running nats-server. Dropping it kills it and removes its store.
#[derive(Debug)]
pub struct Nats {
    options: Options,
    port: Port,
    process: Process,
    // Last, so that the process is gone before its folder is removed.
    folder: TempDir,
}

impl Nats {
    /// Starts one on a free port with an empty store.
    ///
    /// # Errors
    /// The binary is missing (the error says how to get it), or it does not take connections within 30 s.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one as `options` say.
    ///
    /// # Errors
    /// As [`Nats::start`], or it refuses the configuration; the error holds what it wrote.
    pub async fn start_with(options: Options) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("cardcage-nats-")
            .tempdir()
            .map_err(Error::doing("cannot make a folder for nats-server"))?;
        let port = Port::reserve()?;
        let process = launch(&options, &port, folder.path())?;
        let mut nats = Self { options, port, process, folder };
        nats.ready().await?;
        Ok(nats)
    }

    /// `nats://127.0.0.1:<port>`; the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// Its process id; another one after a restart.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it logged since the first start.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Kills it without a chance to clean up. Its port stays reserved, its store stays.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops it in order (SIGTERM) and waits until it is gone.
    ///
    /// # Errors
    /// It did not exit within 30 s.
    pub async fn stop(&mut self) -> Result<()> {
        if self.process.exited().is_none() {
            self.process.signal(Signal::TERM)?;
            self.process.wait_exit(Deadline::after(START)).await?;
        }
        Ok(())
    }

    /// Starts it again on the same port and store; kills it first if it runs.
    ///
    /// # Errors
    /// It does not take connections within 30 s.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill9();
        self.process = launch(&self.options, &self.port, self.folder.path())?;
        self.ready().await
    }

    /// Stops it in its tracks: connections stay open and nothing is answered, as when a machine hangs.
    ///
    /// # Errors
    /// It has exited.
    pub async fn pause(&self) -> Result<()> {
        self.process.pause().await
    }

    /// Lets it go on after [`Nats::pause`].
    ///
    /// # Errors
    /// It has exited.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    async fn ready(&mut self) -> Result<()> {
        let address = self.port.address();
        let process = &mut self.process;
        let outcome = eventually(Deadline::after(START), "nats-server takes connections", async || {
            if let Some(status) = process.exited() {
                return Some(Err(Error::new(format!("nats-server exited at start ({status})"))));
            }
            greets(&address, !self.options.jetstream_off).then_some(Ok(()))
        })
        .await
        .and_then(|outcome| outcome);
        outcome.map_err(|error| Error::new(format!("{error}\n{}", self.process.tail())))
    }
}

fn launch(options: &Options, port: &Port, folder: &Path) -> Result<Process> {
    let binary = options.binary.clone().map_or_else(locate::nats_server_binary, Ok)?;
    let config = folder.join("nats.conf");
    std::fs::write(&config, &options.config)
        .map_err(Error::doing(format!("cannot write {}", config.display())))?;
    let mut command = Command::new(binary);
    command
        .args(["--addr", "127.0.0.1", "--port", &port.number().to_string(), "--config"])
        .arg(config)
        .args(&options.arguments);
    if !options.jetstream_off {
        command.args(["--jetstream", "--store_dir"]).arg(folder.join("store"));
    }
    Process::start("nats-server", command, folder)
}

/// The server's first line says who it is; it is sent as soon as it takes clients, when JetStream has recovered.
fn greets(address: &str, jetstream: bool) -> bool {
    let patience = Duration::from_millis(500);
    let greeting = || -> std::io::Result<String> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(patience))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    greeting().is_ok_and(|line| line.starts_with("INFO ") && line.contains("\"jetstream\":true") == jetstream)
}
