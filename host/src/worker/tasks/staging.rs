//! Tasks that a handler enqueues: kept with its attempt, and published when that attempt has succeeded.
//!
//! An attempt that is tried again would otherwise enqueue again what it had enqueued before. So the children are a part
//! of the fenced completion, and whatever else an attempt comes to (a retry, a failure, a lost lease) drops them.
//!
//! Invariants: what is staged is bounded in number and bytes; what comes from a handler whose attempt is over is refused.

use super::unit::Shared;
use cardcage_protocol::{Problem, ProblemCode, StagedTask, TaskId, limits};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one attempt has staged.
#[derive(Debug, Default)]
pub(super) struct Staged(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The attempt under way and the first task of its tree; `None` before its start and after its end.
    under_way: Option<(u32, TaskId)>,
    children: Vec<StagedTask>,
    bytes: usize,
}

impl Staged {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt starts.
    pub(super) fn open(&self, attempt: u32, root: TaskId) {
        self.lock().under_way = Some((attempt, root));
    }

    /// The attempt is over: what it has staged. Nothing is added from now on.
    pub(super) fn close(&self) -> Vec<StagedTask> {
        let mut inner = self.lock();
        inner.under_way = None;
        std::mem::take(&mut inner.children)
    }

    fn root(&self) -> Option<TaskId> {
        self.lock().under_way.map(|(_, root)| root)
    }

    /// Adds children, all or none; answers the first one's place.
    fn add(&self, attempt: u32, children: Vec<StagedTask>) -> Result<u32, Problem> {
        let size: usize = children.iter().map(StagedTask::size).sum();
        let mut inner = self.lock();
        if inner.under_way.is_none_or(|(under_way, _)| under_way != attempt) {
            return Err(Problem::new(ProblemCode::AttemptOver));
        }
        let place = inner.children.len();
        let too_many = |detail: String| Err(Problem::new(ProblemCode::TooManyChildren).detail(detail));
        if place + children.len() > limits::CHILDREN_MAX {
            return too_many(format!("An attempt enqueues at most {} tasks.", limits::CHILDREN_MAX));
        }
        if inner.bytes + size > limits::CHILDREN_MAX_BYTES {
            let detail = format!(
                "What an attempt enqueues has at most {} bytes; with this it would be {}.",
                limits::CHILDREN_MAX_BYTES,
                inner.bytes + size
            );
            return too_many(detail);
        }
        inner.bytes += size;
        inner.children.extend(children);
        Ok(u32::try_from(place).unwrap_or(u32::MAX))
    }
}

/// Takes what handlers enqueue, and knows which of them do something once.
#[derive(Debug, Clone)]
pub struct Staging(pub(super) Arc<Shared>);

impl Staging {
    /// Keeps a child of this attempt; answers the id that it will have.
    ///
    /// # Errors
    /// A problem for the handler: too many, too large, or the attempt is over.
    pub fn stage(&self, parent: TaskId, attempt: u32, child: StagedTask) -> Result<TaskId, Problem> {
        let holding = self.0.held.holding(parent).ok_or(Problem::new(ProblemCode::AttemptOver))?;
        let place = holding.staged.add(attempt, vec![child])?;
        Ok(TaskId::derive(parent, place))
    }

    /// Keeps several, or none; answers the ids that they will have.
    ///
    /// # Errors
    /// As [`Staging::stage`].
    pub fn stage_all(
        &self,
        parent: TaskId,
        attempt: u32,
        children: Vec<StagedTask>,
    ) -> Result<Vec<TaskId>, Problem> {
        let holding = self.0.held.holding(parent).ok_or(Problem::new(ProblemCode::AttemptOver))?;
        let count = children.len();
        let first = holding.staged.add(attempt, children)?;
        Ok((first..).take(count).map(|place| TaskId::derive(parent, place)).collect())
    }

    /// Notes that a task does something once.
    pub fn note_once(&self, id: TaskId) {
        if let Some(holding) = self.0.held.holding(id) {
            holding.note_once();
        }
    }

    /// The first task of the tree to which a task belongs that runs here.
    #[must_use]
    pub fn root(&self, id: TaskId) -> Option<TaskId> {
        self.0.held.holding(id)?.staged.root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardcage_protocol::{Name, Priority};
    use serde_json::value::RawValue;

    fn child(body: &str) -> StagedTask {
        StagedTask {
            plugin: Name::new("p").unwrap(),
            version: "1.0.0".to_owned(),
            major: 1,
            task: Name::new("t").unwrap(),
            priority: Priority::Normal,
            at: None,
            expires_ms: None,
            idempotency_key: None,
            from: None,
            unique_key: None,
            serial_key: None,
            traceparent: None,
            body: RawValue::from_string(body.to_owned()).unwrap(),
        }
    }

    fn code(result: Result<u32, Problem>) -> ProblemCode {
        result.unwrap_err().code
    }

    #[test]
    fn what_an_attempt_stages_is_bounded_in_number_and_bytes() {
        let staged = Staged::default();
        staged.open(1, TaskId::generate());
        let large = format!("\"{}\"", "x".repeat(limits::CHILDREN_MAX_BYTES));
        assert_eq!(code(staged.add(1, vec![child(&large)])), ProblemCode::TooManyChildren);
        for n in 0..u32::try_from(limits::CHILDREN_MAX).unwrap() {
            assert_eq!(staged.add(1, vec![child("1")]).unwrap(), n);
        }
        assert_eq!(code(staged.add(1, vec![child("1")])), ProblemCode::TooManyChildren);
        assert_eq!(staged.close().len(), limits::CHILDREN_MAX);
    }

    #[test]
    fn of_several_that_are_too_many_together_none_is_staged() {
        let staged = Staged::default();
        staged.open(1, TaskId::generate());
        assert_eq!(staged.add(1, vec![child("1"), child("2")]).unwrap(), 0);
        let many = (0..limits::CHILDREN_MAX - 1).map(|_| child("3")).collect();
        assert_eq!(code(staged.add(1, many)), ProblemCode::TooManyChildren);
        let large = format!("\"{}\"", "x".repeat(limits::CHILDREN_MAX_BYTES / 2));
        assert_eq!(code(staged.add(1, vec![child(&large), child(&large)])), ProblemCode::TooManyChildren);
        assert_eq!(staged.add(1, vec![child("4")]).unwrap(), 2);
        assert_eq!(staged.close().len(), 3);
    }

    #[test]
    fn only_the_attempt_under_way_stages() {
        let staged = Staged::default();
        assert_eq!(code(staged.add(1, vec![child("1")])), ProblemCode::AttemptOver);
        staged.open(2, TaskId::generate());
        assert_eq!(code(staged.add(1, vec![child("1")])), ProblemCode::AttemptOver);
        assert_eq!(staged.add(2, vec![child("1")]).unwrap(), 0);
        assert_eq!(staged.close().len(), 1);
        assert_eq!(code(staged.add(2, vec![child("1")])), ProblemCode::AttemptOver);
    }
}
