//! What a supervisor knows about a child that can no longer speak.
//!
//! A child that dies of a plugin's segfault says nothing. What it was doing stands in memory that it
//! shares with its supervisor: the [`Board`]. From it the supervisor answers the calls and hands back
//! the tasks that were in flight, and knows which of them the crashing thread was polling.
//!
//! Invariants:
//! - The reader trusts nothing: plugin code shares the child's address space and may have scribbled on
//!   the board. Lengths, text and states are checked before use; a bad entry is skipped, never a crash.
//! - Writing an entry makes no system call, takes no lock and allocates nothing.
//!
//! What it refuses to do: its signal handler notes a few numbers and nothing else (`fault`); it reads no
//! core file and never writes to a child's memory while that child lives.

#[cfg(not(cardcage_sanitize))]
mod alt_stack;
mod board;
mod entry;
mod fault;
mod free_list;
mod libraries;
mod region;
mod thread_slot;
// A sanitizer has a `pthread_create` of its own, and knows no thread that is started past it.
#[cfg(not(cardcage_sanitize))]
mod thread_start;

pub use board::{Board, Claim, ClaimError, ENTRIES, OpenError};
pub use entry::{Entry, Kind, TEXT_MAX};
pub use fault::{Fault, this_thread};
pub use libraries::{LIBRARIES, Mapped, Place};
pub use thread_slot::{Polling, THREAD_SLOTS, ThreadSlot};
