//! Releasing the keys of a task that ended in nobody's hands: cancelled where no worker answered, or purged.
//!
//! It is done last, when the task's outcome is recorded and its messages are gone, for whoever is next in line may need the
//! place in the queue. Whoever dies before leaves it to the sweeper.
//!
//! Refuses: the keys of tasks that workers end. They release them themselves, before they acknowledge
//! (`crate::worker::tasks`).

use cardcage_protocol::TaskEnvelope;

use super::{Broker, Turn};
use crate::terms::{serial_hash_of, unique_hash_of};

impl Broker {
    /// Releases what a task held that has ended. What fails is left to a sweep.
    pub async fn release_keys(&self, envelope: &TaskEnvelope) {
        let id = envelope.id;
        if let Some(hash) = unique_hash_of(envelope)
            && let Err(error) = self.release_unique(&hash, id).await
        {
            tracing::debug!(%error, task = %id, "the unique key of a task that has ended could not be released");
        }
        if let Some(hash) = serial_hash_of(envelope) {
            // Whichever of its attempts and messages had it.
            let turn = Turn::of(id, u32::MAX);
            if let Err(error) = self.pass_on(&hash, turn).await {
                tracing::debug!(%error, task = %id, "the turn of a task that has ended could not be passed on");
            }
        }
    }
}
