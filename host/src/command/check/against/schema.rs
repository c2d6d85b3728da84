//! Whether what fits one JSON Schema fits another: the question behind "does this change break anybody?".
//!
//! It compares what plugins' schemas say in practice: types, members, enumerations, bounds, alternatives, references.
//! What it does not know it passes over, so a silence is no proof; the bodies that wait are held against the schema itself
//! (`waiting.rs`).
//!
//! Invariant: it ends, however schemas refer to each other.

use std::cell::Cell;
use std::collections::HashSet;

use serde_json::{Map, Value};

/// Differences that one comparison tells.
const TOLD_MAX: usize = 8;
/// How deep members are followed.
const DEPTH_MAX: usize = 32;
/// Pairs of schemas that one comparison looks at: alternatives of alternatives are too many to try them all.
const PAIRS_MAX: usize = 20_000;
/// Words of a schema that bound from below, and from above.
const LOWER: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
const UPPER: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// A schema, and the document that its references point into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'a> {
    pub(super) document: &'a Value,
    pub(super) node: &'a Value,
}

impl<'a> Schema<'a> {
    /// A schema that refers to nothing but itself.
    pub(super) fn whole(document: &'a Value) -> Self {
        Self { document, node: document }
    }

    fn at(self, node: &'a Value) -> Self {
        Self { node, ..self }
    }

    /// The schema behind a reference.
    fn resolved(self) -> Self {
        let mut schema = self;
        for _ in 0..DEPTH_MAX {
            let one = schema.node.get("allOf").and_then(Value::as_array).filter(|all| all.len() == 1);
            let next = match (schema.node.get("$ref").and_then(Value::as_str), one) {
                (Some(reference), _) => {
                    reference.strip_prefix('#').and_then(|pointer| self.document.pointer(pointer))
                }
                (None, Some(all)) => all.first(),
                (None, None) => return schema,
            };
            let Some(next) = next else { return schema };
            schema = schema.at(next);
        }
        schema
    }

    fn word(self, name: &str) -> Option<&'a Value> {
        self.node.get(name)
    }

    fn members(self) -> Option<&'a Map<String, Value>> {
        self.word("properties")?.as_object()
    }

    fn required(self) -> HashSet<&'a str> {
        self.word("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// The types that it names; `None` where it takes any.
    fn types(self) -> Option<HashSet<&'a str>> {
        match self.word("type")? {
            Value::String(one) => Some(HashSet::from([one.as_str()])),
            Value::Array(some) => Some(some.iter().filter_map(Value::as_str).collect()),
            _ => None,
        }
    }

    /// The only values that it takes.
    fn values(self) -> Option<Vec<&'a Value>> {
        match (self.word("enum").and_then(Value::as_array), self.word("const")) {
            (Some(values), _) => Some(values.iter().collect()),
            (None, Some(value)) => Some(vec![value]),
            (None, None) => None,
        }
    }

    /// The schemas of which one is enough.
    fn alternatives(self) -> Option<Vec<Self>> {
        let some = self.word("anyOf").or_else(|| self.word("oneOf"))?.as_array()?;
        Some(some.iter().map(|node| self.at(node)).collect())
    }
}

/// One thing that fits the one schema and not the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The member, as `lines[].sku`; empty for the whole.
    at: String,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Types of what is sent, and of what is taken.
    Type(String, String),
    AnyType(String),
    Value(String),
    AnyValue,
    Bound(&'static str, String),
    Pattern(String),
    Required,
    Unknown,
    Closed,
}

impl Misfit {
    fn told(&self, what: String) -> String {
        if self.at.is_empty() { what } else { format!("`{}` {what}", self.at) }
    }

    /// For whoever sends what the earlier schema allowed.
    pub(super) fn for_sender(&self) -> String {
        self.told(match &self.what {
            What::Type(sent, taken) => format!("was {sent}, and is {taken}"),
            What::AnyType(taken) => format!("was of any type, and is {taken}"),
            What::Value(value) => format!("is no longer {value}"),
            What::AnyValue => "was free, and is one of a few values".to_owned(),
            What::Bound(word, bound) => format!("has a {word} of {bound}"),
            What::Pattern(pattern) => format!("has the pattern {pattern}"),
            What::Required => "is required, and was not".to_owned(),
            What::Unknown => "is not taken any more".to_owned(),
            What::Closed => "refuses members that it does not know, and did not".to_owned(),
        })
    }

    /// For whoever gets what the later schema allows, and knows the earlier one. `None` where it does not hurt: who does
    /// not know a member passes over it.
    pub(super) fn for_receiver(&self) -> Option<String> {
        Some(self.told(match &self.what {
            What::Type(sent, taken) => format!("was {taken}, and is {sent}"),
            What::AnyType(taken) => format!("was {taken}, and is of any type"),
            What::Value(value) => format!("may be {value}, which is new"),
            What::AnyValue => "was one of a few values, and is free".to_owned(),
            What::Bound(word, bound) => format!("had a {word} of {bound}"),
            What::Pattern(pattern) => format!("had the pattern {pattern}"),
            What::Required => "may be missing, and was not".to_owned(),
            What::Unknown | What::Closed => return None,
        }))
    }
}

/// What of `sent` does not fit `taken`; empty where nothing is known to.
pub(super) fn misfits(sent: Schema<'_>, taken: Schema<'_>) -> Vec<Misfit> {
    let left = Cell::new(PAIRS_MAX);
    let mut comparison = Comparison { told: Vec::new(), seen: HashSet::new(), left: &left };
    comparison.compare(sent, taken, "", 0);
    comparison.told
}

struct Comparison<'a> {
    told: Vec<Misfit>,
    /// Pairs of nodes that are being compared, by their addresses: a schema may contain itself.
    seen: HashSet<(*const Value, *const Value)>,
    left: &'a Cell<usize>,
}

impl Comparison<'_> {
    fn tell(&mut self, path: &str, what: What) {
        if self.told.len() < TOLD_MAX {
            self.told.push(Misfit { at: path.to_owned(), what });
        }
    }

    fn compare(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str, depth: usize) {
        let (sent, taken) = (sent.resolved(), taken.resolved());
        let pair = (std::ptr::from_ref(sent.node), std::ptr::from_ref(taken.node));
        let left = self.left.replace(self.left.get().saturating_sub(1));
        if depth > DEPTH_MAX || left == 0 || !self.seen.insert(pair) {
            return;
        }
        match (sent.node, taken.node) {
            (_, Value::Bool(true)) | (Value::Bool(false), _) => return,
            (_, Value::Bool(false)) => return self.tell(path, What::Unknown),
            _ => {}
        }
        if sent.alternatives().is_some() || taken.alternatives().is_some() {
            return self.alternatives(sent, taken, path, depth);
        }
        if !self.types(sent, taken, path) {
            return;
        }
        self.values(sent, taken, path);
        self.bounds(sent, taken, path);
        self.members(sent, taken, path, depth);
        if let (Some(sent_items), Some(taken_items)) = (sent.word("items"), taken.word("items")) {
            self.compare(sent.at(sent_items), taken.at(taken_items), &format!("{path}[]"), depth + 1);
        }
    }

    /// Each alternative of what is sent must fit one of those that are taken.
    fn alternatives(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str, depth: usize) {
        for one in sent.alternatives().unwrap_or_else(|| vec![sent]) {
            let mut least: Option<Vec<Misfit>> = None;
            for other in taken.alternatives().unwrap_or_else(|| vec![taken]) {
                let mut attempt = Comparison { told: Vec::new(), seen: self.seen.clone(), left: self.left };
                attempt.compare(one, other, path, depth + 1);
                if least.as_ref().is_none_or(|least| attempt.told.len() < least.len()) {
                    least = Some(attempt.told);
                }
            }
            for told in least.unwrap_or_default() {
                if self.told.len() < TOLD_MAX {
                    self.told.push(told);
                }
            }
        }
    }

    /// False where the types differ: then nothing else is worth telling.
    fn types(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str) -> bool {
        let Some(taken_types) = taken.types() else { return true };
        let Some(sent_types) = sent.types() else {
            if sent.values().is_none() {
                self.tell(path, What::AnyType(list(&taken_types)));
            }
            return true;
        };
        let fits = |name: &&&str| {
            taken_types.contains(**name) || (**name == "integer" && taken_types.contains("number"))
        };
        let alien: HashSet<&str> = sent_types.iter().filter(|name| !fits(name)).copied().collect();
        if !alien.is_empty() {
            self.tell(path, What::Type(list(&sent_types), list(&taken_types)));
        }
        alien.is_empty()
    }

    fn values(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str) {
        let Some(taken_values) = taken.values() else { return };
        match sent.values() {
            None => self.tell(path, What::AnyValue),
            Some(values) => {
                for value in values.into_iter().filter(|value| !taken_values.contains(value)) {
                    self.tell(path, What::Value(value.to_string()));
                }
            }
        }
    }

    fn bounds(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str) {
        let number = |schema: Schema<'_>, word: &str| schema.word(word).and_then(Value::as_f64);
        for (words, is_lower) in [(LOWER, true), (UPPER, false)] {
            for word in words {
                let Some(bound) = number(taken, word) else { continue };
                let holds = number(sent, word)
                    .is_some_and(|before| if is_lower { before >= bound } else { before <= bound });
                if !holds {
                    self.tell(path, What::Bound(word, bound.to_string()));
                }
            }
        }
        if let Some(pattern) = taken.word("pattern").filter(|pattern| sent.word("pattern") != Some(pattern)) {
            self.tell(path, What::Pattern(pattern.to_string()));
        }
    }

    fn members(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str, depth: usize) {
        let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let mut missing: Vec<&str> = taken.required().difference(&sent.required()).copied().collect();
        missing.sort_unstable();
        for name in missing {
            self.tell(&inner(name), What::Required);
        }
        let Some(members) = sent.members() else { return };
        for (name, member) in members {
            match (taken.members().and_then(|taken| taken.get(name)), taken.word("additionalProperties")) {
                (Some(other), _) => {
                    self.compare(sent.at(member), taken.at(other), &inner(name), depth + 1);
                }
                (None, Some(Value::Bool(false))) => self.tell(&inner(name), What::Unknown),
                (None, _) => {}
            }
        }
        let refuses = |schema: Schema<'_>| schema.word("additionalProperties") == Some(&Value::Bool(false));
        if refuses(taken) && !refuses(sent) {
            self.tell(path, What::Closed);
        }
    }
}

fn list(names: &HashSet<&str>) -> String {
    let mut names: Vec<&str> = names.iter().copied().collect();
    names.sort_unstable();
    names.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(sent: &Value, taken: &Value) -> Vec<String> {
        misfits(Schema::whole(sent), Schema::whole(taken)).iter().map(Misfit::for_sender).collect()
    }

    fn object(members: Value, required: &[&str]) -> Value {
        json!({ "type": "object", "properties": members, "required": required })
    }

    #[test]
    fn what_only_grows_breaks_nobody() {
        let before = object(json!({ "id": { "type": "integer", "minimum": 0 } }), &["id"]);
        for after in [
            before.clone(),
            json!(true),
            object(json!({ "id": { "type": "number" }, "note": { "type": "string" } }), &[]),
            object(json!({ "id": { "type": ["integer", "null"], "minimum": -5 } }), &["id"]),
            object(json!({ "id": { "anyOf": [{ "type": "string" }, { "type": "integer" }] } }), &["id"]),
        ] {
            assert_eq!(told(&before, &after), Vec::<String>::new(), "{after}");
        }
    }

    #[test]
    fn what_takes_less_is_told_with_its_place() {
        let before = object(
            json!({ "id": { "type": "integer" }, "way": { "enum": ["a", "b"] }, "lines": {
                "type": "array", "items": { "type": "object", "properties": { "n": { "type": "integer" } } } } }),
            &["id"],
        );
        let with = |member: &str, schema: Value| {
            let mut after = before.clone();
            after["properties"][member] = schema;
            after
        };
        let mut required = before.clone();
        required["required"] = json!(["id", "way"]);
        let mut closed = before.clone();
        closed["additionalProperties"] = json!(false);
        let line = json!({ "type": "object", "properties": { "n": { "type": "string" } } });
        for (after, what) in [
            (with("id", json!({ "type": "string" })), "`id` was integer, and is string"),
            (with("id", json!({ "type": "integer", "maximum": 9 })), "`id` has a maximum of 9"),
            (with("way", json!({ "enum": ["a"] })), "`way` is no longer \"b\""),
            (
                with("lines", json!({ "type": "array", "items": line })),
                "`lines[].n` was integer, and is string",
            ),
            (required, "`way` is required, and was not"),
            (closed, "refuses members that it does not know, and did not"),
            (
                with("id", json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] })),
                "`id` was integer, and is string",
            ),
        ] {
            assert_eq!(told(&before, &after), [what], "{after}");
        }
    }

    #[test]
    fn receiver_is_told_what_it_may_miss_and_not_what_is_new() {
        let known = object(json!({ "id": { "type": "string" }, "way": { "enum": ["a"] } }), &["id"]);
        let sent = object(
            json!({ "id": { "type": "string" }, "way": { "enum": ["a", "b"] }, "more": { "type": "string" } }),
            &[],
        );
        let misfits = misfits(Schema::whole(&sent), Schema::whole(&known));
        let told: Vec<String> = misfits.iter().filter_map(Misfit::for_receiver).collect();
        assert_eq!(told, ["`id` may be missing, and was not", "`way` may be \"b\", which is new"]);
    }

    #[test]
    fn references_are_followed_and_a_schema_may_contain_itself() {
        let tree = |kind: &str| {
            json!({ "$ref": "#/$defs/Node", "$defs": { "Node": { "type": "object", "properties": {
                "value": { "type": kind }, "next": { "anyOf": [{ "$ref": "#/$defs/Node" }, { "type": "null" }] },
            } } } })
        };
        assert_eq!(told(&tree("string"), &tree("string")), Vec::<String>::new());
        assert_eq!(told(&tree("string"), &tree("boolean")), ["`value` was string, and is boolean"]);
        let endless = json!({ "$ref": "#" });
        assert_eq!(told(&endless, &endless), Vec::<String>::new());
    }
}
