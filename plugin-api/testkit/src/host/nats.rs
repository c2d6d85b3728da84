//! A real nats-server of one bench, on a port that it chooses itself.

use super::locate;
use super::process::Process;
use crate::{Error, Result, eventually};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Generous, because many tests start at once.
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Nats {
    process: Process,
    pub(crate) url: String,
}

impl Nats {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let mut command = Command::new(locate::nats_server()?);
        command.args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--ports_file_dir"]).arg(folder);
        command.arg("--store_dir").arg(folder.join("store"));
        let mut process = Process::start("nats-server", command, folder)?;
        let url = eventually(START, "nats-server says where it listens", async || {
            if process.exited().is_some() {
                return Some(Err(Error::new("nats-server exited at its start")));
            }
            ports(folder).map(Ok)
        });
        match url.await.and_then(|url| url) {
            Ok(url) => Ok(Self { process, url }),
            Err(error) => Err(Error::new(format!("{error}\n{}", process.tail()))),
        }
    }

    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }
}

/// The address in the file that the server writes once it listens.
fn ports(folder: &Path) -> Option<String> {
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|file| file.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(ports.get("nats")?.as_array()?.first()?.as_str()?.to_owned())
}
