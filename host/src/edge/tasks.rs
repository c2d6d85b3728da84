//! The host's own routes below `/tasks/`: looking at a task, and cancelling it.

use super::body::EdgeBody;
use super::head::RequestId;
use super::respond;
use super::service::{Edge, wrong_method};
use crate::broker::Error;
use crate::cancel::{self, Cancellation};
use crate::lookup;
use cardcage_protocol::{Problem, ProblemCode, TaskId};
use http::{Method, Response, StatusCode};
use std::time::Duration;
use tokio::time::timeout;

/// Time for all the questions of one lookup: a caller hears within three seconds that the broker does not answer.
const LOOKUP_MAX: Duration = Duration::from_millis(2_500);
/// How long a caller that cancels waits for a running handler's end before it is told that the handler is still at it.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// Answers `rest`, which is what follows `/tasks/`.
pub(super) async fn answer(edge: &Edge, method: &Method, rest: &str, id: RequestId) -> Response<EdgeBody> {
    let (task, what) = rest.split_once('/').map_or((rest, None), |(task, what)| (task, Some(what)));
    let reads = *method == Method::GET || *method == Method::HEAD;
    match what {
        None if !reads => wrong_method("GET, HEAD", id),
        None => respond(show(edge, task, id).await, id),
        Some("cancel") if *method != Method::POST => wrong_method("POST", id),
        Some("cancel") => respond(cancel(edge, task, id).await, id),
        Some(_) => respond::code(ProblemCode::NoSuchRoute, id),
    }
}

fn respond(answer: Result<Response<EdgeBody>, Problem>, id: RequestId) -> Response<EdgeBody> {
    answer.unwrap_or_else(|problem| respond::problem(problem, id))
}

fn parse(task: &str) -> Result<TaskId, Problem> {
    task.parse().map_err(|_| Problem::new(ProblemCode::NoSuchTask).detail("A task's id is a UUID."))
}

fn failed(error: &Error) -> Problem {
    tracing::warn!(%error, "the broker could not be asked about a task");
    Problem::new(error.problem_code())
}

async fn show(edge: &Edge, task: &str, id: RequestId) -> Result<Response<EdgeBody>, Problem> {
    view(edge, parse(task)?, StatusCode::OK, id).await
}

async fn view(
    edge: &Edge,
    task: TaskId,
    status: StatusCode,
    id: RequestId,
) -> Result<Response<EdgeBody>, Problem> {
    let Ok(found) = timeout(LOOKUP_MAX, lookup::show(&edge.broker, task)).await else {
        tracing::warn!("a task could not be looked up in time");
        return Err(Problem::new(ProblemCode::BrokerUnavailable));
    };
    match found {
        Ok(Some(view)) => Ok(respond::json(status, &view, id)),
        Ok(None) => Err(Problem::new(ProblemCode::NoSuchTask)),
        Err(error) => Err(failed(&error)),
    }
}

async fn cancel(edge: &Edge, task: &str, id: RequestId) -> Result<Response<EdgeBody>, Problem> {
    let task = parse(task)?;
    match cancel::cancel(&edge.broker, task, CANCEL_WAIT).await.map_err(|error| failed(&error))? {
        Cancellation::Unknown => Err(Problem::new(ProblemCode::NoSuchTask)),
        Cancellation::Ended(state) => Err(Problem::new(ProblemCode::TaskEnded)
            .detail(format!("The task ended {state}."))
            .member("state", state.as_str())),
        Cancellation::Done => view(edge, task, StatusCode::OK, id).await,
        Cancellation::Requested => view(edge, task, StatusCode::ACCEPTED, id).await,
    }
}
