//! Where settings come from, and how they are laid over each other:
//! defaults < files < `plugins.d/*.toml` < environment < flags < the last file.
//!
//! It reads and parses; it does not know which options exist. A file in `plugins.d` may only hold
//! `[plugins.<name>]`, so that dropping in an extension cannot move the host to another broker.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::errors::Mistake;
use super::tree::{self, File, Node, Origin, Table, Value};

/// The variable that names a config file to be laid over everything else, which `dev` keeps for the hosts that it starts.
pub const LAST_FILE: &str = "CARDCAGE_LAST_CONFIG_FILE";
const PREFIX: &str = "CARDCAGE__";
const DROP_IN: &str = "plugins.d";
const FILE_MAX_BYTES: u64 = 1_048_576;

/// What the settings are read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Config files; later ones win.
    pub files: Vec<PathBuf>,
    /// The environment: `CARDCAGE__SECTION__KEY`, and the variables that secrets refer to.
    pub environment: BTreeMap<String, String>,
    /// `--set`, in the order given; later ones win.
    pub assignments: Vec<Assignment>,
    /// A file that wins over all of these: see [`LAST_FILE`].
    pub last_file: Option<PathBuf>,
}

impl Sources {
    /// These files and flags, with the environment of this process. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn from_process(files: Vec<PathBuf>, assignments: Vec<Assignment>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { files, environment, assignments, last_file: std::env::var_os(LAST_FILE).map(PathBuf::from) }
    }
}

/// `section.key=value` as given to `--set`. The value is TOML where it can be read as such, else a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    key: Vec<String>,
    value: String,
}

impl FromStr for Assignment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "expected section.key=value, such as api.listen=127.0.0.1:8080";
        let mut key = Vec::new();
        let mut rest = text;
        loop {
            let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            let (segment, after) = match quoted {
                Some(parts) => parts,
                None => rest.split_at(rest.find(['.', '=']).ok_or(SHAPE)?),
            };
            if segment.is_empty() {
                return Err(SHAPE);
            }
            key.push(segment.to_owned());
            if let Some(value) = after.strip_prefix('=') {
                return Ok(Self { key, value: value.to_owned() });
            }
            rest = after.strip_prefix('.').ok_or(SHAPE)?;
        }
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.key.iter().enumerate() {
            // Quotes only where the segment would be read as several.
            let quote = if segment.contains(['.', '=']) { "\"" } else { "" };
            write!(f, "{}{quote}{segment}{quote}", if n > 0 { "." } else { "" })?;
        }
        write!(f, "={}", self.value)
    }
}

/// The merged layers, and what went wrong on the way.
pub(crate) struct Layers {
    pub(crate) table: Table,
    pub(crate) files: Vec<Arc<File>>,
    /// Files that are not TOML.
    pub(crate) broken: Vec<PathBuf>,
    pub(crate) mistakes: Vec<Mistake>,
}

/// Reads every layer and lays each on the one before.
pub(crate) fn read(sources: &Sources) -> Layers {
    let mut layers =
        Layers { table: Table::new(), files: Vec::new(), broken: Vec::new(), mistakes: Vec::new() };
    for path in &sources.files {
        layers.file(path, false);
    }
    if let Some(first) = sources.files.first() {
        layers.drop_ins(&first.with_file_name(DROP_IN));
    }
    for (name, raw) in &sources.environment {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
            let raw: Arc<str> = raw.as_str().into();
            let origin = Origin::Variable { name: name.as_str().into(), raw: Some(raw.clone()) };
            layers.lay(tree::nest(&path, bare(&raw, origin)));
        }
    }
    for Assignment { key, value } in &sources.assignments {
        let raw: Arc<str> = value.as_str().into();
        let origin = Origin::Flag { key: key.join(".").into(), raw: Some(raw.clone()) };
        layers.lay(tree::nest(key, bare(&raw, origin)));
    }
    if let Some(last) = &sources.last_file {
        layers.file(last, false);
    }
    layers
}

/// A value without a file around it.
fn bare(raw: &str, origin: Origin) -> Node {
    match DeValue::parse(raw) {
        Ok(value) => Node::from_toml(value.get_ref(), origin),
        Err(_) => Node { value: Value::String(raw.to_owned()), origin },
    }
}

impl Layers {
    fn drop_ins(&mut self, directory: &Path) {
        // No directory, no drop-ins; one that cannot be listed is told.
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable(directory, &error.to_string()),
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        paths.sort();
        for path in paths {
            self.file(&path, true);
        }
    }

    fn file(&mut self, path: &Path, drop_in: bool) {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(reason) => return self.unreadable(path, &reason),
        };
        let file = Arc::new(File { path: path.to_owned(), text });
        self.files.push(file.clone());
        let (table, errors) = DeTable::parse_recoverable(&file.text);
        if !errors.is_empty() {
            self.broken.push(path.to_owned());
        }
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let mistake = Mistake::new("this is not TOML").at_span(&file, span, error.message());
            self.mistakes.push(mistake);
        }
        let origin = Origin::File { file: file.clone(), key: 0..0, value: 0..0 };
        let mut entries = tree::entries(table.get_ref(), &origin);
        if drop_in {
            entries.retain(|key, node| {
                let kept = key == "plugins";
                if !kept {
                    let mistake = Mistake::new(format!("`{key}` does not belong in {DROP_IN}"))
                        .at_key(node, "only `[plugins.<name>]` may stand here")
                        .help("move it to a file given with --config".to_owned());
                    self.mistakes.push(mistake);
                }
                kept
            });
            self.only_plugins(&mut entries);
        }
        self.lay(entries);
    }

    /// Takes out what is no plugin: the options of the set as a whole say what is asked of a plugin, and so are not for
    /// whoever drops one in.
    fn only_plugins(&mut self, entries: &mut Table) {
        let Some(Node { value: Value::Table(plugins), .. }) = entries.get_mut("plugins") else { return };
        plugins.retain(|key, node| {
            let kept = node.table().is_some();
            if !kept {
                let mistake = Mistake::new(format!("`plugins.{key}` does not belong in {DROP_IN}"))
                    .at_key(node, "only `[plugins.<name>]` may stand here")
                    .help("move it to a file given with --config".to_owned());
                self.mistakes.push(mistake);
            }
            kept
        });
    }

    /// Lays a layer on those before it. At the top there are tables only; what is not one must not vanish
    /// unnoticed under a layer that is right.
    fn lay(&mut self, over: Table) {
        for (key, below) in &self.table {
            if below.table().is_none() && over.get(key).is_some_and(|over| over.table().is_some()) {
                self.mistakes.push(Mistake::not_a_table(key, below));
            }
        }
        tree::merge(&mut self.table, over);
    }

    fn unreadable(&mut self, path: &Path, reason: &str) {
        self.mistakes.push(Mistake::new(format!("cannot read {}: {reason}", path.display())));
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let length =
        file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if length as u64 > FILE_MAX_BYTES {
        return Err(format!("it is larger than {FILE_MAX_BYTES} bytes"));
    }
    Ok(text)
}
