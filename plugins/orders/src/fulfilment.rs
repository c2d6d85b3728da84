//! The task `fulfil`: one enrolment for each line of an order, and never two.
//!
//! # Invariants
//! * Every attempt first asks the LMS which lines have an enrolment, and leaves those alone. An enrolment whose answer got
//!   lost is repeated under the same idempotency key, at worst.
//! * A line that fails does not hold up the others: all of them are tried, then the attempt says what is left.
//!
//! # How it ends
//! * All lines enrolled: success. Lines that may pass later: another attempt, when the LMS says so if it does.
//! * Lines that the LMS refuses for good (a course that it does not know, a line without SKU): once nothing else is left
//!   to try, the task fails and names them. Not a success with a footnote: somebody paid for these lines and must be
//!   helped, and a dead letter can be replayed once the catalogue is mended, which enrols just what is missing.
//! * Cancelled orders are discarded.

use crate::App;
use crate::downstream::Error;
use crate::lms::Enrolment;
use crate::order_api::{LineItem, Order};
use futures_util::{FutureExt, StreamExt};
use plugin_api::prelude::*;

/// How many lines are enrolled at the same time.
const LINES_AT_ONCE: usize = 4;

/// The order to fulfil.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Fulfil {
    pub(crate) order_id: String,
}

/// What was done in the attempt that ended it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Fulfilled {
    pub(crate) order_id: String,
    /// Lines enrolled by this attempt.
    pub(crate) enrolled: Vec<String>,
    /// Lines that had an enrolment before.
    pub(crate) already: Vec<String>,
}

/// A line that could not be enrolled.
#[derive(Debug, Serialize)]
struct Left<'a> {
    line_id: &'a str,
    reason: String,
}

/// Enrols the learner for every line of the order.
#[task(retry(max_attempts = 8, backoff = "1s..2m"), timeout = "2m")]
pub(crate) async fn fulfil(ctx: TaskContext<App>, input: Fulfil) -> TaskResult<Fulfilled> {
    let app = ctx.state();
    let order_id = input.order_id.as_str();
    let order: Order = app.orders.order(order_id, app.timeout).await.map_err(Error::into_task_error)?;
    if order.order_state.as_deref() == Some("Cancelled") {
        return Err(TaskError::discard("the order was cancelled"));
    }
    let email = order.customer_email.ok_or_else(|| TaskError::fail("the order has no customer email"))?;
    let known =
        app.lms.enrolled(order_id, app.timeout).await.map_err(Error::into_task_error)?.unwrap_or_default();
    let (already, todo): (Vec<_>, Vec<_>) =
        order.line_items.iter().partition(|line| known.contains(&line.id));

    // Boxed: the compiler cannot see that futures made by a borrowing closure are `Send` for every lifetime.
    let mut enrolling = Vec::with_capacity(todo.len());
    for line in todo {
        enrolling.push(enrol(app, order_id, &email, line).boxed());
    }
    let results: Vec<_> = futures_util::stream::iter(enrolling).buffered(LINES_AT_ONCE).collect().await;

    let mut done = Fulfilled { order_id: order_id.to_owned(), ..Fulfilled::default() };
    done.already = already.into_iter().map(|line| line.id.clone()).collect();
    let (mut refused, mut delayed, mut after) = (Vec::new(), Vec::new(), None);
    for (line_id, result) in results {
        match result {
            Ok(()) => done.enrolled.push(line_id.to_owned()),
            Err(error) => {
                let left = Left { line_id, reason: error.to_string() };
                match error {
                    Error::Unavailable { after: wanted, .. } => {
                        after = after.max(wanted);
                        delayed.push(left);
                    }
                    _ => refused.push(left),
                }
            }
        }
    }
    info!(
        order_id,
        attempt = ctx.attempt(),
        enrolled = done.enrolled.len(),
        already = done.already.len(),
        delayed = delayed.len(),
        refused = refused.len(),
        "order lines enrolled"
    );
    if delayed.is_empty() && refused.is_empty() {
        return Ok(done);
    }
    let lines = order.line_items.len();
    let error = match (delayed.len(), after) {
        (0, _) => TaskError::fail(format!("{} of {lines} lines are refused for good", refused.len())),
        (left, Some(after)) => {
            TaskError::retry_after(after, format!("{left} of {lines} lines are not enrolled yet"))
        }
        (left, None) => TaskError::retry(format!("{left} of {lines} lines are not enrolled yet")),
    };
    let details =
        json!({ "delayed": delayed, "refused": refused, "enrolled": done.enrolled, "already": done.already });
    Err(error.with(details))
}

async fn enrol<'a>(
    app: &App,
    order_id: &str,
    email: &str,
    line: &'a LineItem,
) -> (&'a str, Result<(), Error>) {
    let result = match line.variant.sku.as_deref() {
        Some(course) => {
            let enrolment = Enrolment { order_id, line_id: &line.id, course, email };
            app.lms.enrol(&enrolment, app.timeout).await
        }
        None => Err(Error::NoCourse),
    };
    (line.id.as_str(), result)
}
