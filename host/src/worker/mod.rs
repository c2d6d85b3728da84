//! What a worker does: calls and tasks.

mod bodies;
pub mod calls;
pub mod schedules;
pub mod tasks;
