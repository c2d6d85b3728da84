//! Whether what fits one JSON Schema fits another: the question behind "does this change break anybody?".
//!
//! It compares what plugins' schemas say in practice: types, members, maps, enumerations, bounds, formats, alternatives,
//! references. What it does not know it passes over, so a silence is no proof; the bodies that wait are held against the schema
//! itself (`waiting.rs`).
//!
//! Invariant: it ends, however schemas refer to each other.

use std::cell::Cell;
use std::collections::HashSet;

use serde_json::Value;

use super::misfit::{Misfit, What};
use super::schema::Schema;

/// Differences that one comparison tells.
const TOLD_MAX: usize = 8;
/// How deep members are followed.
const DEPTH_MAX: usize = 32;
/// Pairs of schemas that one comparison looks at: alternatives of alternatives are too many to try them all.
const PAIRS_MAX: usize = 20_000;
/// Words of a schema that bound from below, and from above.
const LOWER: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
const UPPER: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];
/// Formats of whole numbers, and the largest that each has.
const INTEGERS: [(&str, u64); 8] = [
    ("int8", i8::MAX as u64),
    ("uint8", u8::MAX as u64),
    ("int16", i16::MAX as u64),
    ("uint16", u16::MAX as u64),
    ("int32", i32::MAX as u64),
    ("uint32", u32::MAX as u64),
    ("int64", i64::MAX as u64),
    ("uint64", u64::MAX),
];
/// Formats of text that take any text.
const FREE_TEXTS: [&str; 3] = ["password", "binary", "byte"];

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
        // First: the same few values can be written as an enumeration and as alternatives.
        if let (Some(values), Some(_)) = (sent.values(), taken.values()) {
            return self.values(Some(values), taken, path);
        }
        if sent.alternatives().is_some() || taken.alternatives().is_some() {
            return self.alternatives(sent, taken, path, depth);
        }
        if !self.types(sent, taken, path) {
            return;
        }
        self.values(sent.values(), taken, path);
        self.bounds(sent, taken, path);
        self.format(sent, taken, path);
        self.members(sent, taken, path, depth);
        self.items(sent, taken, path, depth);
    }

    /// Each case of what is sent must fit one of those that are taken.
    fn alternatives(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str, depth: usize) {
        for one in sent.cases() {
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

    fn values(&mut self, sent: Option<Vec<&Value>>, taken: Schema<'_>, path: &str) {
        let Some(taken_values) = taken.values() else { return };
        match sent {
            None => self.tell(path, What::AnyValue),
            Some(values) => {
                for value in values.into_iter().filter(|value| !taken_values.contains(value)) {
                    self.tell(path, What::Value(value.to_string()));
                }
            }
        }
    }

    fn bounds(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str) {
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

    /// What reads a body goes by the format: no text that is no date becomes one.
    fn format(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str) {
        let format = |schema: Schema<'_>| -> Option<String> {
            schema.word("format").and_then(Value::as_str).map(str::to_owned)
        };
        let Some(wanted) = format(taken) else { return };
        let (before, types) = (format(sent), sent.types().unwrap_or_default());
        let largest =
            |name: &str| INTEGERS.iter().find(|(known, _)| *known == name).map(|(_, largest)| *largest);
        let is_narrower = match largest(&wanted) {
            #[allow(clippy::cast_precision_loss, reason = "schemas state bounds as such numbers")]
            Some(largest_taken) => {
                // Who names no format may mean any number that a program counts with.
                let before = before.as_deref().and_then(largest).unwrap_or(i64::MAX as u64);
                let is_bound = number(sent, "maximum").is_some_and(|bound| bound <= largest_taken as f64);
                types.contains("integer") && before > largest_taken && !is_bound
            }
            None => {
                let is_free = FREE_TEXTS.contains(&wanted.as_str());
                types.contains("string") && !is_free && before.as_ref() != Some(&wanted)
            }
        };
        if is_narrower {
            self.tell(path, What::Format(wanted));
        }
    }

    fn members(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str, depth: usize) {
        let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let mut missing: Vec<&str> = taken.required().difference(&sent.required()).copied().collect();
        missing.sort_unstable();
        for name in missing {
            self.tell(&inner(name), What::Required);
        }
        let (members, others) = (taken.members(), taken.others());
        for (name, member) in sent.members() {
            match (members.get(name), others) {
                (Some(other), _) => self.compare(member, *other, &inner(name), depth + 1),
                (None, Some(others)) => self.compare(member, others, &inner(name), depth + 1),
                (None, None) => {}
            }
        }
        match (sent.others(), others) {
            (before, Some(others))
                if others.node == &Value::Bool(false)
                    && before.is_none_or(|before| before.node != &Value::Bool(false)) =>
            {
                self.tell(path, What::Closed);
            }
            (Some(before), Some(others)) => self.compare(before, others, &inner("*"), depth + 1),
            _ => {}
        }
    }

    fn items(&mut self, sent: Schema<'_>, taken: Schema<'_>, path: &str, depth: usize) {
        fn places<'a>(schema: Schema<'a>) -> Option<&'a Vec<Value>> {
            schema.word("prefixItems").and_then(Value::as_array)
        }
        if let (Some(sent_items), Some(taken_items)) = (places(sent), places(taken)) {
            for (place, (sent_item, taken_item)) in sent_items.iter().zip(taken_items).enumerate() {
                let path = format!("{path}[{place}]");
                self.compare(sent.at(sent_item), taken.at(taken_item), &path, depth + 1);
            }
        }
        if let (Some(sent_items), Some(taken_items)) = (sent.word("items"), taken.word("items")) {
            self.compare(sent.at(sent_items), taken.at(taken_items), &format!("{path}[]"), depth + 1);
        }
    }
}

fn number(schema: Schema<'_>, word: &str) -> Option<f64> {
    schema.word(word).and_then(Value::as_f64)
}

fn list(names: &HashSet<&str>) -> String {
    let mut names: Vec<&str> = names.iter().copied().collect();
    names.sort_unstable();
    names.join(" or ")
}

#[cfg(test)]
mod tests;
