//! Notes on the board: what this process has in hand, so that the supervisor renews its lease, or hands it back.

use super::unit::Unit;
use crate::broker::Delivery;
use crate::crash::{Claim, ClaimError, Kind};
use cardcage_protocol::{TaskEnvelope, TaskId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// How often a full board is asked again.
const BOARD_AGAIN: Duration = Duration::from_millis(10);
/// A delivery that waits for a slot is on the board for this long at most.
const WAITS_AT_MOST: Duration = Duration::from_secs(24 * 3600);

impl Unit {
    /// Notes an attempt on the board. `None`: it cannot be noted, and runs without.
    pub(super) fn try_claim(&self, delivery: &Delivery, note: Note) -> Result<Option<Claim>, BoardFull> {
        let (plugin, task, subject) = (self.room.name.as_str(), self.name.as_str(), delivery.ack_subject());
        let claim = self.shared.board.claim(
            note.kind,
            *note.id.as_bytes(),
            subject,
            plugin,
            task,
            note.attempt,
            note.deadline,
        );
        match claim {
            Ok(claim) => Ok(Some(claim)),
            Err(ClaimError::Full) => Err(BoardFull),
            Err(error @ ClaimError::TooLong(_)) => {
                tracing::warn!(plugin, task, %error, "a task's lease cannot be renewed; shorten the names");
                Ok(None)
            }
        }
    }

    /// The same; a full board is waited for, as long as the lease allows.
    pub(super) async fn claim(&self, delivery: &Delivery, note: Note) -> Result<Option<Claim>, BoardFull> {
        let end = Instant::now() + self.shared.lease / 3;
        loop {
            match self.try_claim(delivery, note) {
                Err(BoardFull) if Instant::now() < end => tokio::time::sleep(BOARD_AGAIN).await,
                done => return done,
            }
        }
    }
}

/// What is noted on the board.
#[derive(Clone, Copy)]
pub(super) struct Note {
    pub(super) kind: Kind,
    pub(super) id: TaskId,
    /// 0 while it waits.
    pub(super) attempt: u32,
    pub(super) deadline: u64,
}

impl Note {
    /// A delivery that is here and was not started.
    pub(super) fn waiting(envelope: &TaskEnvelope) -> Self {
        Self { kind: Kind::Task, id: envelope.id, attempt: 0, deadline: local_deadline(WAITS_AT_MOST) }
    }
}

/// Nothing was noted; a retry helps once something has ended.
pub(super) struct BoardFull;

/// A time from now by this machine's clock, with which the supervisor and the plugin compare: milliseconds since 1970.
pub(super) fn local_deadline(from_now: Duration) -> u64 {
    let ms = u64::try_from(from_now.as_millis()).unwrap_or(u64::MAX);
    Timestamp::now().plus_ms(ms).unix_ms()
}
