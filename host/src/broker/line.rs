//! The lines of serial keys, as people see them: who stands in them, and behind whom.
//!
//! To everybody who asks, a task in a line is a queued one; it stands in no queue, so whoever shows, counts or purges queues
//! looks here as well.
//!
//! Refuses: moving anybody. That is `serial`'s part.

use std::ops::ControlFlow;

use cardcage_protocol::{Name, TaskId};

use super::queue_purge::QueueWalk;
use super::scan::Amount;
use super::{Broker, Error, Extent, Waiting};

/// Where a task stands in the line of its serial key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InLine {
    /// The task that has the turn; `None` in the moment between two turns.
    pub holder: Option<TaskId>,
    /// How many stand before it.
    pub ahead: u64,
}

impl Broker {
    /// Where a task stands in a line; `None` where it stands in none.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn place_in_line(&self, id: TaskId) -> Result<Option<InLine>, Error> {
        let stream = self.subjects().lines_stream();
        let Some(message) = self.first_message(&stream, &self.subjects().line_by_id(id)).await? else {
            return Ok(None);
        };
        let Some(key_hash) = self.subjects().key_of_line(&message.subject) else { return Ok(None) };
        let line = self.subjects().line_of(key_hash);
        let all = self.amount(&stream, &line, 1).await?.count;
        let from_here = self.amount(&stream, &line, message.sequence).await?.count;
        let holder = self.turn_of(key_hash).await?.map(|turn| turn.task_id);
        Ok(Some(InLine { holder, ahead: all.saturating_sub(from_here) }))
    }

    /// Shows who waits in lines, of one plugin or of all, the latest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn look_at_lines(
        &self,
        mut take: impl FnMut(Waiting) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        self.newest(&self.subjects().lines_stream(), |message| {
            match self.subjects().parse_line(&message.subject) {
                Ok(address) => take(*Waiting::new(address, message)),
                Err(_) => ControlFlow::Continue(()),
            }
        })
        .await
    }

    /// How many of a plugin's tasks stand in lines; with `task`, of that task.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn lines_amount(&self, plugin: &Name, task: Option<&Name>) -> Result<Amount, Error> {
        self.amount(&self.subjects().lines_stream(), &self.subjects().lines_of(plugin, task), 1).await
    }

    /// A plugin's tasks in lines, or those of one task.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn walk_lines(&self, plugin: &Name, task: Option<&Name>) -> Result<QueueWalk, Error> {
        self.walk(self.subjects().lines_stream(), self.subjects().lines_of(plugin, task), task).await
    }
}
