//! Which worker group a line of the log comes from.
//!
//! A span would say it of what is logged inside of it; what a child's threads and tasks log, its plugins among them, is inside of
//! none. So the lines are marked as they are written.
//!
//! Invariant: a line stays one line, and JSON stays JSON.

use crate::config::LogFormat;
use crate::process::Seat;
use std::io::{Result, Write};
use std::sync::Arc;

/// What is written into each line; nothing where there are no groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    /// After a line's first byte, which opens an object.
    first: Arc<str>,
    /// Before a line's end.
    last: Arc<str>,
}

impl Mark {
    pub(super) fn new(format: LogFormat, seat: Option<&Seat>) -> Self {
        let Some(Seat { group, process }) = seat else { return Self::default() };
        match format {
            LogFormat::Text => {
                Self { last: format!(" group=\"{group}\" process={process}").into(), ..Self::default() }
            }
            LogFormat::Json => {
                // Names of groups need no escapes.
                Self {
                    first: format!("\"group\":\"{group}\",\"process\":{process},").into(),
                    ..Self::default()
                }
            }
        }
    }

    fn on(&self, event: &[u8]) -> Vec<u8> {
        let (head, rest) =
            event.split_at(usize::from(event.first() == Some(&b'{') && !self.first.is_empty()));
        let (body, end) = match rest.split_last() {
            Some((b'\n', body)) => (body, &b"\n"[..]),
            _ => (rest, &b""[..]),
        };
        let first = if head.is_empty() { "" } else { &*self.first };
        [head, first.as_bytes(), body, self.last.as_bytes(), end].concat()
    }
}

/// Writes events, each of which comes in one piece.
pub(super) struct Marked<W> {
    pub(super) mark: Mark,
    pub(super) to: W,
}

impl<W: Write> Write for Marked<W> {
    fn write(&mut self, event: &[u8]) -> Result<usize> {
        if self.mark.first.is_empty() && self.mark.last.is_empty() {
            return self.to.write(event);
        }
        self.to.write_all(&self.mark.on(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_whose_they_are_and_stay_what_they_were() {
        let written = |format, seat: Option<&Seat>, event: &str| {
            let mut to = Vec::new();
            Marked { mark: Mark::new(format, seat), to: &mut to }.write_all(event.as_bytes()).unwrap();
            String::from_utf8(to).unwrap()
        };
        let seat = Seat { group: "calm".to_owned(), process: 2 };
        let text = "INFO two\nlines n=1\n";
        assert_eq!(
            written(LogFormat::Text, Some(&seat), text),
            "INFO two\nlines n=1 group=\"calm\" process=2\n"
        );
        let json = "{\"level\":\"INFO\"}\n";
        let marked = written(LogFormat::Json, Some(&seat), json);
        let parsed: serde_json::Value = serde_json::from_str(&marked).unwrap();
        assert_eq!(parsed, serde_json::json!({ "group": "calm", "process": 2, "level": "INFO" }));
        assert!(marked.ends_with("}\n"));
        for (format, event) in [(LogFormat::Text, text), (LogFormat::Json, json)] {
            assert_eq!(written(format, None, event), event);
        }
    }
}
