//! What is owed to others when a child has died, or holds what it cannot give up.
//!
//! The room knows neither callers nor the broker: whoever does is given from outside.

use super::started::Begun;
use super::{Death, Fate};
use crate::crash::Entry;
use futures_util::future::BoxFuture;
use std::time::Duration;

/// How long the aftermath may hold up the next child.
pub(super) const AFTERMATH_MAX: Duration = Duration::from_secs(5);

/// A child that has died.
#[derive(Clone, Debug)]
pub struct Deceased {
    /// The plugins that it had begun.
    pub begun: Vec<Begun>,
    /// Of what.
    pub how: Death,
    /// How long it lived.
    pub alive: Duration,
}

/// What is owed to others when a child has died: an answer for each call, the return of each task.
pub trait Aftermath: Send + Sync {
    /// Called once for each child that died while serving or left entries behind, with what its death means for each.
    /// It is given five seconds, during which no new child starts.
    fn child_died(&self, remains: Vec<(Entry, Fate)>, child: Deceased) -> BoxFuture<'_, ()>;

    /// Called for a task that holds its thread past its limit where its child cannot give it up. The child is replaced.
    fn overran(&self, task: Entry) -> BoxFuture<'_, ()>;
}
