//! What the host serves of its own: the merged OpenAPI document and the problem pages.

use std::collections::BTreeSet;

use cardcage_protocol::ProblemCode;
use serde_json::Value;

use crate::serving::{Serving, assert_problem};

#[tokio::test]
async fn openapi_document_merges_the_plugins_and_every_reference_resolves() {
    let serving = Serving::api(|config| config).await;
    let reply = serving.get("/openapi.json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let document = reply.json().unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/hello/inline", "/hello/call", "/hello/task", "/chaos/call", "/chaos/task", "/tasks/{id}"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer =
            reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let ids: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            into.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, into)),
        _ => {}
    }
}

#[tokio::test]
async fn every_problem_code_has_a_page() {
    let serving = Serving::api(|config| config).await;
    for code in ProblemCode::ALL {
        let page = serving.get(&format!("/problems/{code}")).await;
        assert_eq!(page.status, 200, "{code}");
        assert_eq!(page.json().unwrap()["status"], code.status());
        assert!(page.json().unwrap()["what_to_do"].is_string());
    }
    let all = serving.get("/problems").await.json().unwrap();
    assert_eq!(all["problems"].as_array().unwrap().len(), ProblemCode::ALL.len());
    assert_problem(&serving.get("/problems/none").await, 404, "no_such_route");
}
