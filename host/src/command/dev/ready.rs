//! When a process under `dev` is ready: seen from outside, as an operator's probe would see it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::addresses::Bound;
use super::managed::{Change, Managed};
use crate::command::output;
use crate::process::Shutdown;

/// How often a process is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The longest line that is read of an answer.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// Why a process that was started did not become ready.
pub(super) enum Unready {
    /// A stop was asked for.
    Asked,
    /// It ended.
    Ended(Change),
}

/// Starts a process and waits until it is ready.
pub(super) async fn begin(
    process: &mut Managed,
    ready: impl Future<Output = ()>,
    shutdown: &mut Shutdown,
) -> Result<(), Unready> {
    process.start();
    tokio::select! {
        () = shutdown.drain() => Err(Unready::Asked),
        change = process.change() => {
            if let Change::Ended(death) = &change {
                output::trouble(&format!("{} {death} before it was ready", process.name()));
            }
            Err(Unready::Ended(change))
        }
        () = ready => Ok(()),
    }
}

/// Waits until nats-server greets, and has JetStream. Its greeting comes first thing on a connection.
pub(super) async fn broker((host, port): (String, u16)) {
    let greets = async || -> std::io::Result<bool> {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        let line = first_line(stream).await?;
        Ok(line.starts_with("INFO ") && line.contains("\"jetstream\":true"))
    };
    until(greets).await;
}

/// Waits until the host that writes what it bound to `addresses` says that it is ready. What stood there before is
/// forgotten: it is from an earlier life.
pub(super) fn host(addresses: PathBuf) -> impl Future<Output = ()> {
    // Before the process is started, not when the future is first looked at.
    let _ = std::fs::remove_file(&addresses);
    let ready = async move || -> std::io::Result<bool> {
        let Some(admin) = Bound::read(&addresses).and_then(|bound| bound.admin) else { return Ok(false) };
        let mut stream = TcpStream::connect(&admin).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        Ok(first_line(stream).await?.split(' ').nth(1) == Some("200"))
    };
    until(ready)
}

async fn first_line(stream: TcpStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_MAX_BYTES)).read_line(&mut line).await?;
    Ok(line)
}

async fn until(mut condition: impl AsyncFnMut() -> std::io::Result<bool>) {
    // An error is a "not yet": nobody listens, or it is just starting.
    while !matches!(timeout(ANSWER_MAX, condition()).await, Ok(Ok(true))) {
        sleep(ASK_EVERY).await;
    }
}
