//! Settings before they have a meaning: a tree of TOML values in which every value knows where it was stated.
//!
//! It exists so that a mistake found after the layers were merged can still point at its file and line.
//! It knows nothing about which options exist.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A config file that was read.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Where a value was stated.
#[derive(Clone)]
pub(crate) enum Origin {
    File {
        file: Arc<File>,
        key: Range<usize>,
        value: Range<usize>,
    },
    /// An environment variable; `raw` is its text where the value is all of it.
    Variable {
        name: Arc<str>,
        raw: Option<Arc<str>>,
    },
    /// `--set key=…`; `raw` as above.
    Flag {
        key: Arc<str>,
        raw: Option<Arc<str>>,
    },
}

impl Origin {
    /// What was typed, before it was read as TOML.
    pub(crate) fn raw(&self) -> Option<&str> {
        match self {
            Self::File { .. } => None,
            Self::Variable { raw, .. } | Self::Flag { raw, .. } => raw.as_deref(),
        }
    }

    /// The directory that relative paths start from; none means the working directory.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::File { file, .. } => file.path.parent(),
            Self::Variable { .. } | Self::Flag { .. } => None,
        }
    }

    fn inner(&self, key_span: Range<usize>, value_span: Range<usize>) -> Self {
        match self {
            Self::File { file, .. } => Self::File { file: file.clone(), key: key_span, value: value_span },
            Self::Variable { name, .. } => Self::Variable { name: name.clone(), raw: None },
            Self::Flag { key, .. } => Self::Flag { key: key.clone(), raw: None },
        }
    }
}

pub(crate) type Table = BTreeMap<String, Node>;

pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

pub(crate) enum Value {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// "a string", for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date or time",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The only entry of a table of the form `{ env = … }` or `{ file = … }`.
    pub(crate) fn reference(&self) -> Option<(&str, &Node)> {
        let table = self.table().filter(|table| table.len() == 1)?;
        let (key, node) = table.first_key_value()?;
        matches!(key.as_str(), "env" | "file").then_some((key.as_str(), node))
    }

    /// Reads a parsed value; `origin` is that of the value itself.
    pub(crate) fn from_toml(value: &DeValue<'_>, origin: Origin) -> Self {
        let value = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(integer) => Value::Integer(
                // Out of every bound, so the range check speaks.
                i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX),
            ),
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
            DeValue::Array(array) => Value::Array(
                array
                    .iter()
                    .map(|item| Self::from_toml(item.get_ref(), origin.inner(item.span(), item.span())))
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(entries(table, &origin)),
        };
        Self { value, origin }
    }
}

/// The entries of a parsed table.
pub(crate) fn entries(table: &DeTable<'_>, origin: &Origin) -> Table {
    table
        .iter()
        .map(|(key, value): (&Spanned<_>, &Spanned<_>)| {
            let origin = origin.inner(key.span(), value.span());
            (key.get_ref().to_string(), Node::from_toml(value.get_ref(), origin))
        })
        .collect()
}

/// Keys above a value in a plugin's own settings: `plugins.<name>.config.<key>`.
const ABOVE_CONFIG_VALUES: usize = 3;

/// Lays `over` on `base`: tables merge key by key, anything else replaces. In a plugin's own settings a
/// reference to a secret is one value, so that `{ file = … }` over `{ env = … }` does not become both.
pub(crate) fn merge(base: &mut Table, over: Table) {
    merge_at(base, over, 0);
}

fn merge_at(base: &mut Table, over: Table, depth: usize) {
    for (key, over) in over {
        let Some(below) = base.get_mut(&key) else {
            base.insert(key, over);
            continue;
        };
        let reference = below.reference().is_some() || over.reference().is_some();
        let whole = depth >= ABOVE_CONFIG_VALUES && reference;
        match (&mut below.value, over) {
            (Value::Table(base), Node { value: Value::Table(table), .. }) if !whole => {
                merge_at(base, table, depth + 1);
            }
            (_, over) => *below = over,
        }
    }
}

/// Puts `node` at `path` in an otherwise empty tree.
pub(crate) fn nest(path: &[String], node: Node) -> Table {
    let Some((first, rest)) = path.split_first() else { return Table::new() };
    let node = if rest.is_empty() {
        node
    } else {
        let origin = node.origin.clone();
        Node { value: Value::Table(nest(rest, node)), origin }
    };
    Table::from([(first.clone(), node)])
}
