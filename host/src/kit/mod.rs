//! What teams that write plugins get from the binary: the folder of a new plugin.
//!
//! A template that lives apart from the code rots, and an SDK that must be fetched from somewhere may not be the host's.
//! So the binary carries the sources of its own SDK, and the example plugin `hello` as the template.
//!
//! Invariants: what is written is what this workspace compiles and tests, renamed by whole words and with nothing left that
//! refers to this workspace. The SDK's packages keep their names and versions, because the boundary is checked by them.
//!
//! What it refuses to do: it fetches nothing, runs nothing, and writes into no folder that holds something already.

mod manifest;
mod repo;

pub use repo::{NewPlugin, Sdk, new_plugin};

/// Files of this workspace, by their paths in it.
static FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/kit_files.rs"));

/// The text of one of them; empty where there is none, which a test rules out for those that are asked for.
fn file(path: &str) -> &'static str {
    FILES.iter().find(|(name, _)| *name == path).map_or("", |(_, text)| text)
}
