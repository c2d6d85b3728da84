//! Subjects: what a filter matches, and where a republished message goes.

/// Whether `filter`, which may hold `*` and `>`, matches a subject.
pub(super) fn matches(filter: &str, subject: &str) -> bool {
    let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(f), Some(s)) if f == s => {}
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both filters.
pub(super) fn overlaps(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// The subject that `dest` makes of one that `src` matches: `{{wildcard(n)}}` and `$n` stand for its n-th wildcard, `>`
/// for the rest.
pub(super) fn map(src: &str, dest: &str, subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    let mut stars = Vec::new();
    let mut rest = String::new();
    for (place, part) in src.split('.').enumerate() {
        match part {
            "*" => stars.extend(tokens.get(place)),
            ">" => rest = tokens.get(place..).unwrap_or_default().join("."),
            _ => {}
        }
    }
    let star = |n: &str| n.parse::<usize>().ok().and_then(|n| stars.get(n.checked_sub(1)?)).copied();
    let parts = dest.split('.').map(|part| {
        let n = part
            .strip_prefix('$')
            .or_else(|| Some(part.strip_prefix("{{wildcard(")?.strip_suffix(")}}")?.trim()));
        match n.and_then(star) {
            Some(token) => token,
            None if part == ">" => rest.as_str(),
            None => part,
        }
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_and_overlap_token_by_token() {
        assert!(matches("a.*.c", "a.b.c") && matches("a.>", "a.b.c") && !matches("a.>", "a"));
        assert!(!matches("a.*", "a.b.c") && !matches("a.b", "a.c"));
        assert!(overlaps("a.*.c", "a.b.>") && overlaps("*.b", "a.*") && !overlaps("a.b", "a.c"));
        assert_eq!(map("t.state.*", "t.done.$1", "t.state.x"), "t.done.x");
        assert_eq!(map("t.*.*", "d.{{wildcard(2)}}", "t.a.b"), "d.b");
        assert_eq!(map("t.>", "d.>", "t.a.b"), "d.a.b");
    }
}
