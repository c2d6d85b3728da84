//! A page per problem code, so that the `type` of a problem leads somewhere; and one per code of a refused plugin, for
//! operators, who find it in logs and in `/readyz?verbose`.
//!
//! Invariant: a code is one or the other; a test holds the two lists apart.

use super::body::EdgeBody;
use super::head::RequestId;
use super::respond;
use crate::loader;
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

fn refusal(code: loader::Code) -> Value {
    json!({
        "type": format!("/problems/{}", code.as_str()),
        "code": code.as_str(),
        "title": code.title(),
        "retry_may_help": false,
        "what_to_do": code.advice(),
    })
}

/// `GET /problems` and `GET /problems/{code}`.
pub(super) fn answer(path: &str, id: RequestId) -> Response<EdgeBody> {
    match path.strip_prefix("/problems").and_then(|rest| rest.strip_prefix('/')) {
        None => {
            let all: Vec<Value> = ProblemCode::ALL.iter().copied().map(page).collect();
            let refusals: Vec<Value> = loader::Code::ALL.iter().copied().map(refusal).collect();
            respond::json(StatusCode::OK, &json!({ "problems": all, "refusals": refusals }), id)
        }
        Some(code) => {
            let known = ProblemCode::from_code(code).map(page);
            match known.or_else(|| loader::Code::from_code(code).map(refusal)) {
                Some(page) => respond::json(StatusCode::OK, &page, id),
                None => respond::code(ProblemCode::NoSuchRoute, id),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_names_a_problem_or_a_refusal_and_never_both() {
        for code in loader::Code::ALL {
            assert_eq!(ProblemCode::from_code(code.as_str()), None, "{}", code.as_str());
        }
    }
}
