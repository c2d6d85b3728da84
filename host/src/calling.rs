//! The caller's side of a call over NATS, from the edge or from another plugin: until a worker answers, or it is certain
//! that none will.
//!
//! A call is sent again only where it is certain that no handler has started: the worker said `busy`. Everything else
//! that goes wrong is the caller's to judge.

use crate::broker::{Broker, Error};
use crate::quarantine::Quarantines;
use bytes::Bytes;
use cardcage_protocol::{CallReply, Problem, ProblemCode, ReplyKind};
use std::time::Duration;
use tokio::time::Instant;

/// Waits between tries after `busy`, doubling, each with jitter.
const BUSY_FIRST: Duration = Duration::from_millis(5);
const BUSY_LONGEST: Duration = Duration::from_millis(200);
/// After so long only `busy`, the caller hears it: waiting longer helps nobody behind it.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// A quarantine ends when somebody ends it.
const QUARANTINE_RETRY_S: u32 = 60;

/// Whose route is called.
#[derive(Debug, Clone, Copy)]
pub struct Callee<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// Its major.
    pub major: u32,
    /// The route's name.
    pub route: &'a str,
    /// The calls' subject.
    pub subject: &'a str,
}

/// Tells the workers that nobody waits for a call any more, unless it was answered.
#[derive(Debug)]
pub struct CancelOnDrop<'a> {
    broker: &'a Broker,
    subject: Option<String>,
}

impl<'a> CancelOnDrop<'a> {
    /// `subject`: the call's control subject.
    #[must_use]
    pub fn new(broker: &'a Broker, subject: String) -> Self {
        Self { broker, subject: Some(subject) }
    }

    /// Nobody is at work on it any more.
    pub fn answered(&mut self) {
        self.subject = None;
    }

    /// The same, where the problem says so. With every other one, a handler may be at work that nobody waits for.
    pub fn failed(&mut self, problem: &Problem) {
        if matches!(
            problem.code,
            ProblemCode::NoWorker | ProblemCode::PluginQuarantined | ProblemCode::BrokerUnavailable
        ) {
            self.answered();
        }
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(subject) = self.subject.take() else { return };
        let broker = self.broker.clone();
        tokio::spawn(async move {
            // Best effort: without it the handler runs until its deadline.
            let _ = broker.publish(subject, Bytes::new()).await;
        });
    }
}

/// Sends a call until a worker takes it, within the deadline.
///
/// # Errors
/// Why no worker answers; a reply may be a refusal too.
pub async fn first_reply(
    broker: &Broker,
    quarantines: &Quarantines,
    callee: Callee<'_>,
    deadline: Instant,
    message: Bytes,
) -> Result<CallReply, Problem> {
    let impatient = (Instant::now() + BUSY_PATIENCE).min(deadline);
    let mut wait = BUSY_FIRST;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let replied = tokio::select! {
            replied = broker.call(callee.subject.to_owned(), message.clone(), left) => replied,
            problem = lost(broker) => return Err(problem),
        };
        let reply = match replied {
            Ok(bytes) => CallReply::decode(bytes).map_err(|error| {
                tracing::warn!(%error, route = callee.route, "a worker's reply cannot be read");
                Problem::new(ProblemCode::PluginError)
            })?,
            Err(error) => return Err(unanswered(quarantines, &error, callee)),
        };
        let pause = wait.mul_f64(0.5 + fastrand::f64());
        if reply.kind != ReplyKind::Busy || Instant::now() + pause >= impatient {
            return Ok(reply);
        }
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(BUSY_LONGEST);
    }
}

/// What a reply says instead of a handler's answer.
#[must_use]
pub fn refusal(kind: &ReplyKind) -> Option<ProblemCode> {
    match kind {
        ReplyKind::Done => None,
        ReplyKind::Busy => Some(ProblemCode::WorkerBusy),
        ReplyKind::Crashed => Some(ProblemCode::WorkerCrashed),
        ReplyKind::Expired => Some(ProblemCode::DeadlineExceeded),
        ReplyKind::Refused(code) => Some(ProblemCode::from_code(code).unwrap_or(ProblemCode::PluginError)),
        ReplyKind::GoAhead => Some(ProblemCode::StreamBroken),
    }
}

/// Waits until the connection is lost that there is now: what was asked over it is never answered.
pub async fn lost(broker: &Broker) -> Problem {
    let mut link = broker.watch();
    let before = *link.borrow_and_update();
    // Just up again, and not yet seen so: then its next loss is not seen here either, and the deadline counts.
    let gone =
        link.wait_for(|now| before.connected && (!now.connected || now.generation != before.generation));
    if gone.await.is_err() {
        std::future::pending::<()>().await;
    }
    let detail =
        "The connection to the broker was lost while the call was under way; its handler may have run.";
    Problem::new(ProblemCode::BrokerUnavailable).detail(detail).retry_after_s(1)
}

fn unanswered(quarantines: &Quarantines, error: &Error, callee: Callee<'_>) -> Problem {
    let (name, major) = (callee.plugin, callee.major);
    match error {
        // Workers do not listen for the calls of a version that is quarantined: another one may.
        Error::NoResponders { .. } if quarantines.holds_major(name, major) => {
            Problem::new(ProblemCode::PluginQuarantined).retry_after_s(QUARANTINE_RETRY_S)
        }
        Error::NoResponders { .. } => {
            let detail = format!("No worker has {name} {major}.");
            Problem::new(ProblemCode::NoWorker).detail(detail).retry_after_s(2)
        }
        Error::Timeout { .. } => Problem::new(ProblemCode::DeadlineExceeded),
        Error::Unavailable { .. } => Problem::new(ProblemCode::BrokerUnavailable),
        other => {
            tracing::error!(error = %other, route = callee.route, "a call could not be sent");
            Problem::new(ProblemCode::Internal)
        }
    }
}
