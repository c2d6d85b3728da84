//! What was looked at, and what was found.

use std::fmt;

/// Longer subjects are cut.
const SHORT_CHARS: usize = 48;

/// What a plugin must do, or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// It describes itself, twice the same.
    Describes,
    /// It starts with its settings.
    Starts,
    /// Bodies that no version of it ever meant neither panic, crash, hang nor answer 5xx.
    Garbage,
    /// Good requests and bodies do not either.
    Samples,
    /// What it answers is no larger than hosts pass on, or keep.
    Size,
    /// Hosts with it stop within the grace, busy and idle, and what was accepted comes to a good end, before or afterwards.
    Stops,
    /// No code of it panics, also where nobody waits for an answer.
    Panics,
}

/// One look.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was looked for.
    pub rule: Rule,
    /// At what.
    pub subject: String,
    /// What is wrong; `None`: nothing.
    pub fault: Option<String>,
}

/// All looks.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In their order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Those that found something wrong.
    pub fn faults(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.fault.is_some())
    }

    /// Whether something was found wrong by this rule.
    pub fn breaks(&self, rule: Rule) -> bool {
        self.faults().any(|finding| finding.rule == rule)
    }

    /// Fails the test where anything is wrong.
    ///
    /// # Panics
    /// With the list of what is wrong.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.faults().next().is_none(), "the plugin does not stand what any plugin must:\n{self}");
    }

    pub(super) fn look(&mut self, rule: Rule, subject: impl Into<String>, fault: Option<String>) {
        self.findings.push(Finding { rule, subject: subject.into(), fault });
    }

    pub(super) fn fault(&mut self, rule: Rule, subject: impl Into<String>, fault: String) {
        self.look(rule, subject, Some(fault));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults().count();
        writeln!(f, "{} looks, {faults} faults", self.findings.len())?;
        for Finding { rule, subject, fault } in self.faults() {
            writeln!(f, "{rule:?}: {subject}: {}", fault.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The beginning of a text, on one line.
pub(super) fn short(text: &str) -> String {
    let cut: String = text.chars().take(SHORT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > SHORT_CHARS { cut + "…" } else { cut }
}
