//! What a worker does: calls and tasks.

mod bodies;
pub mod calls;
pub mod places;
pub mod schedules;
pub mod tasks;
