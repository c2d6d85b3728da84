//! The client protocol: lines in, lines out.

use super::core::{Core, Message};
use crate::host_side::lock;
use plugin_api::bytes::Bytes;
use serde_json::json;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// As nats-server has it by default.
const MAX_PAYLOAD: usize = 1 << 20;
/// What hosts ask for at least, and how this behaves.
const VERSION: &str = "2.15.1";

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, core: Arc<Mutex<Core>>, port: u16) {
    // Without it, small answers wait for the other side's acknowledgement.
    let _ = stream.set_nodelay(true);
    let (reader, mut writer) = stream.into_split();
    let (out, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
    let id = lock(&core).connect(out.clone());
    let info = json!({
        "server_id": "DOUBLE", "server_name": "broker-double", "version": VERSION, "proto": 1, "host": "127.0.0.1",
        "port": port, "headers": true, "max_payload": MAX_PAYLOAD, "jetstream": true, "client_id": id, "go": "none",
    });
    let _ = out.send(format!("INFO {info}\r\n").into_bytes());
    let writing = async move {
        while let Some(bytes) = outgoing.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        _ = read(BufReader::new(reader), &core, id) => {}
    }
    lock(&core).disconnect(id);
}

async fn read(
    mut reader: BufReader<tokio::net::tcp::OwnedReadHalf>,
    core: &Mutex<Core>,
    id: u64,
) -> Option<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let words: Vec<&str> = words.collect();
        match (verb.as_str(), words.as_slice()) {
            ("PING", _) => lock(core).send(id, b"PONG\r\n".to_vec()),
            ("SUB", [subject, sid]) => lock(core).subscribe(id, subject, None, sid),
            ("SUB", [subject, queue, sid]) => lock(core).subscribe(id, subject, Some(queue), sid),
            ("UNSUB", [sid, rest @ ..]) => {
                // As the real server: what has more than nine digits is no number.
                let max = rest.first().filter(|max| max.len() <= 9);
                lock(core).unsubscribe(id, sid, max.and_then(|max| max.parse().ok()));
            }
            ("PUB", [subject, rest @ .., size]) => {
                let body = body(&mut reader, size.parse().ok()?).await?;
                let message = Message::new(subject, rest.first().copied(), Bytes::new(), Bytes::from(body));
                lock(core).publish(&message);
            }
            ("HPUB", [subject, rest @ .., head, size]) => {
                let (head, size): (usize, usize) = (head.parse().ok()?, size.parse().ok()?);
                let all = Bytes::from(body(&mut reader, size).await?);
                if head > all.len() {
                    return None;
                }
                let message =
                    Message::new(subject, rest.first().copied(), all.slice(..head), all.slice(head..));
                lock(core).publish(&message);
            }
            // CONNECT, PONG, and empty lines.
            _ => {}
        }
    }
}

/// A payload and the line end after it.
async fn body(reader: &mut BufReader<tokio::net::tcp::OwnedReadHalf>, size: usize) -> Option<Vec<u8>> {
    if size > MAX_PAYLOAD {
        return None;
    }
    let mut body = vec![0; size + 2];
    reader.read_exact(&mut body).await.ok()?;
    body.truncate(size);
    Some(body)
}

/// A message as it goes to a subscription.
pub(super) fn encode(message: &Message, sid: &str) -> Vec<u8> {
    let mut line = String::new();
    let reply = message.reply.as_ref().map(|reply| format!("{reply} ")).unwrap_or_default();
    let (head, body) = (message.head.len(), message.body.len());
    let _ = match head {
        0 => write!(line, "MSG {} {sid} {reply}{body}\r\n", message.subject),
        _ => write!(line, "HMSG {} {sid} {reply}{head} {}\r\n", message.subject, head + body),
    };
    [line.as_bytes(), &message.head, &message.body, b"\r\n"].concat()
}

/// The names and values of a header block.
pub(super) fn headers(block: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(block);
    let pairs = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// A header block, with a status where there is one.
pub(super) fn block(status: &str, headers: &[(String, String)]) -> Bytes {
    let mut text = String::from("NATS/1.0");
    if !status.is_empty() {
        let _ = write!(text, " {status}");
    }
    text.push_str("\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    Bytes::from(text)
}
