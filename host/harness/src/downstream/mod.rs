//! The services that the example plugins call, played by small servers inside the calling process.
//!
//! They behave well until told otherwise, and remember what they were asked, so that a test can tell "once" from
//! "twice". They check no credentials and speak HTTP/1.1 only.

mod faults;
mod lms;
mod order_api;
mod server;

pub use faults::{Fault, Faults};
pub use lms::{Enrolment, Lms};
pub use order_api::OrderApi;
