//! A page per problem code, so that the `type` of a problem leads somewhere.

use super::body::EdgeBody;
use super::head::RequestId;
use super::respond;
use cardcage_protocol::ProblemCode;
use http::{Response, StatusCode};
use serde_json::{Value, json};

fn page(code: ProblemCode) -> Value {
    json!({
        "type": format!("/problems/{code}"),
        "code": code.as_str(),
        "status": code.status(),
        "title": code.title(),
        "retry_may_help": code.is_retryable(),
        "what_to_do": code.advice(),
    })
}

/// `GET /problems` and `GET /problems/{code}`.
pub(super) fn answer(path: &str, id: RequestId) -> Response<EdgeBody> {
    match path.strip_prefix("/problems").and_then(|rest| rest.strip_prefix('/')) {
        None => {
            let all: Vec<Value> = ProblemCode::ALL.iter().copied().map(page).collect();
            respond::json(StatusCode::OK, &json!({ "problems": all }), id)
        }
        Some(code) => match ProblemCode::from_code(code) {
            Some(code) => respond::json(StatusCode::OK, &page(code), id),
            None => respond::code(ProblemCode::NoSuchRoute, id),
        },
    }
}
