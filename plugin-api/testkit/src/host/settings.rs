//! The configuration file of the hosts under test.
//!
//! Everything is one dotted key, so that what a test sets replaces what stands here.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Settings that make a test quick: short leases, backoffs a hundred times as fast, everything in memory.
pub(super) fn quick(broker_url: &str) -> BTreeMap<String, Value> {
    let all = json!({
        "broker.url": broker_url,
        "broker.storage": "memory",
        "api.listen": "127.0.0.1:0",
        "admin.listen": "127.0.0.1:0",
        "tasks.lease_ms": 4_000,
        "tasks.cancel_grace_ms": 2_000,
        "drain.grace_ms": 2_500,
        "retry.time_scale": 0.01,
        "loading.timeout_ms": 60_000,
    });
    match all {
        Value::Object(all) => all.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

/// The text of the file.
pub(super) fn toml(options: &BTreeMap<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in options.iter().filter(|(_, value)| !value.is_null()) {
        let _ = writeln!(text, "{name} = {}", inline(value));
    }
    text
}

/// A value as TOML; JSON's strings are TOML's, and a member that is null is left out.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(members) => table(members),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().filter(|item| !item.is_null()).map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn table(members: &Map<String, Value>) -> String {
    let members = members.iter().filter(|(_, value)| !value.is_null());
    let members: Vec<String> =
        members.map(|(name, value)| format!("{} = {}", Value::from(name.as_str()), inline(value))).collect();
    format!("{{ {} }}", members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_any_shape_become_toml() {
        let config = json!({ "a b": [1, null, "x\"y"], "none": null, "deep": { "on": true, "rate": 0.5 } });
        let options = BTreeMap::from([("plugins.x.config".to_owned(), config)]);
        let expected = "plugins.x.config = { \"a b\" = [1, \"x\\\"y\"], \"deep\" = { \"on\" = true, \"rate\" = 0.5 } }\n";
        assert_eq!(toml(&options), expected);
    }
}
