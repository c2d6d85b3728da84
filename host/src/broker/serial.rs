//! Serial keys: of the tasks with one key, one is running at a time, in the order in which they came.
//!
//! The key's **lock** names the task whose turn it is. Whoever arrives and finds it taken moves into the key's **line**, a
//! subject of its own, and holds neither slot nor lease there. Whoever ends its turn passes the lock on to the head of the
//! line *before* putting it back into its queue, so that nobody who arrives meanwhile gets ahead of it.
//!
//! ```text
//! arrival ─▶ lock free or mine? ─ yes ─▶ run ─▶ record ─▶ pass on: lock := head of the line, head ─▶ queue ─▶ ack
//!                               └ no ──▶ line ─▶ lock free now? pass on ─▶ ack
//! ```
//!
//! Whoever dies half-way may leave a task in its line and in its queue at once, or twice in its queue. So the lock also names
//! the *message* that has the turn, as soon as it has come to a worker: while that one is in the queue, any other message of the
//! task has none.
//!
//! Invariants: a message leaves the line only when its queue has stored it; a lock changes hands by compare-and-set; every
//! step can be repeated, so whoever gets the redelivery of one that died half-way does it again.
//! Refuses: a lock without end (it has a time to live), and waiting: an arrival is told at once.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Name, TaskAddress, TaskId, header};
use serde::{Deserialize, Serialize};

use super::delivery::Delivery;
use super::direct::StoredMessage;
use super::publish::{pairs, set};
use super::stores::LIMITS;
use super::unique::KEPT;
use super::{Broker, Error};
use crate::failpoint::{Point, reach};

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a lock that changes hands is looked at.
const ROUNDS: usize = 16;

/// Whose turn it is: a task, by the attempt that its message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The task.
    pub task_id: TaskId,
    /// The attempt.
    pub attempt: u32,
    /// The message's sequence in its queue; `None` while it is on its way there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<u64>,
    /// Which delivery of that message took it. Earlier ones had no turn, so nothing of them was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<u64>,
}

impl Turn {
    /// A task's, whose message is on its way into its queue.
    #[must_use]
    pub fn of(task_id: TaskId, attempt: u32) -> Self {
        Self { task_id, attempt, message: None, delivery: None }
    }

    /// That of a message that has come to a worker.
    #[must_use]
    pub fn of_delivery(task_id: TaskId, attempt: u32, delivery: &Delivery) -> Self {
        let (message, delivery) = (Some(delivery.stream_sequence), Some(delivery.num_delivered));
        Self { task_id, attempt, message, delivery }
    }

    /// Deliveries of this message that have had the turn since `taken`, this one included.
    fn deliveries_since(self, taken: Self) -> u64 {
        self.delivery.unwrap_or(1).saturating_sub(taken.delivery.unwrap_or(1)).saturating_add(1)
    }

    /// Whether both are of one attempt of one task.
    fn is_of(self, other: Self) -> bool {
        self.task_id == other.task_id && self.attempt == other.attempt
    }

    /// Whether the end of `self` ends the turn of `holder`.
    fn ends(self, holder: Self) -> bool {
        let is_another = self.message.zip(holder.message).is_some_and(|(own, other)| own != other);
        self.task_id == holder.task_id
            && (holder.attempt < self.attempt || (holder.attempt == self.attempt && !is_another))
    }
}

/// What asking for a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnClaim {
    /// It is this message's turn, and so many of its deliveries have had it, this one included.
    Mine(u64),
    /// Another task has it.
    Busy,
    /// Another message of the same attempt has it, and is in the queue.
    Copy,
    /// A later attempt of the task has it, so this one is over, and nothing of it is left to do.
    Over,
}

/// The first message of a line.
pub(super) struct Head {
    turn: Turn,
    address: TaskAddress,
    message: StoredMessage,
}

impl Broker {
    /// Asks for a key's turn, for a message of this plugin's queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; a retry is harmless.
    pub async fn take_turn(&self, key_hash: &str, plugin: &Name, turn: Turn) -> Result<TurnClaim, Error> {
        let mut expected = 0;
        for _ in 0..ROUNDS {
            if self.write_lock(key_hash, turn, expected).await? {
                return Ok(TurnClaim::Mine(1));
            }
            expected = match self.lock(key_hash).await? {
                None => 0,
                Some((holder, _)) if holder.is_of(turn) && holder.message == turn.message => {
                    return Ok(TurnClaim::Mine(turn.deliveries_since(holder)));
                }
                Some((holder, _)) if holder.task_id != turn.task_id => return Ok(TurnClaim::Busy),
                Some((holder, _)) if holder.attempt > turn.attempt => return Ok(TurnClaim::Over),
                Some((holder, _)) if holder.is_of(turn) && self.has_come(holder, plugin).await? => {
                    return Ok(TurnClaim::Copy);
                }
                // Its own: of an attempt that is over, of a message that is gone, or passed on to it just now.
                Some((_, sequence)) => sequence,
            };
        }
        Err(Error::unavailable("a serial key changes hands too fast"))
    }

    /// Whether the message that has the turn is in its queue.
    async fn has_come(&self, holder: Turn, plugin: &Name) -> Result<bool, Error> {
        let Some(message) = holder.message else { return Ok(false) };
        Ok(self.message_at(&self.subjects().tasks_stream(plugin), message).await?.is_some())
    }

    /// Moves a delivery, which was stored in time, into its key's line. The delivery may be acknowledged then, and the line must be
    /// started: the lock may have become free since it was looked at, and nobody would know of this one.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::QueueFull`] when the lines are at their bound.
    pub async fn join_line(
        &self,
        key_hash: &str,
        delivery: &Delivery,
        address: &TaskAddress,
        turn: Turn,
    ) -> Result<(), Error> {
        let id = format!("{}.{}.q{}", turn.task_id, turn.attempt, delivery.stream_sequence);
        // It was stored in time, and will be stored again later than its enqueuer waited.
        let kept = delivery.headers().filter(|(name, _)| *name != header::ACCEPT_BY);
        let headers = headers(kept, &id)?;
        let subject = self.subjects().line(key_hash, address);
        self.publish_stored(&subject, headers, delivery.payload(), WRITE_TIMEOUT).await?;
        reach(Point::AfterLinedUp);
        Ok(())
    }

    /// Ends a turn: the next in line gets the lock and goes back into its queue. Does what somebody who died left undone.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::QueueFull`]; then it must be tried again.
    pub async fn pass_on(&self, key_hash: &str, turn: Turn) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let Some((holder, sequence)) = self.lock(key_hash).await? else {
                return self.start_line(key_hash).await;
            };
            let head = self.head(key_hash).await?;
            if !turn.ends(holder) {
                // Whoever passed it on may not have come to putting it back.
                return self.put_back_if_its_turn(head, holder).await.map(|_| ());
            }
            match head {
                // A copy that was left behind when it was put back.
                Some(head) if head.turn.task_id == turn.task_id && head.turn.attempt <= turn.attempt => {
                    self.delete_message(&self.subjects().lines_stream(), head.message.sequence).await?;
                }
                Some(head) => {
                    if self.write_lock(key_hash, head.turn, sequence).await? {
                        reach(Point::AfterTurnPassed);
                        return self.put_back(head).await;
                    }
                }
                None => {
                    self.delete_message(&self.subjects().limits_stream(), sequence).await?;
                    return self.start_line(key_hash).await;
                }
            }
        }
        Err(Error::unavailable("a serial key changes hands too fast"))
    }

    /// Gives a free lock to the head of its line, if there is one, and sees to it that the one that has it stands in its queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::QueueFull`]; a repeat is harmless.
    pub async fn start_line(&self, key_hash: &str) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let lock = self.lock(key_hash).await?;
            let Some(head) = self.head(key_hash).await? else { return Ok(()) };
            if let Some((holder, _)) = lock {
                // Whoever gave it the lock may not have come to putting it back, and nobody else would.
                return self.put_back_if_its_turn(Some(head), holder).await.map(|_| ());
            }
            if self.write_lock(key_hash, head.turn, 0).await? {
                return self.put_back(head).await;
            }
        }
        Ok(())
    }

    /// Whose turn it is; `None` where nobody has it.
    pub(super) async fn turn_of(&self, key_hash: &str) -> Result<Option<Turn>, Error> {
        Ok(self.lock(key_hash).await?.map(|(turn, _)| turn))
    }

    pub(super) async fn lock(&self, key_hash: &str) -> Result<Option<(Turn, u64)>, Error> {
        let found = self.limit_entry(&self.subjects().lock(key_hash), "a serial key's lock").await?;
        Ok(found.map(|(turn, message)| (turn, message.sequence)))
    }

    /// Says whether it was written: whether the lock stood at `expected`.
    async fn write_lock(&self, key_hash: &str, turn: Turn, expected: u64) -> Result<bool, Error> {
        let json =
            serde_json::to_vec(&turn).map_err(|error| Error::unreadable("a serial key's lock", error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        set(&mut headers, header::NATS_TTL, &format!("{}s", KEPT.as_secs()))?;
        let subject = self.subjects().lock(key_hash);
        match self.publish_stored(&subject, headers, Bytes::from(json), WRITE_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.of_keys(LIMITS)),
        }
    }

    pub(super) async fn head(&self, key_hash: &str) -> Result<Option<Head>, Error> {
        let (stream, filter) = (self.subjects().lines_stream(), self.subjects().line_of(key_hash));
        loop {
            let Some(message) = self.first_message(&stream, &filter).await? else { return Ok(None) };
            let Ok(address) = self.subjects().parse_line(&message.subject) else {
                tracing::warn!(subject = message.subject, "a message in a line that is no task was removed");
                self.delete_message(&stream, message.sequence).await?;
                continue;
            };
            let attempt = pairs(message.headers.as_ref()).find(|(name, _)| *name == header::ATTEMPT);
            let attempt = attempt.and_then(|(_, value)| value.parse().ok()).unwrap_or(1);
            let turn = Turn::of(address.id, attempt);
            return Ok(Some(Head { turn, address, message }));
        }
    }

    /// Puts the head of a line back into its queue where it has the turn and no message of it has come there. Says
    /// whether it did.
    pub(super) async fn put_back_if_its_turn(&self, head: Option<Head>, holder: Turn) -> Result<bool, Error> {
        let Some(head) = head.filter(|head| head.turn.is_of(holder)) else { return Ok(false) };
        if self.has_come(holder, &head.address.plugin).await? {
            // The end of its turn removes what stands here.
            return Ok(false);
        }
        self.put_back(head).await.map(|()| true)
    }

    /// Puts the head of a line back into its queue.
    async fn put_back(&self, head: Head) -> Result<(), Error> {
        let Head { turn, address, message } = head;
        let id = format!("{}.{}.l{}", turn.task_id, turn.attempt, message.sequence);
        let headers = headers(pairs(message.headers.as_ref()), &id)?;
        let subject = self.subjects().task(&address);
        self.publish_stored(&subject, headers, message.payload, WRITE_TIMEOUT).await?;
        reach(Point::AfterPutBack);
        self.delete_message(&self.subjects().lines_stream(), message.sequence).await
    }
}

/// The headers as they came, without NATS' own, under another identity: a neighbouring version may have written more.
fn headers<'a>(all: impl Iterator<Item = (&'a str, &'a str)>, message_id: &str) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in all.filter(|(name, _)| !name.starts_with(header::NATS_PREFIX)) {
        let unreadable = |error: &dyn std::fmt::Display| Error::unreadable(format!("header {name}"), error);
        let name: async_nats::HeaderName = name.parse().map_err(|error| unreadable(&error))?;
        let value: async_nats::HeaderValue = value.parse().map_err(|error| unreadable(&error))?;
        headers.insert(name, value);
    }
    set(&mut headers, header::NATS_MSG_ID, message_id)?;
    Ok(headers)
}
