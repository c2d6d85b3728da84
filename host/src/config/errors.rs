//! Mistakes in the configuration, told so that they can be put right: where it was stated, what is wrong, what
//! to write instead.
//!
//! Invariants: all mistakes are told at once, in the order of the files; the value of an environment variable
//! or flag is never repeated, because it may be a secret.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::kind::Fault;
use super::tree::{File, Node, Origin};

/// One mistake.
#[derive(Clone)]
pub(crate) struct Mistake {
    title: String,
    places: Vec<Place>,
    help: Option<String>,
}

#[derive(Clone)]
struct Place {
    origin: Origin,
    span: Range<usize>,
    label: String,
    /// What the span covers is not shown.
    masked: bool,
}

impl Mistake {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), places: Vec::new(), help: None }
    }

    /// `option` cannot have the value that `node` states.
    pub(crate) fn fault(option: &str, node: &Node, fault: Fault) -> Self {
        let mut mistake = Self::new(format!("`{option}` {}", fault.what)).at_value(node, fault.label);
        for place in &mut mistake.places {
            place.masked = fault.secret;
        }
        mistake.help(fault.help)
    }

    /// `option` must be a table and is not.
    pub(crate) fn not_a_table(option: &str, node: &Node) -> Self {
        let label = format!("expected a table, found {}", node.value.type_name());
        Self::new(format!("`{option}` has the wrong type")).at_value(node, label)
    }

    /// Points at the key.
    pub(crate) fn at_key(self, node: &Node, label: impl Into<String>) -> Self {
        let span = match &node.origin {
            Origin::File { key, .. } => key.clone(),
            _ => 0..0,
        };
        self.at(node.origin.clone(), span, label)
    }

    /// Points at the value.
    pub(crate) fn at_value(self, node: &Node, label: impl Into<String>) -> Self {
        let span = match &node.origin {
            Origin::File { value, .. } => value.clone(),
            _ => 0..0,
        };
        self.at(node.origin.clone(), span, label)
    }

    /// Points into a file.
    pub(crate) fn at_span(self, file: &Arc<File>, span: Range<usize>, label: impl Into<String>) -> Self {
        let origin = Origin::File { file: file.clone(), key: span.clone(), value: span.clone() };
        self.at(origin, span, label)
    }

    fn at(mut self, origin: Origin, span: Range<usize>, label: impl Into<String>) -> Self {
        self.places.push(Place { origin, span, label: label.into(), masked: false });
        self
    }

    pub(crate) fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// File and offset that it points at first.
    pub(crate) fn position(&self) -> Option<(&Path, usize)> {
        match self.places.first() {
            Some(Place { origin: Origin::File { file, .. }, span, .. }) => Some((&file.path, span.start)),
            _ => None,
        }
    }

    fn group(&self) -> Group<'_> {
        let mut group = Group::with_title(Level::ERROR.primary_title(&*self.title));
        for (nth, place) in self.places.iter().enumerate() {
            let label = &place.label;
            group = match &place.origin {
                Origin::File { file, .. } => {
                    let kind = if nth == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                    let span = first_line(&file.text, &place.span);
                    group.element(
                        Snippet::source(shown(&file.text, &span, place.masked))
                            .path(file.path.display().to_string())
                            .annotation(kind.span(span).label(&**label)),
                    )
                }
                Origin::Variable { name, .. } => group.element(
                    Level::NOTE.message(sentence(format!("set by environment variable {name}"), label)),
                ),
                Origin::Flag { key, .. } => {
                    group.element(Level::NOTE.message(sentence(format!("set by flag --set {key}=…"), label)))
                }
            };
        }
        match &self.help {
            Some(help) => group.element(Level::HELP.message(&**help)),
            None => group,
        }
    }
}

/// `text`, with stars in place of what `span` covers if it is masked.
fn shown<'a>(text: &'a str, span: &Range<usize>, masked: bool) -> Cow<'a, str> {
    match (text.get(..span.start), text.get(span.end..)) {
        (Some(before), Some(after)) if masked => {
            Cow::Owned(format!("{before}{}{after}", "*".repeat(span.len())))
        }
        _ => Cow::Borrowed(text),
    }
}

fn sentence(origin: String, label: &str) -> String {
    if label.is_empty() { origin } else { format!("{origin}: {label}") }
}

/// A span cut at its first line end and moved to character boundaries of `text`.
fn first_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(span.start);
    let end = boundary(span.end.max(start));
    let line = text.get(start..end).and_then(|part| part.find(['\r', '\n']));
    start..line.map_or(end, |length| start + length)
}

/// Every mistake found in the configuration: the operator's to put right; trying again does not help.
pub struct Errors(Vec<Mistake>);

impl Errors {
    /// In the order of the files, and of the lines within a file; variables and flags last.
    pub(crate) fn new(mut mistakes: Vec<Mistake>, files: &[Arc<File>]) -> Self {
        let file = |path: &Path| files.iter().position(|file| file.path == path).unwrap_or(files.len());
        mistakes.sort_by_key(|mistake| {
            match mistake.places.first().map(|place| (&place.origin, &place.span)) {
                // A file that cannot be read has no place in it.
                None => (0, 0, 0),
                Some((Origin::File { file: source, .. }, span)) => (1, file(&source.path), span.start),
                Some((Origin::Variable { .. }, _)) => (2, 0, 0),
                Some((Origin::Flag { .. }, _)) => (3, 0, 0),
            }
        });
        Self(mistakes)
    }

    /// How many there are; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The mistakes as annotated snippets, with colours if `styled`.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let rendered: Vec<String> =
            self.0.iter().map(|mistake| renderer.render(&[mistake.group()])).collect();
        rendered.join("\n\n")
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errors {}
