//! The merged OpenAPI 3.1 document: every plugin's paths under its prefix, its schemas under its name.

use super::router::Mounted;
use crate::loader::Description;
use serde_json::{Map, Value, json};

/// Merges what the plugins describe.
pub(super) fn merge(mounted: &[Mounted]) -> Value {
    let mut document = Document { paths: host_paths(), ..Document::default() };
    for plugin in mounted {
        document.add(&plugin.description, &plugin.prefix);
    }
    document.finish("Cardcage", env!("CARGO_PKG_VERSION"))
}

/// The document of one plugin, as if it were mounted alone at `prefix`.
#[must_use]
pub fn of_plugin(plugin: &Description, prefix: &str) -> Value {
    let mut document = Document::default();
    document.add(plugin, prefix);
    document.finish(&plugin.name, &plugin.version)
}

/// What a plugin describes, with every reference leading to where its schema is in a merged document.
pub(crate) struct Renamed {
    /// Below the plugin's prefix.
    pub(crate) paths: Map<String, Value>,
    /// The document's `components.schemas`.
    pub(crate) schemas: Map<String, Value>,
}

impl Renamed {
    pub(crate) fn of(plugin: &Description) -> Self {
        let paths = plugin.openapi.paths.iter().map(|(path, item)| {
            let mut item = item.clone();
            rename(&mut item, &plugin.name, None);
            (path.clone(), item)
        });
        let paths = paths.collect();
        let mut schemas = Map::new();
        for (name, schema) in &plugin.openapi.schemas {
            add_schema(&mut schemas, &plugin.name, name, schema.clone());
        }
        Self { paths, schemas }
    }
}

#[derive(Default)]
struct Document {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    tags: Vec<Value>,
}

impl Document {
    fn add(&mut self, plugin: &Description, prefix: &str) {
        let name = &*plugin.name;
        self.tags.push(json!({ "name": name, "description": format!("version {}", plugin.version) }));
        let prefix = prefix.trim_end_matches('/');
        let Renamed { paths, schemas } = Renamed::of(plugin);
        for (path, mut item) in paths {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                complete(operation, name, method);
            }
            self.paths.insert(format!("{prefix}{path}"), item);
        }
        self.schemas.extend(schemas);
    }

    fn finish(self, title: &str, version: &str) -> Value {
        json!({
            "openapi": "3.1.0",
            "info": { "title": title, "version": version },
            "tags": self.tags,
            "paths": self.paths,
            "components": { "schemas": self.schemas },
        })
    }
}

/// Component names are the plugin's name, a dot and its own: two plugins may both have an `Order`.
fn add_schema(schemas: &mut Map<String, Value>, plugin: &str, name: &str, mut schema: Value) {
    let full = format!("{plugin}.{name}");
    // schemars keeps a type's parts in `$defs` of its own; in one document they are components.
    let parts = schema.as_object_mut().and_then(|schema| schema.remove("$defs"));
    rename(&mut schema, plugin, Some(&full));
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
    }
    if let Some(Value::Object(parts)) = parts {
        for (part, mut value) in parts {
            rename(&mut value, plugin, Some(&full));
            schemas.insert(format!("{full}.{part}"), value);
        }
    }
    schemas.insert(full, schema);
}

/// Rewrites references: into components under the plugin's name, into `$defs` under `owner`.
fn rename(value: &mut Value, plugin: &str, owner: Option<&str>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref") {
                if let Some(name) = reference.strip_prefix("#/components/schemas/") {
                    *reference = format!("#/components/schemas/{plugin}.{name}");
                } else if let (Some(name), Some(owner)) = (reference.strip_prefix("#/$defs/"), owner) {
                    *reference = format!("#/components/schemas/{owner}.{name}");
                }
            }
            object.values_mut().for_each(|value| rename(value, plugin, owner));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, plugin, owner)),
        _ => {}
    }
}

fn complete(operation: &mut Value, plugin: &str, method: &str) {
    let Some(operation) = operation.as_object_mut() else { return };
    let id = operation.get("operationId").and_then(Value::as_str).unwrap_or(method).to_owned();
    operation.insert("operationId".into(), format!("{plugin}.{id}").into());
    operation.insert("tags".into(), json!([plugin]));
    if let Some(responses) = operation.entry("responses").or_insert_with(|| json!({})).as_object_mut() {
        responses.entry("default").or_insert_with(|| {
            json!({ "description": "A problem (RFC 9457).", "content": { "application/problem+json": {
                "schema": { "type": "object", "properties": {
                    "type": { "type": "string" }, "title": { "type": "string" }, "status": { "type": "integer" },
                    "code": { "type": "string" }, "detail": { "type": "string" },
                    "request_id": { "type": "string" } } } } } })
        });
    }
}

fn host_paths() -> Map<String, Value> {
    let mut paths = Map::new();
    paths.insert(
        "/tasks/{id}".into(),
        json!({ "get": {
            "operationId": "show_task",
            "summary": "A task's state, attempts, result or error.",
            "parameters": [
                { "name": "id", "in": "path", "required": true, "schema": { "type": "string", "format": "uuid" } },
                { "name": "wait", "in": "query", "required": false,
                    "description": "Wait for its end for so long, as in `10s`; at most a minute.",
                    "schema": { "type": "string", "pattern": "^[0-9]+(ms|s|m)$" } },
            ],
            "responses": { "200": { "description": "The task." }, "404": { "description": "No such task." } },
        } }),
    );
    paths.insert(
        "/tasks/{id}/events".into(),
        json!({ "get": {
            "operationId": "follow_task",
            "summary": "What becomes of a task, as server-sent events: `state`, `progress`, at last `end` or `problem`.",
            "parameters": [{ "name": "id", "in": "path", "required": true,
                "schema": { "type": "string", "format": "uuid" } }],
            "responses": {
                "200": { "description": "Events; the data of `state` and `end` is the task.",
                    "content": { "text/event-stream": { "schema": { "type": "string" } } } },
                "404": { "description": "No such task." },
            },
        } }),
    );
    paths.insert(
        "/tasks/{id}/cancel".into(),
        json!({ "post": {
            "operationId": "cancel_task",
            "summary": "Cancels a task, wherever it is. A running handler is told, and what it returns decides.",
            "parameters": [{ "name": "id", "in": "path", "required": true,
                "schema": { "type": "string", "format": "uuid" } }],
            "responses": {
                "200": { "description": "It has ended `cancelled`." },
                "202": { "description": "It is asked for; the handler is still at it." },
                "404": { "description": "No such task." },
                "409": { "description": "The task has ended." },
            },
        } }),
    );
    paths
}
