//! Who may change the cap of a task's consumer: hosts of several versions share it. Pure.
//!
//! Invariant: with the same hosts running, the cap settles: a version never undoes what a later one has said.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// The consumer's metadata that names the version.
pub(super) const DECLARED_BY: &str = "cardcage-declared-by";

/// Stands in the place of a version where an operator has set the cap. Every host that runs knows what is set, and says
/// the same; once it is lifted, any version may say otherwise.
pub(super) const OPERATOR: &str = "operator";

/// What to do with a consumer that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is as it should be.
    Keep,
    /// A later version has said otherwise.
    TakeTheirs,
    /// Write cap and version anew.
    Change,
}

/// The version that a consumer's cap comes from.
pub(super) fn declared_by(config: &Map<String, Value>) -> Option<&str> {
    config.get("metadata")?.get(DECLARED_BY)?.as_str()
}

/// `ours` and `theirs` are versions of the plugin.
pub(super) fn judge(ours: &str, theirs: Option<&str>, differs: bool) -> Verdict {
    if ours == OPERATOR {
        return if differs || theirs != Some(OPERATOR) { Verdict::Change } else { Verdict::Keep };
    }
    match theirs.map_or(Ordering::Greater, |theirs| compare_versions(ours, theirs)) {
        Ordering::Less if differs => Verdict::TakeTheirs,
        Ordering::Less => Verdict::Keep,
        // The same version under other settings: the host that started last has the operator's latest word.
        Ordering::Equal if !differs => Verdict::Keep,
        Ordering::Equal => Verdict::Change,
        // Also where the number is the same: from now on an earlier version may not change it.
        Ordering::Greater => Verdict::Change,
    }
}

/// Which of two versions of a plugin is the later one.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    numbers(a).cmp(&numbers(b))
}

/// The numbers of a version, which is all that tells one from another here; what is no number counts as none.
fn numbers(version: &str) -> [u64; 3] {
    let mut numbers = [0; 3];
    let core = version.split(['-', '+']).next().unwrap_or_default();
    for (number, text) in numbers.iter_mut().zip(core.split('.')) {
        *number = text.parse().unwrap_or(0);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_version_has_the_say_and_versions_are_compared_as_numbers() {
        for (ours, theirs, differs, verdict) in [
            ("1.10.0", Some("1.9.0"), true, Verdict::Change),
            ("1.10.0", Some("1.9.0"), false, Verdict::Change),
            ("1.9.0", Some("1.10.0"), true, Verdict::TakeTheirs),
            ("1.9.0", Some("1.10.0"), false, Verdict::Keep),
            ("1.2.3", Some("1.2.3"), true, Verdict::Change),
            ("1.2.3", Some("1.2.3"), false, Verdict::Keep),
            ("1.2.3-rc.1", Some("1.2.3"), false, Verdict::Keep),
            ("0.0.1", None, true, Verdict::Change),
            (OPERATOR, Some("1.2.3"), true, Verdict::Change),
            (OPERATOR, Some("1.2.3"), false, Verdict::Change),
            (OPERATOR, Some(OPERATOR), true, Verdict::Change),
            (OPERATOR, Some(OPERATOR), false, Verdict::Keep),
            ("0.0.1", Some(OPERATOR), true, Verdict::Change),
        ] {
            assert_eq!(judge(ours, theirs, differs), verdict, "{ours} {theirs:?} {differs}");
        }
    }
}
