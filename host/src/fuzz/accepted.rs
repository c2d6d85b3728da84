//! What a host does with a description that it has accepted: mounts its routes, merges its OpenAPI part, compiles its schemas and
//! holds bodies against them, and holds it against itself as `check --against` would.

use crate::command::check::breaks_itself;
use crate::edge::{Matched, Mounted, Router, openapi_of_plugin};
use crate::loader::Description;
use cardcage_protocol::{Namespace, Subjects};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

const PREFIX: &str = "/fuzzed";
/// Most inputs leave most parts of a description as they are: those that were looked at are not looked at again. Bounded.
const REMEMBERED_MAX: usize = 10_000;

/// Whether this part is met for the first time, or has been forgotten since.
fn is_new(part: impl Hash) -> bool {
    static REMEMBERED: LazyLock<Mutex<HashSet<u64>>> = LazyLock::new(Mutex::default);
    let mut hasher = DefaultHasher::new();
    part.hash(&mut hasher);
    let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    if remembered.len() >= REMEMBERED_MAX {
        remembered.clear();
    }
    remembered.insert(hasher.finish())
}

/// # Errors
/// What is broken.
pub(super) fn follow(description: &Description) -> Result<(), String> {
    let text = |part: &Value| part.to_string();
    let schemas: Vec<String> = description.tasks.iter().map(|task| text(&task.input_schema)).collect();
    let routes = format!("{:?}", description.routes);
    let openapi = format!("{:?}", description.openapi);
    if is_new((&routes, &schemas)) {
        mounted(description)?;
    }
    if is_new(&openapi) {
        documented(description)?;
    }
    let inputs = description.tasks.iter().map(|task| &task.input_schema);
    for schema in inputs.chain(&description.config_schema).filter(|schema| is_new(text(schema))) {
        hold_bodies_against(schema);
    }
    let schedules = format!("{:?}", description.schedules);
    if !is_new((routes, schemas, openapi, schedules)) {
        return Ok(());
    }
    match breaks_itself(PREFIX, description).first() {
        Some(message) => Err(format!("it breaks itself: {message}")),
        None => Ok(()),
    }
}

/// Where the table can be built, each route is found in it.
fn mounted(description: &Description) -> Result<(), String> {
    let mounted = Mounted {
        identity: description.identity(),
        description: Arc::new(description.clone()),
        prefix: PREFIX.to_owned(),
        placement: None,
        routes: BTreeMap::new(),
        plugin: None,
    };
    let Ok(router) = Router::build(&[mounted], &Subjects::new(Namespace::default())) else { return Ok(()) };
    for route in description.routes.iter().filter(|route| !route.path.contains(['{', '}'])) {
        let method = Method::from_bytes(route.method.as_bytes()).unwrap_or_default();
        match router.find(&method, &format!("{PREFIX}{}", route.path)) {
            Matched::Route(found) if found.name.as_str() == route.name => {}
            other => return Err(format!("{} {} leads to {other:?}", route.method, route.path)),
        }
    }
    Ok(())
}

/// Every path is in the document, under the prefix, and the document can be written and read.
fn documented(description: &Description) -> Result<(), String> {
    let document = openapi_of_plugin(description, PREFIX);
    let paths = document.get("paths").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if paths != description.openapi.paths.len() {
        return Err(format!("the document has {paths} paths of {}", description.openapi.paths.len()));
    }
    let text = document.to_string();
    match serde_json::from_str::<Value>(&text) {
        Ok(again) if again == document => Ok(()),
        _ => Err("the OpenAPI document is read otherwise than it was written".to_owned()),
    }
}

/// A schema that cannot be compiled is refused elsewhere. One that can must answer for any body.
fn hold_bodies_against(schema: &Value) {
    let Ok(validator) = jsonschema::validator_for(schema) else { return };
    for body in [json!(null), json!({}), json!([1, "", {}]), json!({ "id": 1e300, "": [] }), schema.clone()] {
        for fault in validator.iter_errors(&body) {
            let _ = fault.to_string();
        }
    }
}
