//! What two plugins may not both have: a name, or a path.
//!
//! Invariants: whoever is in conflict is refused with both named, and the other stays: for a name, the plugin that is
//! configured by it; for a path, the one that comes first in the configuration.
//!
//! # What it refuses
//! It does not weigh one route against another: between plugins there is no "more specific" route, since nobody who
//! reads either plugin could tell who answers.

use super::description::Description;
use super::inspect::Manifest;
use super::previous;
use super::refusal::{Code, Refusal};
use super::set::Source;
use std::collections::HashMap;

/// Why a library may not go by the name it is configured by; `sources` are all that are configured, `inspected` those
/// before this one. The configuration's names differ, so a library that goes by its own name is in nobody's way.
pub(super) fn name<'a>(
    source: &Source,
    manifest: &Manifest,
    sources: &'a [Source],
    inspected: impl IntoIterator<Item = (&'a Source, &'a Manifest)>,
) -> Result<(), Refusal> {
    let Manifest { name, version, .. } = manifest;
    if *name == source.name {
        return Ok(());
    }
    if source.is_previous {
        return previous::judge(&source.name, &source.library, manifest, []);
    }
    let is = format!("is the plugin `{name}` {version}, but is configured as `{}`", source.name);
    let namesake = sources.iter().find(|other| other.name == *name);
    let twin = inspected.into_iter().find(|(_, other)| other.name == *name).map(|(other, _)| other);
    let (code, fault, remedy) = match namesake.or(twin) {
        Some(other) => {
            let file = other.library.display();
            let fault = format!("{is}, and [plugins.{}] has {file} for that plugin", other.name);
            (
                Code::Duplicate,
                fault,
                format!("remove [plugins.{}] or point its `library` elsewhere", source.name),
            )
        }
        None => {
            (Code::NameMismatch, is, format!("write [plugins.{name}] or point `library` at the right file"))
        }
    };
    Err(Refusal::new(&source.library, code, fault, remedy).of(&source.name))
}

/// Why a plugin may not be mounted beside `others`, or at all.
pub(super) fn routes<'a>(
    source: &Source,
    description: &Description,
    others: impl IntoIterator<Item = (&'a Source, &'a Description)>,
) -> Result<(), Refusal> {
    let refuse = |fault: String, remedy: &str| {
        Err(Refusal::new(&source.library, Code::RouteConflict, fault, remedy).of(&source.name))
    };
    // Templates that differ only in their parameters' names match the same paths.
    let mut shapes = HashMap::new();
    for route in &description.routes {
        let shape: Vec<_> =
            route.path.split('/').map(|part| if is_whole(part) { "{}" } else { part }).collect();
        if let Some(twin) = shapes.insert((&route.method, shape), &route.path) {
            let fault = format!("serves {} {} and {twin}, which are one path", route.method, route.path);
            return refuse(fault, "mend the plugin: remove one of the two");
        }
    }
    for (other, theirs) in others {
        if !nested(&source.prefix, &other.prefix) {
            continue;
        }
        for route in &description.routes {
            let own = mounted(source, &route.path);
            let Some(taken) = theirs.routes.iter().find(|taken| overlap(&own, &mounted(other, &taken.path)))
            else {
                continue;
            };
            let fault = format!(
                "serves {} {own}, where the plugin `{}` ({}) serves {} {}",
                route.method,
                other.name,
                other.library.display(),
                taken.method,
                mounted(other, &taken.path)
            );
            return refuse(fault, "give one of them another `prefix`");
        }
    }
    Ok(())
}

fn mounted(source: &Source, path: &str) -> String {
    format!("{}{path}", source.prefix.trim_end_matches('/'))
}

/// Whether one of two prefixes lies below the other; only then can paths meet.
fn nested(one: &str, other: &str) -> bool {
    one.trim_matches('/').split('/').zip(other.trim_matches('/').split('/')).all(|(a, b)| a == b)
}

/// Whether a path exists that both templates match.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        return match (one.next(), other.next()) {
            (Some(rest), Some(_)) | (Some(_), Some(rest)) if rest.contains("{*") => true,
            (Some(a), Some(b)) if a == b || (is_parameter(a) && !b.is_empty()) => continue,
            (Some(a), Some(b)) if is_parameter(b) && !a.is_empty() => continue,
            (None, None) => true,
            _ => false,
        };
    }
}

/// Whether the segment holds a parameter. What surrounds it is not weighed: better one refusal too many.
fn is_parameter(part: &str) -> bool {
    part.contains('{')
}

/// Whether the segment is a parameter and nothing else.
fn is_whole(part: &str) -> bool {
    part.starts_with('{') && part.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_overlap_where_one_path_matches_both() {
        for (one, other, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/c", false),
            ("/a/{x}", "/a/b", true),
            ("/a/{x}", "/a/{y}", true),
            ("/a/{x}/c", "/a/b/{y}", true),
            ("/a/{x}/c", "/a/b/d", false),
            ("/a/{x}", "/a", false),
            ("/a/{x}", "/a/b/c", false),
            ("/a/{x}", "/a/", false),
            ("/a/{*rest}", "/a/b/c", true),
            ("/a/{*rest}", "/a", false),
            ("/a/{*rest}", "/b/c", false),
            ("/a/{x}.json", "/a/b", true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn prefixes_are_nested_by_whole_segments() {
        assert!(nested("/shop", "/shop/nested") && nested("/shop/nested", "/shop"));
        assert!(!nested("/shop", "/shopping") && !nested("/shop/a", "/shop/b"));
    }
}
