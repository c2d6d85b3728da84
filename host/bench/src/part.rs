//! The bench's own processes: floors and load clients, each this same executable.
//!
//! The real thing has separate processes, so the floors have too; otherwise they would share the processors in
//! another way.
//!
//! Invariants: a part says one line of JSON on stdout, a floor when it is ready and a load when it is done; it ends
//! when its stdin ends, so none outlives the bench, however that ends.

use std::process::Stdio;
use std::time::Duration;

use cardcage_harness::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::floor::{Gateway, Responder, TaskWorker};
use crate::load::Load;

/// What one process is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Part {
    Gateway(Gateway),
    Responder(Responder),
    TaskWorker(TaskWorker),
    Load(Load),
}

/// What a floor says when it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Where it listens, if it does.
    pub(crate) address: Option<String>,
}

/// A started part. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    pid: u32,
}

impl Running {
    pub(crate) fn start(part: &Part) -> Result<Self> {
        let executable =
            std::env::current_exe().map_err(Error::doing("cannot tell which executable this is"))?;
        let json = serde_json::to_string(part).map_err(Error::doing("cannot write a part as JSON"))?;
        let mut child = Command::new(executable)
            .args(["part", &json])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::doing("cannot start a process of the bench"))?;
        let stdout = child.stdout.take().ok_or_else(|| Error::new("a process of the bench has no stdout"))?;
        let pid = child.id().ok_or_else(|| Error::new("a process of the bench ended at once"))?;
        Ok(Self { child, lines: BufReader::new(stdout), pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The one thing that it says.
    ///
    /// # Errors
    /// It ends without saying it, or takes longer than `patience`. What went wrong stands in its stderr, which is ours.
    pub(crate) async fn says<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T> {
        let mut line = String::new();
        let reading = self.lines.read_line(&mut line);
        let read = tokio::time::timeout(patience, reading)
            .await
            .map_err(|_| Error::new(format!("a process of the bench said nothing within {patience:?}")))?
            .map_err(Error::doing("cannot read what a process of the bench says"))?;
        if read == 0 {
            let status = self.child.wait().await.map_err(Error::doing("cannot wait for a process"))?;
            return Err(Error::new(format!("a process of the bench failed ({status}); see above")));
        }
        serde_json::from_str(&line).map_err(Error::doing("cannot understand a process of the bench"))
    }
}

/// Is the part that `json` describes, until it is done or nobody is left who wants it.
pub(crate) async fn play(json: &str) -> Result<()> {
    let part = serde_json::from_str(json).map_err(Error::doing("this is no part"))?;
    let playing = async {
        match part {
            Part::Gateway(gateway) => gateway.serve().await,
            Part::Responder(responder) => responder.serve().await,
            Part::TaskWorker(worker) => worker.serve().await,
            Part::Load(load) => say(&load.run().await?).await,
        }
    };
    tokio::select! {
        outcome = playing => outcome,
        () = stdin_ended() => Ok(()),
    }
}

/// Says the part's line.
pub(crate) async fn say<T: Serialize>(value: &T) -> Result<()> {
    let mut line = serde_json::to_vec(value).map_err(Error::doing("cannot write JSON"))?;
    line.push(b'\n');
    let mut stdout = tokio::io::stdout();
    let written = async {
        stdout.write_all(&line).await?;
        stdout.flush().await
    };
    written.await.map_err(Error::doing("cannot write to stdout"))
}

/// Reads on a thread of its own, which nobody waits for: tokio's would hold up the exit of a part that is done.
async fn stdin_ended() {
    let (sender, receiver) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // An error ends it as an end does: either way nobody can say any more whether we are wanted.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(sender);
    });
    let _ = receiver.await;
}
