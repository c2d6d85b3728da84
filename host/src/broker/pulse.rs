//! Whether a broker that is connected still answers.
//!
//! A broker that hangs keeps its connections open. The client notices by its own pings after ten to fifteen seconds;
//! callers are to hear it within three. So when nothing has come from the broker for a while, this connection sends
//! itself something small by way of it. That asks nobody but the server, and nobody else can take the answer away: a
//! request without a responder would stay unanswered as soon as somebody listens to everything, as `nats sub '>'` does.
//!
//! # Invariants
//! * Where anything comes in, nobody asks.
//! * Whatever comes in is a sign of life, the echo or not: also a refusal of the question, for want of a permission.
//! * One missed answer is no verdict: this process may itself have been kept waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// When nothing has come in between two looks, the broker is asked.
const EVERY: Duration = Duration::from_millis(250);
/// Time for an answer. Two are missed before the broker is said to hang: 2.5 s after its last sign of life at the latest.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for as long as it is polled; tells `wake` of each change of `hangs`. `subject` is this connection's alone.
pub(super) async fn feel(client: Client, subject: String, hangs: Arc<AtomicBool>, wake: Arc<Notify>) {
    let mut echo = match client.subscribe(subject.clone()).await {
        Ok(echo) => echo,
        Err(error) => {
            tracing::warn!(%error, "a broker that hangs will be noticed late");
            return std::future::pending().await;
        }
    };
    let mut heard = 0;
    loop {
        sleep(EVERY).await;
        let now_heard = bytes_in(&client);
        let is_silent = std::mem::replace(&mut heard, now_heard) == now_heard;
        let hung = hangs.load(Ordering::Relaxed);
        // Without a connection there is nobody to ask.
        let hangs_now = client.connection_state() == State::Connected
            && is_silent
            && !answers(&client, &subject, &mut echo).await
            && !answers(&client, &subject, &mut echo).await;
        if hangs_now != hung {
            hangs.store(hangs_now, Ordering::Relaxed);
            if hangs_now {
                tracing::warn!("the broker is connected but does not answer");
            } else {
                tracing::info!("the broker answers again, or is being reconnected");
            }
            wake.notify_one();
        }
    }
}

/// Asks once; an echo of an earlier question that comes only now is an answer, too.
async fn answers(client: &Client, subject: &str, echo: &mut Subscriber) -> bool {
    let before = bytes_in(client);
    let asked = async {
        // What is left of earlier questions says nothing of now.
        while echo.next().now_or_never().flatten().is_some() {}
        client.publish(subject.to_owned(), Bytes::new()).await.is_ok() && echo.next().await.is_some()
    };
    timeout(PATIENCE, asked).await.unwrap_or(false) || bytes_in(client) != before
}

/// Everything that has come over the connection so far, the protocol's own lines included.
fn bytes_in(client: &Client) -> u64 {
    client.statistics().in_bytes.load(Ordering::Relaxed)
}
