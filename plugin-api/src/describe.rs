//! What a plugin says of itself: routes, tasks and OpenAPI, as the JSON that the host reads.

use http::Method;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::openapi::path::Paths;
use utoipa::openapi::{RefOr, schema::Schema};

const METHODS: [&str; 7] = ["get", "post", "put", "delete", "patch", "head", "options"];

#[derive(Debug, Default)]
pub(crate) struct Described {
    pub(crate) config_schema: Option<Value>,
    needs: Vec<Value>,
    pub(crate) schedules: Vec<Value>,
    routes: Vec<Value>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

/// A subject token: what is not `[a-z0-9_-]` becomes `_`.
fn token(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '_' };
    text.chars().map(clean).take(64).collect()
}

impl Described {
    pub(crate) fn routes(
        &mut self,
        paths: &Paths,
        schemas: &[(String, RefOr<Schema>)],
        placement: &'static str,
    ) {
        for (name, schema) in schemas {
            if let Ok(schema) = serde_json::to_value(schema) {
                self.schemas.insert(name.clone(), schema);
            }
        }
        for (path, item) in &paths.paths {
            let Ok(Value::Object(item)) = serde_json::to_value(item) else { continue };
            let path = if path.is_empty() { "/" } else { path };
            for (method, operation) in item {
                if METHODS.contains(&method.as_str()) {
                    self.route(&method, path, operation, placement, None);
                }
            }
        }
    }

    pub(crate) fn enqueue_route(&mut self, method: &Method, path: &str, task: &str, description: &str) {
        let operation = json!({
            "operationId": format!("enqueue_{task}"),
            "summary": description,
            "requestBody": { "required": true, "content": { "application/json": { "schema": {
                "$ref": format!("#/components/schemas/{}", task_schema(task)),
            } } } },
            "responses": { "202": { "description": "The task is stored; the body is its receipt." } },
        });
        self.route(&method.as_str().to_ascii_lowercase(), path, operation, "enqueue", Some(task));
    }

    fn route(&mut self, method: &str, path: &str, mut operation: Value, placement: &str, task: Option<&str>) {
        let id = operation.get("operationId").and_then(Value::as_str);
        let mut name = token(id.unwrap_or(&format!("{method}_{path}")));
        let taken =
            |name: &str, routes: &[Value]| routes.iter().any(|r| r.get("name").is_some_and(|n| n == name));
        while taken(&name, &self.routes) {
            // Handlers of one name in different modules: the second gets its method and path.
            name = token(&format!("{name}_{method}"));
            if name.len() == 64 {
                break;
            }
        }
        if let Some(operation) = operation.as_object_mut() {
            operation.insert("operationId".into(), name.clone().into());
        }
        tell_bytes_as_bytes(&mut operation);
        self.routes.push(json!({
            "name": name,
            "method": method.to_ascii_uppercase(),
            "path": path,
            "placement": placement,
            "task": task,
        }));
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(method.into(), operation);
        }
    }

    pub(crate) fn need(&mut self, plugin: &str, major: u32, optional: bool) {
        self.needs.push(json!({ "plugin": plugin, "major": major, "optional": optional }));
    }

    /// `METHOD /path` of each route, in the order in which they are described.
    pub(crate) fn route_names(&self) -> Vec<Arc<str>> {
        let text = |route: &Value, key: &str| {
            route.get(key).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let name = |route: &Value| Arc::from(format!("{} {}", text(route, "method"), text(route, "path")));
        self.routes.iter().map(name).collect()
    }

    pub(crate) fn to_json(&self, name: &str, version: &str, tasks: Vec<Value>) -> Value {
        let mut schemas = self.schemas.clone();
        for task in &tasks {
            if let (Some(name), Some(schema)) =
                (task.get("name").and_then(Value::as_str), task.get("input_schema"))
            {
                schemas.insert(task_schema(name), schema.clone());
            }
        }
        json!({
            "name": name,
            "version": version,
            "routes": self.routes,
            "tasks": tasks,
            "needs": self.needs,
            "schedules": self.schedules,
            "config_schema": self.config_schema,
            "openapi": { "paths": self.paths, "schemas": schemas },
        })
    }
}

/// Takes the schema from every body of raw bytes: OpenAPI 3.1 writes them as a media type without one.
///
/// A handler says `content = Vec<u8>`, of which utoipa makes an array of numbers, and clients a body of JSON.
fn tell_bytes_as_bytes(operation: &mut Value) {
    let numbers = json!({ "type": "array", "items": { "type": "integer", "format": "int32", "minimum": 0 } });
    let tell = |body: &mut Value| {
        let media = body.pointer_mut("/content/application~1octet-stream").and_then(Value::as_object_mut);
        if let Some(media) = media
            && media.get("schema") == Some(&numbers)
        {
            media.remove("schema");
        }
    };
    if let Some(body) = operation.get_mut("requestBody") {
        tell(body);
    }
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    responses.into_iter().flat_map(Map::values_mut).for_each(tell);
}

fn task_schema(task: &str) -> String {
    format!("task.{task}")
}
