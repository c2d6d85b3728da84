//! A JSON Schema as the comparison sees it: references followed, what `allOf` puts together seen as one.
//!
//! Invariant: every question ends, however schemas refer to each other.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

/// How long a chain of references is followed.
const CHAIN_MAX: usize = 32;
/// Schemas that are put together into one, at most.
const PARTS_MAX: usize = 64;

/// A schema, and the document that its references point into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'a> {
    pub(super) document: &'a Value,
    pub(super) node: &'a Value,
    /// Of its types this one only.
    only: Option<&'a str>,
}

impl<'a> Schema<'a> {
    /// A part of a document.
    pub(super) fn new(document: &'a Value, node: &'a Value) -> Self {
        Self { document, node, only: None }
    }

    /// A schema that refers to nothing but itself.
    pub(super) fn whole(document: &'a Value) -> Self {
        Self::new(document, document)
    }

    pub(super) fn at(self, node: &'a Value) -> Self {
        Self::new(self.document, node)
    }

    fn referred(self) -> Option<&'a Value> {
        let reference = self.node.get("$ref").and_then(Value::as_str)?;
        self.document.pointer(reference.strip_prefix('#')?)
    }

    fn all_of(self) -> &'a [Value] {
        self.node.get("allOf").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The schema behind a reference that says nothing else.
    pub(super) fn resolved(self) -> Self {
        let mut schema = self;
        for _ in 0..CHAIN_MAX {
            let next = match (schema.referred(), schema.all_of()) {
                (Some(next), _) => next,
                (None, [one]) => one,
                (None, _) => return schema,
            };
            schema = Self { only: schema.only, ..schema.at(next) };
        }
        schema
    }

    /// The schemas that hold all at once: itself, what it refers to, and what it puts together.
    fn parts(self) -> Vec<Self> {
        let mut parts = vec![self];
        let mut next = 0;
        while let Some(part) = parts.get(next).copied() {
            next += 1;
            for node in part.referred().into_iter().chain(part.all_of()) {
                let is_new = !parts.iter().any(|known| std::ptr::eq(known.node, node));
                if is_new && parts.len() < PARTS_MAX {
                    parts.push(self.at(node));
                }
            }
        }
        parts
    }

    /// What one of its parts says under this word.
    pub(super) fn word(self, name: &str) -> Option<&'a Value> {
        if let Some(value) = self.node.get(name) {
            return Some(value);
        }
        self.parts().into_iter().find_map(|part| part.node.get(name))
    }

    /// Its members that are named.
    pub(super) fn members(self) -> BTreeMap<&'a str, Self> {
        let mut members = BTreeMap::new();
        for part in self.parts() {
            let named = part.node.get("properties").and_then(Value::as_object);
            for (name, node) in named.into_iter().flatten() {
                members.entry(name.as_str()).or_insert(self.at(node));
            }
        }
        members
    }

    /// What its members must be that it does not name; `None` where it says nothing of them.
    pub(super) fn others(self) -> Option<Self> {
        let others = self.word("additionalProperties").or_else(|| self.word("unevaluatedProperties"));
        others.map(|node| self.at(node))
    }

    pub(super) fn required(self) -> HashSet<&'a str> {
        let parts = self.parts().into_iter();
        let required = parts.filter_map(|part| part.node.get("required").and_then(Value::as_array));
        required.flatten().filter_map(Value::as_str).collect()
    }

    /// The types that it names; `None` where it takes any.
    pub(super) fn types(self) -> Option<HashSet<&'a str>> {
        if let Some(only) = self.only {
            return Some(HashSet::from([only]));
        }
        match self.word("type")? {
            Value::String(one) => Some(HashSet::from([one.as_str()])),
            Value::Array(some) => Some(some.iter().filter_map(Value::as_str).collect()),
            _ => None,
        }
    }

    /// The only values that it takes, also where it lists them as alternatives.
    pub(super) fn values(self) -> Option<Vec<&'a Value>> {
        self.values_within(CHAIN_MAX)
    }

    fn values_within(self, depth: usize) -> Option<Vec<&'a Value>> {
        if self.types().is_some_and(|types| types.len() == 1 && types.contains("null")) {
            return Some(vec![&Value::Null]);
        }
        if let Some(values) = self.word("enum").and_then(Value::as_array) {
            return Some(values.iter().filter(|value| self.only.is_none() || !value.is_null()).collect());
        }
        if let Some(value) = self.word("const") {
            return Some(vec![value]);
        }
        let depth = depth.checked_sub(1)?;
        let alternatives = self.alternatives()?;
        let values = alternatives.into_iter().map(|one| one.resolved().values_within(depth));
        values.collect::<Option<Vec<_>>>().map(|values| values.concat())
    }

    /// The schemas of which one is enough.
    pub(super) fn alternatives(self) -> Option<Vec<Self>> {
        let some = self.word("anyOf").or_else(|| self.word("oneOf"))?.as_array()?;
        Some(some.iter().map(|node| self.at(node)).collect())
    }

    /// The same: its alternatives, or one schema for each of its types.
    pub(super) fn cases(self) -> Vec<Self> {
        if let Some(alternatives) = self.alternatives() {
            return alternatives;
        }
        match self.types() {
            Some(types) if types.len() > 1 => {
                types.into_iter().map(|only| Self { only: Some(only), ..self }).collect()
            }
            _ => vec![self],
        }
    }
}
