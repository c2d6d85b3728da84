//! The receiving end of a stream.

use super::{Inbox, Pieces, Silence, WINDOW_FRAMES, cost};
use crate::broker::Broker;
use bytes::Bytes;
use cardcage_protocol::{Frame, limits};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Receives a body through `inbox`, granting credit to `peer` as the pieces are taken. Grants the first window at once.
///
/// The inbox is closed with the body's end, or when the returned receiver is dropped.
pub fn receive(broker: Broker, peer: String, mut inbox: Inbox, silence: Silence) -> Pieces {
    let (pieces, taken) = mpsc::channel(WINDOW_FRAMES.min(16));
    tokio::spawn(async move {
        if let Err(reason) = pump(&broker, &peer, &mut inbox, silence, &pieces).await {
            // Fails only where nobody reads any more.
            let _ = pieces.send(Err(reason)).await;
        }
    });
    taken
}

async fn pump(
    broker: &Broker,
    peer: &str,
    inbox: &mut Inbox,
    silence: Silence,
    pieces: &mpsc::Sender<Result<Bytes, String>>,
) -> Result<(), String> {
    let grant = async |bytes: u32| {
        let credit = Frame::Credit { bytes }.encode().map_err(|error| error.to_string())?;
        broker.publish(peer.to_owned(), credit).await.map_err(|error| error.to_string())
    };
    grant(limits::CREDIT_WINDOW_BYTES).await?;
    let mut expected = 0u32;
    loop {
        let message = tokio::select! {
            message = timeout(silence.0, inbox.recv()) => message,
            () = pieces.closed() => return Ok(()),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Err("the stream was closed".into()),
            Err(_) => return Err("the sender was silent for too long".into()),
        };
        match Frame::decode(message).map_err(|error| format!("a frame is malformed: {error}"))? {
            Frame::Data { seq, bytes } if seq == expected => {
                expected = expected.wrapping_add(1);
                let taken = cost(bytes.len());
                if !bytes.is_empty() && pieces.send(Ok(bytes)).await.is_err() {
                    return Ok(());
                }
                grant(taken).await?;
            }
            Frame::End { seq } if seq == expected => return Ok(()),
            Frame::Data { .. } | Frame::End { .. } => return Err("a frame is missing".into()),
            Frame::Abort { reason } => return Err(format!("the sender gave up: {reason}")),
            Frame::Credit { .. } => {}
        }
    }
}
