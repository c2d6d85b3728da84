//! What is sent to what, and which answers are wrong.

use crate::{Outcome, Reply};
use plugin_api::bytes::Bytes;
use plugin_api::http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// As deep as no parser should follow.
const DEEP: usize = 20_000;
/// What nobody meant for a part of a path: bytes that are no text, and text that is no name. Extractors refuse the first, handlers
/// see the second.
const PARTS: [&str; 2] = ["%FF%00..%2F", "%00..%2F%F0%9F%A6%80%22%7B"];
/// The largest request that hosts accept, as `api.body_max_bytes` has it.
const BODY_MAX_BYTES: usize = 2_097_152;

/// Routes and tasks of a plugin.
pub(super) struct Declared {
    name: String,
    /// With their parameters filled, in every way.
    pub(super) routes: Vec<(Method, String)>,
    /// As they are declared.
    templates: Vec<(Method, String)>,
    pub(super) tasks: Vec<String>,
}

impl Declared {
    pub(super) fn read(description: &Value) -> Self {
        let list = |name: &str| description.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let template = |route: &Value| Some((text(route, "method").parse().ok()?, text(route, "path")));
        let templates: Vec<(Method, String)> = list("routes").iter().filter_map(template).collect();
        Self {
            name: text(description, "name"),
            routes: templates
                .iter()
                .flat_map(|(method, path)| filled(path).into_iter().map(|path| (method.clone(), path)))
                .collect(),
            templates,
            tasks: list("tasks").iter().map(|task| text(task, "name")).collect(),
        }
    }
}

impl Declared {
    /// What is wrong with a good request that no handler would ever see.
    pub(super) fn unrouted(&self, method: &Method, path: &str) -> Option<String> {
        let is_route = |(declared, template): &(Method, String)| {
            declared == method && fits(template, path.split('?').next().unwrap_or(path))
        };
        if self.templates.iter().any(is_route) {
            return None;
        }
        let routes: Vec<String> =
            self.templates.iter().map(|(method, template)| format!("{method} {template}")).collect();
        let routes = if routes.is_empty() { "none".to_owned() } else { routes.join(", ") };
        Some(format!("{} has no such route; it has {routes}, each below its prefix", self.name))
    }
}

/// Whether a path is one of a template's, as `/{id}/lines` or `/{*rest}`.
fn fits(template: &str, path: &str) -> bool {
    let mut there = path.split('/');
    for part in template.split('/') {
        if part.starts_with("{*") {
            return there.next().is_some_and(|first| !first.is_empty());
        }
        let is_this = |segment: &str| {
            if part.starts_with('{') { !segment.is_empty() } else { segment == part }
        };
        if !there.next().is_some_and(is_this) {
            return false;
        }
    }
    there.next().is_none()
}

/// What a second description says otherwise than the first one.
pub(super) fn difference(first: &Value, second: &Value) -> Option<String> {
    if first == second {
        return None;
    }
    let names = |value: &Value| value.as_object().map(|all| all.keys().cloned().collect::<Vec<_>>());
    let mut names: Vec<String> = [names(first), names(second)].into_iter().flatten().flatten().collect();
    names.sort();
    names.dedup();
    names.retain(|name| first.get(name) != second.get(name));
    Some(format!("it describes itself differently each time, in `{}`", names.join("`, `")))
}

/// Paths whose parameters are what nobody meant.
fn filled(template: &str) -> Vec<String> {
    let with = |filling: &str| {
        let parts = template.split('/');
        let parts: Vec<&str> = parts.map(|part| if part.starts_with('{') { filling } else { part }).collect();
        parts.join("/")
    };
    let mut paths = PARTS.map(with).to_vec();
    paths.dedup();
    paths
}

/// One attempt each: it is about attempts, not about waiting for them; and no crash hides the next one.
pub(super) fn options(declared: &Declared) -> BTreeMap<String, Value> {
    let mut options = BTreeMap::from([
        ("tasks.quarantine_after".to_owned(), json!(0)),
        ("tasks.crash_limit".to_owned(), json!(1)),
        ("tasks.timeout_ms".to_owned(), json!(20_000)),
        ("api.call_timeout_ms".to_owned(), json!(20_000)),
    ]);
    for task in &declared.tasks {
        let name = format!("plugins.{}.tasks.{task}.max_attempts", declared.name);
        options.insert(name, json!(1));
    }
    options
}

/// Bodies that nobody means, each with a media type.
pub(super) fn bodies() -> Vec<(&'static str, &'static str, Bytes)> {
    let json = "application/json";
    let largest = format!("\"{}\"", "x".repeat(BODY_MAX_BYTES - 2));
    vec![
        ("no body", json, Bytes::new()),
        ("bytes that are no UTF-8", json, Bytes::from_static(&[0xff, 0xfe, 0x00, 0x80])),
        ("half a body", json, Bytes::from_static(b"{\"id\": \"a")),
        ("null", json, Bytes::from_static(b"null")),
        ("an empty object", json, Bytes::from_static(b"{}")),
        ("numbers", json, Bytes::from_static(b"[1e308, -0, 18446744073709551616]")),
        ("depth", json, Bytes::from("[".repeat(DEEP))),
        ("bytes of no type", "application/octet-stream", Bytes::from_static(&[0; 64])),
        ("the largest body", json, Bytes::from(largest)),
    ]
}

/// JSON that no version of a task ever meant.
pub(super) fn task_bodies() -> [Value; 4] {
    [json!(null), json!({}), json!([1, "\u{0}"]), json!({ "id": { "\u{ffff}": -1 } })]
}

/// What is wrong with an answer. A plugin may say 503 itself, where something that it needs is away.
pub(super) fn fault_of_reply(reply: &Reply) -> Option<String> {
    let status = reply.status.as_u16();
    let code = reply.code().unwrap_or_default();
    let of_the_host = ["no_worker", "worker_busy", "plugin_quarantined", "overloaded"];
    if status < 500 || status == 503 && !of_the_host.contains(&code.as_str()) {
        return None;
    }
    Some(format!("it is answered {status} {code}"))
}

/// What is wrong with the answer to a call during which the host was stopped. That others than the first one find no worker
/// any more is no fault.
pub(super) fn fault_of_stopped(reply: &Reply) -> Option<String> {
    let status = reply.status.as_u16();
    let is_wrong = status >= 500 && status != 503;
    is_wrong.then(|| format!("it is answered {status} {}", reply.code().unwrap_or_default()))
}

/// What is wrong with how a task ended.
pub(super) fn fault_of_outcome(outcome: &Outcome) -> Option<String> {
    match outcome.code() {
        code @ ("panicked" | "timeout" | "crashed" | "lease_lost" | "dropped" | "result_too_large"
        | "interrupted") => {
            let message = outcome.error.as_ref().map(|error| error.message.as_str());
            Some(format!("it ended {} ({code}): {}", outcome.state, message.unwrap_or_default()))
        }
        _ => None,
    }
}

/// Whether a fault is one of [`super::Rule::Size`].
pub(super) fn is_about_size(fault: &str) -> bool {
    fault.contains("reply_too_large") || fault.contains("result_too_large")
}

#[cfg(test)]
mod tests {
    use super::{filled, fits};

    #[test]
    fn paths_are_filled_in_every_way_that_makes_a_difference() {
        assert_eq!(filled("/call"), ["/call"]);
        assert_eq!(filled("/{id}/lines").len(), 2);
    }

    #[test]
    fn paths_are_those_of_a_template_segment_by_segment() {
        for (template, path) in
            [("/", "/"), ("/{id}", "/o1"), ("/{id}/lines", "/o1/lines"), ("/files/{*rest}", "/files/a/b")]
        {
            assert!(fits(template, path), "{path} is {template}");
        }
        for (template, path) in [
            ("/", "/o1"),
            ("/{id}", "/"),
            ("/{id}", "/o1/"),
            ("/{id}", "/orders/o1"),
            ("/{id}/lines", "/o1"),
            ("/files/{*rest}", "/files/"),
        ] {
            assert!(!fits(template, path), "{path} is not {template}");
        }
    }
}
