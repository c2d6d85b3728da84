//! The measured paths: what each one is, its goal, and the load on it.

use clap::ValueEnum;
use serde::Serialize;

/// A way through cardcage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Path {
    /// `GET /hello/inline?name=x`, answered in the API's child.
    Inline,
    /// `POST /hello/call`, answered by a worker over NATS.
    Call,
    /// The task `echo`, from its publish to its stored outcome.
    Task,
    /// `POST /hello/task`, until the receipt; nobody runs the task.
    Enqueue,
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// Bare crates doing the same work on the wire.
    Floor,
    /// The host with the plugin `hello`.
    Cardcage,
    /// Bare crates doing the least work that keeps a task: publish, pull, store, ack.
    Plain,
}

impl Path {
    pub(crate) const ALL: [Path; 4] = [Path::Inline, Path::Call, Path::Task, Path::Enqueue];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline route",
            Self::Call => "worker call",
            Self::Task => "durable task",
            Self::Enqueue => "HTTP enqueue",
        }
    }

    /// The least ratio to the floor that the design asks for.
    pub(crate) fn goal(self) -> Option<f64> {
        match self {
            Self::Inline | Self::Task => Some(0.9),
            Self::Call => Some(0.85),
            Self::Enqueue => None,
        }
    }

    /// Numbers of callers that ask at the same time, each waiting for its answer.
    ///
    /// A durable task passes the broker three times, so 32 callers mostly wait; 256 show what the system can carry.
    pub(crate) fn callers(self) -> &'static [usize] {
        match self {
            Self::Task => &[256, 32, 1],
            _ => &[32, 1],
        }
    }

    pub(crate) fn sides(self, floors_only: bool) -> Vec<Side> {
        let mut sides = vec![Side::Floor];
        if !floors_only {
            sides.push(Side::Cardcage);
        }
        if self == Self::Task {
            sides.push(Side::Plain);
        }
        sides
    }
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Cardcage => "cardcage",
            Self::Plain => "plain",
        }
    }
}
