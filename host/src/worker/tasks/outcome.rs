//! The outcome of an attempt: stored with its fence, or not at all.
//!
//! # Invariants
//! * A write that is refused is tried again only where the record says that the attempt is still this worker's.
//! * Without a record to fence with, an attempt whose lease may have ended writes only while its message stands in its queue.

use super::arrival::Standing;
use super::attempt::{Delivered, ROUNDS};
use super::carry_out::Carried;
use super::counters::bump;
use super::ending::{self, Ended, Facts};
use super::plan::Plan;
use super::unit::Shared;
use cardcage_protocol::StagedTask;
use tokio::time::Instant;

impl Delivered<'_> {
    /// Whether the delivery's message is still in its queue. Without a record to fence with, that is how an attempt whose lease may
    /// have ended knows that nobody has ended the task meanwhile: an outcome may have been kept for less time.
    pub(super) async fn is_there(&self, until: Instant) -> Result<bool, Carried> {
        let Shared { broker, payer, .. } = &*self.unit.shared;
        let says = "a task's message could not be looked for; trying again";
        let (plugin, sequence) = (&self.envelope.plugin, self.delivery.stream_sequence);
        payer.again(until, says, || broker.is_queued(plugin, sequence)).await
    }

    /// Has what the task did once forgotten with its outcome.
    pub(super) async fn end_once(&self) {
        let id = self.envelope.id;
        if let Err(error) = self.unit.shared.broker.end_once(id).await {
            tracing::debug!(task = %id, %error, "what a task did once is kept for longer than its outcome");
        }
    }

    /// Stores the outcome of the attempt that `started` then, with its fence or not at all. Says whether the task has ended with
    /// it.
    pub(super) async fn end(
        &self,
        facts: &Facts<'_>,
        standing: Standing,
        ended: &Ended,
        children: &[StagedTask],
        started: Instant,
    ) -> bool {
        let (shared, limits) = (&*self.unit.shared, &self.unit.limits);
        let until = started + limits.timeout + shared.lease;
        let (plugin, task, id) = (self.unit.room.name.as_str(), self.unit.name.as_str(), self.envelope.id);
        let mut rng = fastrand::Rng::new();
        let appended = standing.record.is_some();
        let mut standing = standing;
        for _ in 0..ROUNDS {
            if standing.fence == 0 && started.elapsed() > shared.lease {
                match Box::pin(self.is_there(until)).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => return self.give_up(),
                }
            }
            let plan = ending::end(facts, standing.record, standing.fence, ended, limits, &mut rng)
                .with_children(children)
                .with_hook(self.unit.hook.as_ref())
                .kept_for(limits.result_ttl);
            log_end(plugin, task, facts, &plan);
            let has_ended = plan.write.as_ref().is_some_and(|write| write.record.state.is_final());
            match shared.carry_out(self.envelope, self.delivery, plan, None, until).await {
                Carried::Out => return has_ended,
                Carried::GivenUp => return self.give_up(),
                Carried::Conflict => {}
            }
            let current = match Box::pin(shared.read(self.envelope, until)).await {
                Ok(current) => current,
                Err(_) => break,
            };
            match ending::still_mine(facts, appended, current) {
                Some(merged) => standing = merged,
                None => break,
            }
        }
        bump(&shared.counters.refused);
        let attempt = facts.attempt;
        tracing::warn!(plugin, task, %id, attempt, "a completion was refused: the attempt is no longer this worker's");
        false
    }

    fn give_up(&self) -> bool {
        let (plugin, task) = (self.unit.room.name.as_str(), self.unit.name.as_str());
        bump(&self.unit.shared.counters.given_up);
        tracing::error!(plugin, task, id = %self.envelope.id, "an outcome could not be stored in time; the task runs again");
        false
    }
}

fn log_end(plugin: &str, task: &str, facts: &Facts<'_>, plan: &Plan) {
    let Some(write) = &plan.write else { return };
    let error = write
        .record
        .attempts
        .iter()
        .find(|attempt| attempt.n == facts.attempt)
        .and_then(|a| a.error.as_ref());
    let Some(error) = error else { return };
    tracing::warn!(
        plugin, task, id = %facts.envelope.id, attempt = facts.attempt, state = write.record.state.as_str(),
        code = error.code, error = error.message, "an attempt did not succeed"
    );
}
