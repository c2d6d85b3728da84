//! Routes that callers use today, held against the candidate's: gone, moved, asking for more, answering otherwise.
//!
//! What is compared is what a caller sees: method, whole path, and the operation of the OpenAPI document. Whether a route
//! runs inline or on a worker is none of a caller's business, nor is which plugin serves it; whether it answers with a receipt is.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::comparison::misfits;
use super::finding::{Finding, Kind};
use super::misfit::Misfit;
use super::schema::Schema;
use crate::edge::Renamed;
use crate::loader::{Description, Placement, RouteDescription};

/// A plugin's routes as callers see them.
pub(super) struct Served<'a> {
    routes: BTreeMap<String, &'a RouteDescription>,
    /// The operations by path and method.
    paths: Map<String, Value>,
    /// What references in operations and schemas point into.
    document: Value,
}

/// `METHOD /path`, with every parameter alike: its name is not part of what a caller writes.
fn key(prefix: &str, route: &RouteDescription) -> String {
    let segment = |segment: &str| {
        if segment.starts_with("{*") {
            "{*}".to_owned()
        } else if segment.starts_with('{') {
            "{}".to_owned()
        } else {
            segment.to_owned()
        }
    };
    let path = format!("{}{}", prefix.trim_end_matches('/'), route.path);
    let path: Vec<String> = path.split('/').map(segment).collect();
    format!("{} {}", route.method, path.join("/"))
}

impl<'a> Served<'a> {
    pub(super) fn new(prefix: &str, description: &'a Description) -> Self {
        let routes = description.routes.iter().map(|route| (key(prefix, route), route)).collect();
        let Renamed { paths, schemas } = Renamed::of(description);
        let document = json!({ "components": { "schemas": schemas } });
        Self { routes, paths, document }
    }

    fn operation(&self, route: &RouteDescription) -> Option<&Value> {
        self.paths.get(&route.path)?.get(route.method.to_ascii_lowercase())
    }

    fn schema<'s>(&'s self, node: &'s Value) -> Schema<'s> {
        Schema::new(&self.document, node)
    }
}

/// What each plugin of the candidate serves, by its name.
pub(super) struct Sites<'a>(BTreeMap<&'a str, Served<'a>>);

impl<'a> Sites<'a> {
    /// Of plugins with their prefixes.
    pub(super) fn new(plugins: impl IntoIterator<Item = (&'a str, &'a Description)>) -> Self {
        let served = |(prefix, description): (&str, &'a Description)| {
            (description.name.as_str(), Served::new(prefix, description))
        };
        Self(plugins.into_iter().map(served).collect())
    }

    /// Who serves it: one plugin at most.
    fn find(&self, key: &str) -> Option<(&'a str, &Served<'a>, &'a RouteDescription)> {
        self.0.iter().find_map(|(plugin, served)| Some((*plugin, served, *served.routes.get(key)?)))
    }
}

/// What callers of `deployed` would meet.
pub(super) fn compare(
    plugin: &str,
    deployed: &Served<'_>,
    candidate: &Sites<'_>,
    is_cut: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, before) in &deployed.routes {
        let Some((by, candidate, after)) = candidate.find(key) else {
            findings.push(Finding::breaking(
                plugin,
                Kind::RouteRemoved,
                key,
                "is gone: callers get 404 or 405",
            ));
            continue;
        };
        if by != plugin {
            let message = format!("is served by the plugin `{by}` now");
            findings.push(Finding::note(plugin, Kind::RouteMoved, key, message));
        }
        let (was, is) = (before.placement, after.placement);
        if (was == Placement::Enqueue) != (is == Placement::Enqueue) {
            let message =
                format!("was `{}` and is `{}`: what callers get is another thing", was.as_str(), is.as_str());
            findings.push(Finding::breaking(plugin, Kind::RouteChanged, key, message));
            continue;
        }
        let paths = (before.path.as_str(), after.path.as_str());
        let operations = (deployed.operation(before), candidate.operation(after));
        let (Some(before), Some(after)) = operations else {
            if operations.0.is_some() && !is_cut {
                let message = "is no longer part of the OpenAPI document";
                findings.push(Finding::note(plugin, Kind::RouteChanged, key, message));
            }
            continue;
        };
        let compared = Operations { plugin, key, deployed, candidate, paths, before, after };
        compared.parameters(&mut findings);
        compared.request(&mut findings);
        compared.responses(&mut findings);
    }
    findings
}

struct Operations<'a> {
    plugin: &'a str,
    key: &'a str,
    deployed: &'a Served<'a>,
    candidate: &'a Served<'a>,
    /// The templates of the path below the prefix.
    paths: (&'a str, &'a str),
    before: &'a Value,
    after: &'a Value,
}

/// A parameter of an operation, as a caller knows it: one in the path by its place, for its name is no part of what is written.
fn parameters<'a>(path: &str, operation: &'a Value) -> Vec<(String, &'a Value)> {
    let braced = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let braced: Vec<&str> = braced.map(|name| name.trim_start_matches('*')).collect();
    let all = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let named = all.filter_map(|one| {
        let (place, name) = (one.get("in")?.as_str()?, one.get("name")?.as_str()?);
        if place != "path" {
            return Some((format!("{place} parameter `{name}`"), one));
        }
        let nth = braced.iter().position(|known| *known == name)? + 1;
        Some((format!("path parameter {nth}"), one))
    });
    named.collect()
}

/// A body's content types, each with its schema. Raw bytes have none, and then anything of that type is meant.
fn content(body: &Value) -> impl Iterator<Item = (&String, Option<&Value>)> {
    let types = body.get("content").and_then(Value::as_object).into_iter().flatten();
    types.map(|(content_type, media)| (content_type, media.get("schema")))
}

fn is_required(value: &Value) -> bool {
    value.get("required").and_then(Value::as_bool).unwrap_or(false)
}

impl Operations<'_> {
    fn breaks(&self, kind: Kind, message: impl Into<String>) -> Finding {
        Finding::breaking(self.plugin, kind, self.key, message)
    }

    fn notes(&self, kind: Kind, message: impl Into<String>) -> Finding {
        Finding::note(self.plugin, kind, self.key, message)
    }

    fn parameters(&self, findings: &mut Vec<Finding>) {
        let before = parameters(self.paths.0, self.before);
        let after = parameters(self.paths.1, self.after);
        for (name, _) in before.iter().filter(|(name, _)| !after.iter().any(|(other, _)| other == name)) {
            let message = format!("the {name} is no longer documented: it may be passed over");
            findings.push(self.notes(Kind::RequestNarrowed, message));
        }
        for (name, after) in after {
            let known = before.iter().find(|(known, _)| *known == name).map(|(_, one)| *one);
            if is_required(after) && !known.is_some_and(is_required) {
                let message = format!("the {name} is required, and was not");
                findings.push(self.breaks(Kind::RequestNarrowed, message));
            }
            let schemas = (known.and_then(|one| one.get("schema")), after.get("schema"));
            let (Some(sent), Some(taken)) = schemas else { continue };
            for misfit in misfits(self.deployed.schema(sent), self.candidate.schema(taken)) {
                findings
                    .push(self.breaks(Kind::RequestNarrowed, format!("the {name} {}", misfit.for_sender())));
            }
        }
    }

    fn request(&self, findings: &mut Vec<Finding>) {
        let body = |operation: &'_ Value| operation.get("requestBody").cloned().unwrap_or(Value::Null);
        let (before, after) = (body(self.before), body(self.after));
        if is_required(&after) && !is_required(&before) {
            let was = if before.is_null() { "there was none" } else { "was not" };
            findings.push(self.breaks(Kind::RequestNarrowed, format!("a body is required, and {was}")));
        }
        if after.is_null() && !before.is_null() {
            let message = "a body is no longer documented: it may be passed over";
            findings.push(self.notes(Kind::RequestNarrowed, message));
        }
        let taken: BTreeMap<&String, Option<&Value>> = content(&after).collect();
        for (content_type, sent) in content(&before) {
            // Without a body in the document it takes what it took.
            let Some(taken) = taken.get(content_type).copied() else {
                if !taken.is_empty() {
                    let message = format!("a body of {content_type} is not taken any more");
                    findings.push(self.breaks(Kind::RequestNarrowed, message));
                }
                continue;
            };
            let (sent, taken) = match (sent, taken) {
                (Some(sent), Some(taken)) => (sent, taken),
                (None, Some(_)) => {
                    let message =
                        format!("a body of {content_type} has a schema, and had none: it may take less");
                    findings.push(self.notes(Kind::RequestNarrowed, message));
                    continue;
                }
                (_, None) => continue,
            };
            for misfit in misfits(self.deployed.schema(sent), self.candidate.schema(taken)) {
                findings
                    .push(self.breaks(Kind::RequestNarrowed, format!("the body: {}", misfit.for_sender())));
            }
        }
    }

    /// The other way round: what the candidate answers must fit what callers know.
    fn responses(&self, findings: &mut Vec<Finding>) {
        let none = serde_json::Map::new();
        let all = |operation: &'_ Value| operation.get("responses").and_then(Value::as_object).cloned();
        let (before, after) = (all(self.before), all(self.after));
        let (before, after) = (before.as_ref().unwrap_or(&none), after.as_ref().unwrap_or(&none));
        for (status, known) in before.iter().filter(|(status, _)| status.starts_with('2')) {
            // A whole class of statuses, or whatever nothing else is said of.
            let sent = [status.as_str(), "2XX", "default"].into_iter().find_map(|status| after.get(status));
            let Some(sent) = sent else {
                findings
                    .push(self.breaks(Kind::ResponseChanged, format!("{status} is not answered any more")));
                continue;
            };
            let sent: BTreeMap<&String, Option<&Value>> = content(sent).collect();
            for (content_type, known) in content(known) {
                let Some(sent) = sent.get(content_type).copied() else {
                    let message = format!("{status} is no longer {content_type}");
                    findings.push(self.breaks(Kind::ResponseChanged, message));
                    continue;
                };
                let (sent, known) = match (sent, known) {
                    (Some(sent), Some(known)) => (sent, known),
                    (None, Some(_)) => {
                        let message =
                            format!("{status} of {content_type} has no schema any more: it may be anything");
                        findings.push(self.notes(Kind::ResponseChanged, message));
                        continue;
                    }
                    (_, None) => continue,
                };
                let misfits = misfits(self.candidate.schema(sent), self.deployed.schema(known));
                for lost in misfits.iter().filter_map(Misfit::for_receiver) {
                    findings.push(self.breaks(Kind::ResponseChanged, format!("{status}: {lost}")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(path: &str, operation: &Value) -> Description {
        let route =
            json!({ "name": "one", "method": "GET", "path": path, "placement": "worker", "task": null });
        let openapi = json!({ "paths": { path: { "get": operation } } });
        let all =
            json!({ "name": "shop", "version": "1.0.0", "routes": [route], "tasks": [], "openapi": openapi });
        serde_json::from_value(all).unwrap()
    }

    /// What is told, each with whether it breaks somebody.
    fn told(before: &Description, after: &Description) -> Vec<(bool, String)> {
        let findings = compare("shop", &Served::new("/shop", before), &Sites::new([("/shop", after)]), false);
        findings.into_iter().map(|finding| (finding.breaks, finding.message)).collect()
    }

    #[test]
    fn route_that_another_plugin_serves_under_the_same_path_is_moved_and_compared_and_not_gone() {
        let with = |name: &str, path: &str, kind: &str| {
            let schema = json!({ "application/json": { "schema": { "type": kind } } });
            let operation = json!({ "requestBody": { "content": schema }, "responses": {} });
            Description { name: name.to_owned(), ..description(path, &operation) }
        };
        let (before, left) = (with("shop", "/cart/{id}", "string"), with("shop", "/orders", "string"));
        let told = |cart: &Description, prefix: &str| -> Vec<(Kind, bool, String)> {
            let sites = Sites::new([("/shop", &left), (prefix, cart)]);
            let findings = compare("shop", &Served::new("/shop", &before), &sites, false);
            findings.into_iter().map(|one| (one.kind, one.breaks, one.message)).collect()
        };
        let moved = (Kind::RouteMoved, false, "is served by the plugin `cart` now".to_owned());
        assert_eq!(told(&with("cart", "/{cart}", "string"), "/shop/cart"), std::slice::from_ref(&moved));
        let narrowed = (Kind::RequestNarrowed, true, "the body: was string, and is integer".to_owned());
        assert_eq!(told(&with("cart", "/{cart}", "integer"), "/shop/cart"), [moved, narrowed]);
        let gone = (Kind::RouteRemoved, true, "is gone: callers get 404 or 405".to_owned());
        assert_eq!(told(&with("cart", "/{cart}", "string"), "/cart"), [gone]);
    }

    #[test]
    fn place_in_the_path_that_takes_less_breaks_callers_whatever_its_name_is() {
        let with = |name: &str, kind: &str| {
            let parameter =
                json!({ "in": "path", "name": name, "required": true, "schema": { "type": kind } });
            let operation = json!({ "parameters": [parameter], "responses": {} });
            description(&format!("/orders/{{{name}}}"), &operation)
        };
        let before = with("id", "string");
        assert_eq!(told(&before, &with("order", "string")), []);
        let words = "the path parameter 1 was string, and is integer".to_owned();
        assert_eq!(told(&before, &with("order", "integer")), [(true, words)]);
    }

    #[test]
    fn answer_that_a_class_of_statuses_covers_is_still_answered() {
        let with =
            |status: &str| description("/orders", &json!({ "responses": { status: { "description": "" } } }));
        assert_eq!(told(&with("201"), &with("2XX")), []);
        assert_eq!(told(&with("201"), &with("204")), [(true, "201 is not answered any more".to_owned())]);
    }

    /// A description whose one route takes, or answers with, a body of this content.
    fn with_content(place: &str, content: &Value) -> Description {
        let body = json!({ "description": "", "content": content });
        let operation = match place {
            "responses" => json!({ "responses": { "200": body } }),
            _ => json!({ "requestBody": body, "responses": {} }),
        };
        description("/files", &operation)
    }

    #[test]
    fn content_type_without_a_schema_is_one_that_callers_send_and_know() {
        let (bytes, text) = (json!({ "application/octet-stream": {} }), json!({ "text/html": {} }));
        for (place, words) in [
            ("responses", "200 is no longer application/octet-stream"),
            ("requestBody", "a body of application/octet-stream is not taken any more"),
        ] {
            let before = with_content(place, &bytes);
            assert_eq!(told(&before, &before), [], "{place}");
            assert_eq!(told(&before, &with_content(place, &text)), [(true, words.to_owned())]);
        }
    }

    #[test]
    fn schema_that_comes_or_goes_under_the_same_content_type_is_no_other_type() {
        let bytes = json!({ "application/octet-stream": {} });
        let numbers = json!({ "type": "array", "items": { "type": "integer" } });
        let described = json!({ "application/octet-stream": { "schema": numbers } });
        let comes = |place| told(&with_content(place, &bytes), &with_content(place, &described));
        let goes = |place| told(&with_content(place, &described), &with_content(place, &bytes));
        let words = "a body of application/octet-stream has a schema, and had none: it may take less";
        assert_eq!(comes("requestBody"), [(false, words.to_owned())]);
        assert_eq!(goes("requestBody"), [], "it takes more");
        assert_eq!(comes("responses"), [], "it promises more");
        let words = "200 of application/octet-stream has no schema any more: it may be anything";
        assert_eq!(goes("responses"), [(false, words.to_owned())]);
    }

    /// A description whose one route takes an order, of which a line's amount is at least so much.
    fn with_nested(minimum: u64) -> Description {
        let reference = json!({ "$ref": "#/components/schemas/Order" });
        let body = json!({ "required": true, "content": { "application/json": { "schema": reference } } });
        let mut description =
            description("/orders", &json!({ "requestBody": body, "responses": { "202": {} } }));
        // As schemars writes a type with another one inside.
        let order = json!({
            "type": "object",
            "properties": { "line": { "$ref": "#/$defs/Line" } },
            "required": ["line"],
            "$defs": { "Line": {
                "type": "object",
                "properties": { "amount": { "type": "integer", "minimum": minimum } },
                "required": ["amount"],
            } },
        });
        description.openapi.schemas.insert("Order".into(), order);
        description
    }

    #[test]
    fn type_inside_a_body_is_compared_as_one_and_breaks_callers_where_it_takes_less() {
        let before = with_nested(1);
        assert_eq!(told(&before, &with_nested(1)), []);
        assert_eq!(told(&before, &with_nested(0)), []);
        let told = told(&before, &with_nested(10));
        assert!(matches!(told.as_slice(), [(true, words)] if words.contains("amount")), "{told:?}");
    }
}
