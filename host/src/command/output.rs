//! What commands write: results to stdout, trouble to stderr.
//!
//! A reader that has gone away (`cardcage check | head`) is no fault of the command, whose exit code still says
//! how it went: failed writes are ignored, where `println!` would panic.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::loader::Refusal;

/// Writes a result.
pub(super) fn result(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
    let _ = out.flush();
}

/// Writes a result for programs, as indented JSON.
pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => result(&text),
        Err(error) => {
            trouble(&format!("the result cannot be written as JSON ({error}): a fault of cardcage"))
        }
    }
}

/// Writes one sentence about what went wrong, or goes on beside the result.
pub(super) fn trouble(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "cardcage: {text}");
}

/// Writes why a library is not taken, with its stable code.
pub(super) fn refusal(refusal: &Refusal) {
    trouble(&refusal_text(refusal));
}

/// Why a library is not taken, with its stable code.
pub(super) fn refusal_text(refusal: &Refusal) -> String {
    shown(&format!("refused ({}): {refusal}", refusal.code.as_str()))
}

/// Writes text that has its own shape, such as a rendered configuration mistake.
pub(super) fn trouble_as_is(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether stdout shows colours.
pub(super) fn styled() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Whether stderr shows colours.
pub(super) fn trouble_styled() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Text that somebody else wrote, with control characters shown and not obeyed.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { Shown::Escaped(c.escape_default()) } else { Shown::Plain(Some(c)) })
        .collect()
}

/// The same for text of several lines.
pub(super) fn shown_lines(text: &str) -> String {
    text.lines().map(shown).collect::<Vec<_>>().join("\n")
}

enum Shown {
    Plain(Option<char>),
    Escaped(std::char::EscapeDefault),
}

impl Iterator for Shown {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Plain(c) => c.take(),
            Self::Escaped(escape) => escape.next(),
        }
    }
}

/// A table without rules or wrapped lines: easy to read, to search, and to take apart with `awk`.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        assert_eq!(shown("1.0 é\x1b[31m\n"), "1.0 é\\u{1b}[31m\\n");
    }
}
