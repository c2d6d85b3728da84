//! Whether a broker that is connected still answers.
//!
//! A broker that hangs keeps its connections open. The client notices by its own pings after ten to fifteen seconds;
//! callers are to hear it within three. So the broker is asked something small when nothing has come from it for a
//! while.
//!
//! # Invariants
//! * Where messages come in, nobody asks.
//! * One missed answer is no verdict: this process may itself have been kept waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Request, RequestErrorKind};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long nothing may come in before the broker is asked.
const EVERY: Duration = Duration::from_millis(500);
/// Time for an answer. Two are missed before the broker is said to hang: 2.5 s after its last message at the latest.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for as long as it is polled; tells `wake` of each change of `hangs`.
pub(super) async fn feel(client: Client, subject: String, hangs: Arc<AtomicBool>, wake: Arc<Notify>) {
    let mut seen = 0;
    loop {
        sleep(EVERY).await;
        let received = client.statistics().in_messages.load(Ordering::Relaxed);
        let silent = std::mem::replace(&mut seen, received) == received;
        let hung = hangs.load(Ordering::Relaxed);
        // Without a connection there is nobody to ask.
        let hangs_now = client.connection_state() == State::Connected
            && (silent || hung)
            && !answers(&client, &subject).await
            && !answers(&client, &subject).await;
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

/// Nobody listens on the subject, which the server itself says at once.
async fn answers(client: &Client, subject: &str) -> bool {
    let asked = client.send_request(subject.to_owned(), Request::new().timeout(None));
    match timeout(PATIENCE, asked).await {
        Err(_) => false,
        Ok(Err(error)) => error.kind() != RequestErrorKind::TimedOut,
        Ok(Ok(_)) => true,
    }
}
