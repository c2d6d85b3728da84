//! The HTTP edge: what API callers talk to. Runs in the API's child.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /tasks/{id}` | a task's state, attempts, result or error; 404 for an unknown id; `?wait=10s` waits for its end |
//! | `GET /tasks/{id}/events` | the same, as server-sent events: `state`, `progress`, at last `end` |
//! | `POST /tasks/{id}/cancel` | 200 where it has ended `cancelled`, 202 while its handler is still at it, 409 after its end |
//! | `GET /openapi.json` | the merged OpenAPI 3.1 document |
//! | `GET /problems`, `GET /problems/{code}` | what a problem code means and what to do |
//! | anything below a plugin's prefix | that plugin's routes, by placement |
//!
//! Placements: `inline` calls the handler in this process; `worker` forwards the request as a call over NATS;
//! `enqueue` checks the body against the task's schema, publishes the task and answers 202.
//!
//! # Invariants
//! * Every error is `application/problem+json` with a code of its own and the request's id.
//! * No 2xx for a task before JetStream has acknowledged the publish.
//! * Bounds on head, body, time and the number of requests under way; over a bound the caller gets a named error.
//! * The routing table is built once, at load, and never changes.
//!
//! # What it refuses
//! No TLS (a proxy's work), no routes of its own under a plugin's prefix, no retry of a call that may have run.

mod activity;
mod body;
mod cutoff;
mod enqueue;
mod forward;
mod head;
mod inline;
mod openapi;
mod overrides;
mod patience;
mod problem_pages;
mod respond;
mod router;
mod server;
mod service;
mod tasks;
mod unparsable;

pub use body::EdgeBody;
pub(crate) use openapi::Renamed;
pub use openapi::of_plugin as openapi_of_plugin;
pub use overrides::override_faults;
pub use router::{BuildError, Matched, Mounted, Router, placement_of};
pub use server::{Departure, Server, ServerOptions};
pub use service::{Edge, EdgeLimits};
