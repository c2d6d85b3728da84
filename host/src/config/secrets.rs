//! Secrets by reference: in a plugin's settings, `{ env = "VARIABLE" }` and `{ file = "path" }` stand for the
//! secret that the variable or file holds, so that config files can be shown and kept in version control.
//!
//! Invariant: a secret's value appears in the result and nowhere else, no message included.

use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::check::Check;
use super::errors::Mistake;
use super::tree::{Node, Value};

const SECRET_MAX_BYTES: u64 = 65_536;

/// The table itself, which is never a reference, with its values resolved.
pub(crate) fn table(check: &mut Check<'_>, path: &str, node: &Node) -> Json {
    let entries = node.table().into_iter().flatten();
    let resolved: Map<_, _> =
        entries.map(|(key, node)| (key.clone(), resolve(check, &format!("{path}.{key}"), node))).collect();
    Json::Object(resolved)
}

fn resolve(check: &mut Check<'_>, path: &str, node: &Node) -> Json {
    if let Some((source, reference)) = node.reference() {
        return match secret(check, source, reference) {
            Ok(secret) => Json::String(secret),
            Err((label, help)) => {
                let mistake = Mistake::new(format!("the secret `{path}` cannot be read"));
                check.mistakes.push(mistake.at_value(reference, label).help(help));
                Json::Null
            }
        };
    }
    let number = match &node.value {
        Value::Table(_) => return table(check, path, node),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            return items.map(|(nth, item)| resolve(check, &format!("{path}[{nth}]"), item)).collect();
        }
        Value::String(text) | Value::Datetime(text) => return Json::String(text.clone()),
        Value::Boolean(boolean) => return Json::Bool(*boolean),
        Value::Integer(integer) => i64::try_from(*integer).ok().map(Json::from),
        Value::Float(float) => serde_json::Number::from_f64(*float).map(Json::Number),
    };
    number.unwrap_or_else(|| {
        let label = "a plugin gets its settings as JSON, which cannot hold this number";
        check.mistakes.push(Mistake::new(format!("`{path}` is out of range")).at_value(node, label));
        Json::Null
    })
}

fn secret(check: &Check<'_>, source: &str, reference: &Node) -> Result<String, (String, Option<String>)> {
    let Value::String(name) = &reference.value else {
        let label = format!("expected a string, found {}", reference.value.type_name());
        let help = "a table whose only key is `env` or `file` refers to a secret".to_owned();
        return Err((label, Some(help)));
    };
    if source == "env" {
        return check.environment.get(name).cloned().ok_or_else(|| {
            let label = format!("environment variable {name} is not set");
            (label, Some(format!("set {name}, or refer to a file: {{ file = \"path\" }}")))
        });
    }
    let directory = reference.origin.directory();
    let path = directory.map_or_else(|| PathBuf::from(name), |directory| directory.join(name));
    let unreadable = |reason: String| (format!("cannot read {}: {reason}", path.display()), None);
    let file = std::fs::File::open(&path).map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::new();
    file.take(SECRET_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > SECRET_MAX_BYTES {
        return Err(unreadable(format!("it is larger than {SECRET_MAX_BYTES} bytes")));
    }
    // Editors and `echo` end a file with a line end that is not part of the secret.
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}
