//! Room for delayed tasks: hosts count, because a stream with schedules has no bound that refuses.
//!
//! A look at the stream allows so many tasks as are an eighth of what is free, for a second. So far from the bound a look
//! costs next to nothing per task, and near it every task looks; several hosts that look at the same time go over the bound by
//! a few tasks for each host, never by a multiple.
//!
//! Refuses: holding up what was promised. Retries, and whatever else is already somebody's, are stored without a look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cardcage_protocol::limits;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::api::{API_TIMEOUT, STREAM_NOT_FOUND};
use super::{Broker, Error};

/// How long what a look allows may be used.
const ALLOWED_FOR: Duration = Duration::from_secs(1);
/// How long it is believed that there is no room, so that a flood of refused tasks is no flood of looks.
const FULL_FOR: Duration = Duration::from_millis(100);
/// A look allows this part of what is free.
const SHARE: u64 = 8;
/// The most that one task takes.
const TASK_MAX_BYTES: u64 = (limits::TASK_BODY_MAX_BYTES + limits::ENVELOPE_HEADERS_MAX_BYTES + 1024) as u64;

/// What one that is on its way is taken to have; its true size counts once it is stored.
const BODY_BYTES: u64 = 1024;

/// What is known of the room.
#[derive(Debug, Default)]
pub(super) struct ScheduleRoom {
    last: Mutex<Option<Look>>,
    /// This host's tasks that may or may not be there yet.
    on_their_way: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    allowed: u64,
    /// It found no room.
    is_full: bool,
}

/// So many tasks on their way into the schedule, until their publish has been answered.
#[derive(Debug)]
pub(super) struct OnItsWay<'a>(&'a AtomicU64, u64);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// How many tasks may be stored before the next look.
fn allowed(free_messages: u64, free_bytes: u64) -> u64 {
    if free_messages == 0 || free_bytes == 0 {
        return 0;
    }
    (free_messages / SHARE).min(free_bytes / SHARE / TASK_MAX_BYTES).max(1)
}

impl Broker {
    /// Whether there is room for one more delayed task, which counts until what is returned is dropped.
    pub(super) async fn find_schedule_room(&self) -> Result<OnItsWay<'_>, Error> {
        let room = self.schedule_room();
        let mut last = room.last.lock().await;
        let known = last.filter(|look| {
            if look.is_full {
                look.at.elapsed() < FULL_FOR
            } else {
                look.allowed > 0 && look.at.elapsed() < ALLOWED_FOR
            }
        });
        let mut look = match known {
            Some(look) => look,
            None => self.look_at_room().await?,
        };
        let is_allowed = look.allowed > 0;
        look.allowed = look.allowed.saturating_sub(1);
        *last = Some(look);
        if !is_allowed {
            return Err(Error::ScheduleFull);
        }
        room.on_their_way.fetch_add(1, Ordering::AcqRel);
        Ok(OnItsWay(&room.on_their_way, 1))
    }

    /// The same for tasks that are stored together, which have a look of their own: there is room for all, or for none.
    pub(super) async fn find_schedule_room_for(&self, tasks: u64, bytes: u64) -> Result<OnItsWay<'_>, Error> {
        let room = self.schedule_room();
        // One look at a time, so that two batches do not take the same room.
        let _last = room.last.lock().await;
        if let Some((free_messages, free_bytes)) = self.free_room().await?
            && (free_messages < tasks || free_bytes < bytes)
        {
            return Err(Error::ScheduleFull);
        }
        room.on_their_way.fetch_add(tasks, Ordering::AcqRel);
        Ok(OnItsWay(&room.on_their_way, tasks))
    }

    async fn look_at_room(&self) -> Result<Look, Error> {
        let at = Instant::now();
        // Where there is no stream, whoever publishes is told so.
        let Some((messages, bytes)) = self.free_room().await? else {
            return Ok(Look { at, allowed: 1, is_full: false });
        };
        let allowed = allowed(messages, bytes);
        Ok(Look { at, allowed, is_full: allowed == 0 })
    }

    /// Messages and bytes that are free; `None` where the stream does not exist.
    async fn free_room(&self) -> Result<Option<(u64, u64)>, Error> {
        let tail = format!("STREAM.INFO.{}", self.subjects().schedule_stream());
        // Read before the stream is: one that is stored after the look was on its way then. Some are counted twice, which
        // refuses early, and never late.
        let on_their_way = self.schedule_room().on_their_way.load(Ordering::Acquire);
        let answer = match self.api(&tail, &json!(null), API_TIMEOUT).await {
            Err(Error::Refused { code: STREAM_NOT_FOUND, .. }) => return Ok(None),
            other => other?,
        };
        let have =
            |field: &str| answer.get("state").and_then(|state| state.get(field)).and_then(Value::as_u64);
        let bounds = &self.options().stores;
        let messages = have("messages").unwrap_or(0).saturating_add(on_their_way);
        let bytes = have("bytes").unwrap_or(0).saturating_add(on_their_way.saturating_mul(BODY_BYTES));
        Ok(Some((
            bounds.delayed_max_messages.saturating_sub(messages),
            bounds.delayed_max_bytes.saturating_sub(bytes),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_allows_an_eighth_of_what_is_free_and_near_the_bound_one() {
        assert_eq!(allowed(80, u64::MAX), 10);
        assert_eq!(allowed(7, u64::MAX), 1);
        assert_eq!(allowed(0, u64::MAX), 0);
        assert_eq!(allowed(u64::MAX, 16 * TASK_MAX_BYTES), 2);
        assert_eq!(allowed(u64::MAX, 0), 0);
    }
}
