//! The host's own routes below `/tasks/`: looking at a task, following it, and cancelling it.
//!
//! Whoever waits keeps a place among the requests under way and one among the followers, and is sent away with a
//! problem when the instance stops or the broker is lost.

use super::body::EdgeBody;
use super::head::RequestId;
use super::respond;
use super::service::{Edge, wrong_method};
use crate::broker::Error;
use crate::cancel::{self, Cancellation};
use crate::follow::Follower;
use crate::lookup;
use bytes::Bytes;
use cardcage_protocol::{Problem, ProblemCode, TaskId};
use http::{HeaderValue, Method, Response, StatusCode, header};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

/// Time for all the questions of one lookup: a caller hears within three seconds that the broker does not answer.
const LOOKUP_MAX: Duration = Duration::from_millis(2_500);
/// The longest wait for a task's end; whoever asks for more gets this.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Events that wait for a slow reader.
const EVENTS_WAITING: usize = 16;

/// Answers `rest`, which is what follows `/tasks/`.
pub(super) async fn answer(
    edge: &Edge,
    method: &Method,
    rest: &str,
    query: Option<&str>,
    id: RequestId,
    place: OwnedSemaphorePermit,
) -> Response<EdgeBody> {
    let (task, what) = rest.split_once('/').map_or((rest, None), |(task, what)| (task, Some(what)));
    let reads = *method == Method::GET || *method == Method::HEAD;
    match what {
        None if !reads => wrong_method("GET, HEAD", id),
        None => respond(show(edge, task, query, id).await, id),
        Some("events") if !reads => wrong_method("GET, HEAD", id),
        Some("events") => respond(events(edge, task, *method == Method::HEAD, id, place).await, id),
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

async fn show(
    edge: &Edge,
    task: &str,
    query: Option<&str>,
    id: RequestId,
) -> Result<Response<EdgeBody>, Problem> {
    let task = parse(task)?;
    let Some(wait) = wait(query)? else { return view(edge, task, StatusCode::OK, id).await };
    let _follower = follower(edge)?;
    let waited = async {
        let followed = Follower::begin(&edge.broker, task).await.map_err(|error| failed(&error))?;
        let followed = followed.ok_or(Problem::new(ProblemCode::NoSuchTask))?;
        followed.wait_end(wait).await.map_err(|error| failed(&error))
    };
    let view = tokio::select! {
        biased;
        view = waited => view?,
        () = edge.leaving.came() => return Err(Problem::new(ProblemCode::ShuttingDown)),
    };
    Ok(respond::json(StatusCode::OK, &view, id))
}

async fn events(
    edge: &Edge,
    task: &str,
    is_head: bool,
    id: RequestId,
    place: OwnedSemaphorePermit,
) -> Result<Response<EdgeBody>, Problem> {
    let task = parse(task)?;
    let follower = follower(edge)?;
    let followed = Follower::begin(&edge.broker, task).await.map_err(|error| failed(&error))?;
    let followed = followed.ok_or(Problem::new(ProblemCode::NoSuchTask))?;
    let body = if is_head {
        EdgeBody::whole("")
    } else {
        let (out, pieces) = mpsc::channel(EVENTS_WAITING);
        let leaving = edge.leaving.clone();
        tokio::spawn(async move { followed.write_events(out, leaving.came()).await });
        EdgeBody::stream(Bytes::new(), pieces, usize::MAX, None, Box::new((place, follower)))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers events before it passes them on makes them useless.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(respond::with_id(response, id))
}

/// A place among those who wait.
fn follower(edge: &Edge) -> Result<OwnedSemaphorePermit, Problem> {
    edge.followers.clone().try_acquire_owned().map_err(|_| {
        Problem::new(ProblemCode::Overloaded)
            .detail("As many requests wait for tasks as may (api.followers_max).")
    })
}

/// How long the caller wants to wait: `wait=10s`, `500ms` or `1m`.
fn wait(query: Option<&str>) -> Result<Option<Duration>, Problem> {
    let mut pairs = query.unwrap_or_default().split('&');
    let Some(text) = pairs.find_map(|pair| pair.strip_prefix("wait=")) else { return Ok(None) };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match text.get(digits.len()..) {
        Some("ms") => Some(1),
        Some("s") => Some(1_000),
        Some("m") => Some(60_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    match number.zip(unit_ms) {
        Some((number, unit_ms)) => {
            Ok(Some(Duration::from_millis(number.saturating_mul(unit_ms)).min(WAIT_MAX)))
        }
        None => Err(Problem::new(ProblemCode::MalformedRequest)
            .detail("`wait` is a number with a unit, such as 500ms, 10s or 1m.")),
    }
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
    match cancel::cancel(&edge.broker, task, cancel::HANDLER_WAIT).await.map_err(|error| failed(&error))? {
        Cancellation::Unknown => Err(Problem::new(ProblemCode::NoSuchTask)),
        Cancellation::Ended(state) => Err(Problem::new(ProblemCode::TaskEnded)
            .detail(format!("The task ended {state}."))
            .member("state", state.as_str())),
        Cancellation::Done => view(edge, task, StatusCode::OK, id).await,
        Cancellation::Requested => view(edge, task, StatusCode::ACCEPTED, id).await,
    }
}
