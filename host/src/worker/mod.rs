//! What a worker does: calls and tasks.

pub mod calls;
pub mod tasks;
