//! Where a task belongs: plugin, major, task, priority and id, as they stand at the end of its subjects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::name::Name;

/// How urgent a task is. A task without declared priorities is [`Priority::Normal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// `p1`.
    High,
    /// `p5`.
    #[default]
    Normal,
    /// `p9`.
    Low,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The subject token.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::High => "p1",
            Self::Normal => "p5",
            Self::Low => "p9",
        }
    }

    /// The priority with this token.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.token() == token)
    }
}

/// What a task's subject says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskAddress {
    /// The plugin's name.
    pub plugin: Name,
    /// The plugin's major version.
    pub major: u32,
    /// The task's name.
    pub task: Name,
    /// The priority.
    pub priority: Priority,
    /// The task's id.
    pub id: TaskId,
}

impl fmt::Display for TaskAddress {
    /// `<plugin>.v<major>.<task>.<priority>.<id>`, the tail that `task` and `due` subjects share.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, major, task, priority, id } = self;
        write!(f, "{plugin}.v{major}.{task}.{}.{id}", priority.token())
    }
}

impl FromStr for TaskAddress {
    type Err = SubjectError;

    fn from_str(tail: &str) -> Result<Self, SubjectError> {
        let error = || SubjectError { subject: tail.chars().take(400).collect() };
        let mut tokens = tail.split('.');
        let mut next = || tokens.next().ok_or_else(error);
        let address = Self {
            plugin: next()?.parse().map_err(|_| error())?,
            major: parse_major(next()?).ok_or_else(error)?,
            task: next()?.parse().map_err(|_| error())?,
            priority: Priority::from_token(next()?).ok_or_else(error)?,
            id: next()?.parse().map_err(|_| error())?,
        };
        if tokens.next().is_some() { Err(error()) } else { Ok(address) }
    }
}

/// `v7` → 7; refuses `v07`, `v+7` and `7`, for a major has one spelling.
fn parse_major(token: &str) -> Option<u32> {
    let digits = token.strip_prefix('v')?;
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if canonical { digits.parse().ok() } else { None }
}

/// The subject is none that this host writes. Its sender must correct it; a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the subject {subject:?} does not end in <plugin>.v<major>.<task>.<priority>.<task id>")]
pub struct SubjectError {
    /// The refused subject, cut to 400 characters.
    pub subject: String,
}

/// Appends a number: `write!` costs more where it runs for every task.
pub(crate) fn push_u32(text: &mut String, number: u32) {
    if number >= 10 {
        push_u32(text, number / 10);
    }
    text.push(char::from_digit(number % 10, 10).unwrap_or('0'));
}
