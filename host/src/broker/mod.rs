//! The broker: the only place that knows NATS.
//!
//! Everything else speaks of tasks, records, calls and leases; here they become publishes, acknowledgements and stream
//! positions. [`Broker`] is a cheap handle on one connection; each file beside this one is one noun of what can be done
//! with it.
//!
//! Invariants:
//! - Nothing blocks for ever: every wait has a deadline, and while the connection is down an operation fails at once
//!   with [`Error::Unavailable`].
//! - An acknowledgement is a promise: `Ok` means that JetStream has stored it. An error that leaves this open says so.
//! - Streams and consumers are created where they are missing and never changed; a difference is an error that names it.
//!   The one exception is the cap of a task's consumer, which its declaration may change (`consumer`).
//! - No `async_nats` type leaves this module.
//!
//! Refuses: deciding what a task's next state is, and reading bodies.

mod ack;
mod api;
mod batch;
mod bucket;
mod calls;
mod cap;
mod check;
mod clock;
mod connection;
mod consumer;
mod dead;
mod delivery;
mod deployed;
mod direct;
mod early;
mod error;
mod firing;
mod idempotency;
mod inbox;
mod lanes;
mod layout;
mod letter;
mod line;
mod live_limits;
mod look;
mod lookup;
mod once;
mod options;
mod owed;
mod parked;
mod presence;
mod publish;
mod pull;
mod pulse;
mod pump;
mod quarantine;
mod queue_overview;
mod queue_purge;
mod queues;
mod record_store;
mod recurring;
mod release;
mod scan;
mod schedule;
mod schedule_room;
mod serial;
mod serial_sweep;
mod settling;
mod stores;
mod stray;
mod sweep;
mod task_queue;
mod tokens;
mod unique;

pub use ack::Ack;
pub use calls::{Incoming, Subscription};
pub use cap::compare_versions;
pub use check::{CheckError, ServerFacts};
pub use connection::{Broker, Link};
pub use consumer::ConsumerSpec;
pub use dead::DeadLetter;
pub use delivery::Delivery;
pub use error::{DIFFERENCES_REMEDY, Difference, Error};
pub use idempotency::{Claim, KeyRecord, key_hash};
pub use lanes::{Intake, Lanes};
pub use layout::{LayoutReport, StreamSpec};
pub use letter::{Letter, LetterFilter, Letters, Replayed, replay_id};
pub use line::InLine;
pub use lookup::{Place, Waiting};
pub use options::{Options, Storage};
pub use owed::OwedNote;
pub use parked::ParkedTask;
pub use publish::Stored;
pub use pull::{Pull, PullHealth};
pub use pump::Pump;
pub use queue_overview::{Queue, Queues};
pub use queue_purge::{Purged, QueueWalk};
pub use queues::TaskConsumer;
pub use scan::{Amount, Extent};
pub use serial::{Turn, TurnClaim};
pub use serial_sweep::SerialCursor;
pub use settling::Settling;
pub use stores::{Store, StoreBounds};
pub use stray::Stray;
pub use unique::UniqueClaim;
