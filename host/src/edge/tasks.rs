//! `GET /tasks/{id}`.

use super::body::EdgeBody;
use super::head::RequestId;
use super::respond;
use super::service::Edge;
use cardcage_protocol::{Problem, ProblemCode, TaskId};
use http::{Response, StatusCode};
use std::time::Duration;
use tokio::time::timeout;

/// Time for all the questions of one lookup: a caller hears within three seconds that the broker does not answer.
const LOOKUP_MAX: Duration = Duration::from_millis(2_500);

pub(super) async fn show(edge: &Edge, id: &str, request_id: RequestId) -> Response<EdgeBody> {
    let Ok(task) = id.parse::<TaskId>() else {
        let problem = Problem::new(ProblemCode::NoSuchTask).detail("A task's id is a UUID.");
        return respond::problem(problem, request_id);
    };
    let Ok(found) = timeout(LOOKUP_MAX, crate::lookup::show(&edge.broker, task)).await else {
        tracing::warn!("a task could not be looked up in time");
        return respond::code(ProblemCode::BrokerUnavailable, request_id);
    };
    match found {
        Ok(Some(view)) => respond::json(StatusCode::OK, &view, request_id),
        Ok(None) => respond::code(ProblemCode::NoSuchTask, request_id),
        Err(error) => {
            tracing::warn!(%error, "a task could not be looked up");
            respond::code(error.problem_code(), request_id)
        }
    }
}
