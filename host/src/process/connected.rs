//! A child that runs, and what speaks with it: taken from one who stays with it, and given to another.

use super::control::{Reader, ToChild, encode};
use super::spawn::Process;
use super::started::Started;
use std::os::unix::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A child that runs, and what speaks with it.
pub(super) struct Connected {
    pub(super) process: Box<dyn Process>,
    pub(super) reader: Reader<OwnedReadHalf>,
    pub(super) orders: mpsc::UnboundedSender<Vec<u8>>,
    /// Writes the orders; ends with the child.
    pub(super) writer: JoinSet<()>,
    pub(super) born: Instant,
    /// Whether it serves yet.
    pub(super) serves: bool,
    /// The plugins that it has begun.
    pub(super) started: Started,
}

impl Connected {
    /// A child that was just started, at the other end of `ours`. `first` is what it is sent before anything else.
    pub(super) fn new(
        process: Box<dyn Process>,
        ours: UnixStream,
        first: Vec<u8>,
        born: Instant,
    ) -> std::io::Result<Self> {
        ours.set_nonblocking(true)?;
        let (read, write) = tokio::net::UnixStream::from_std(ours)?.into_split();
        let (orders, queue) = mpsc::unbounded_channel();
        let mut writer = JoinSet::new();
        writer.spawn(write_orders(write, queue));
        // The queue's receiver lives as long as the writer: an error means a broken channel, which is noticed.
        let _ = orders.send(first);
        Ok(Self {
            process,
            reader: Reader::new(read),
            orders,
            writer,
            born,
            serves: false,
            started: Started::default(),
        })
    }

    /// Gives it an order.
    pub(super) fn order(&self, order: &ToChild) {
        send(&self.orders, order);
    }
}

/// Gives an order to the child at the other end.
pub(super) fn send(orders: &mpsc::UnboundedSender<Vec<u8>>, order: &ToChild) {
    match encode(order) {
        // No receiver: the channel is broken, which the reading side notices too.
        Ok(frame) => drop(orders.send(frame)),
        Err(error) => tracing::error!(%error, "an order cannot be sent"),
    }
}

async fn write_orders(mut write: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    use tokio::io::AsyncWriteExt;
    while let Some(frame) = queue.recv().await {
        if write.write_all(&frame).await.is_err() {
            return;
        }
    }
}
