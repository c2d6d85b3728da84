//! `plugins.<name>.routes`: does each override mean a route that the plugin has, and one that can be moved?
//!
//! Only the plugin's own description can tell, so this is known after the configuration was read. It is a mistake in
//! the configuration all the same: `check` and a starting API tell it in the same sentences and with the same code.

use std::fmt::Write as _;

use crate::loader::{Description, Placement, RouteDescription};

/// How many routes are named as a hint.
const HINTS: usize = 8;

/// One sentence for each of the plugin's `overridden` routes, written `METHOD /path`, that cannot be moved.
#[must_use]
pub fn override_faults<'a>(
    name: &str,
    overridden: impl IntoIterator<Item = &'a String>,
    description: &Description,
) -> Vec<String> {
    let option = |route: &str| format!("`plugins.{name}.routes.\"{route}\"`");
    let mut faults = Vec::new();
    for route in overridden {
        let known = description.routes.iter().find(|known| shown(known) == *route);
        match known {
            None => faults.push(format!("{} names no route of the plugin; {}", option(route), hint(description))),
            Some(known) if known.placement == Placement::Enqueue => faults.push(format!(
                "{} cannot move a route that the plugin declares as `enqueue`, which runs no handler; remove the line",
                option(route)
            )),
            Some(_) => {}
        }
    }
    faults
}

fn shown(route: &RouteDescription) -> String {
    format!("{} {}", route.method, route.path)
}

fn hint(description: &Description) -> String {
    let movable = || description.routes.iter().filter(|route| route.placement != Placement::Enqueue);
    let names: Vec<String> = movable().take(HINTS).map(|route| format!("\"{}\"", shown(route))).collect();
    if names.is_empty() {
        return "it has none that can be moved".to_owned();
    }
    let mut text = format!("it has {}", names.join(", "));
    let more = movable().count().saturating_sub(HINTS);
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}
