//! Tests of plugins: one API, three levels.
//!
//! | level | what runs | what is real |
//! |---|---|---|
//! | [`Bench::unit`] | the plugin's code in the test's process, on a clock that is put forward | handlers, settings, retries, children, `once` |
//! | [`Bench::plugin`] | the built library in `cardcage` processes, with a broker double in the test's process | the ABI, hosts, the envelope |
//! | [`Bench::system`] | the built library in `cardcage` processes, with a real nats-server | everything |
//!
//! The same test body runs on all of them:
//!
//! ```
//! use plugin_api::prelude::*;
//! use testkit::Bench;
//!
//! #[derive(Debug, Clone)]
//! struct App;
//!
//! /// Greets, at the third try.
//! #[task(retry(max_attempts = 5, backoff = "1m..1h"))]
//! async fn greet(ctx: TaskContext<App>, name: String) -> TaskResult<String> {
//!     if ctx.attempt() < 3 { Err(TaskError::retry("not yet awake")) } else { Ok(format!("Hello {name}")) }
//! }
//!
//! fn definition() -> Plugin<App> {
//!     Plugin::new(async |_| Ok(App)).task(greet)
//! }
//!
//! async fn late_riser_greets_in_the_end(bench: Bench) -> testkit::Result<()> {
//!     let id = bench.enqueue("greet", &json!("Ada")).await?;
//!     let outcome = bench.outcome(id).await?;
//!     assert_eq!((outcome.attempts, outcome.succeeded()?), (3, json!("Hello Ada")));
//!     Ok(())
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! // `Bench::system(library)` starts processes instead, and the rest stays as it is.
//! let bench = Bench::unit(definition).start().await.unwrap();
//! late_riser_greets_in_the_end(bench).await.unwrap();
//! # });
//! ```
//!
//! [`TestHost`] calls single handlers with their own types, below all of that.
//!
//! # What it refuses
//! It builds nothing and downloads nothing: what is missing is named with the command that gets it. It depends on neither
//! the host nor a NATS client, so a plugin's tests compile little more than the plugin.

mod answer;
mod bench;
mod conformance;
mod double;
mod error;
mod host;
mod host_side;
mod stub;
mod test_host;
mod unit;
mod wait;

pub use answer::{Failure, Outcome, Reply};
pub use bench::{Bench, Level, Setup};
pub use conformance::{Conformance, Finding, Report, Rule, conformance};
pub use double::BrokerDouble;
pub use error::{Error, Result};
pub use host::library;
pub use test_host::{Enqueued, TestHost, TestRoutes};
pub use wait::eventually;
