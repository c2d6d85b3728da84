//! `cardcage plugin inspect FILE`: what a library says of itself, and whether this host would take it.
//!
//! It is the command for a file that nobody trusts yet: it reads bytes and runs none of them.
//!
//! Invariant: a refusal is one sentence on stderr and exit code 70, also with `--json`, where stdout holds the
//! same as `{"refused": {…}}` beside what could be read.

use std::path::Path;

use serde::Serialize;

use super::output;
use crate::cli::InspectArgs;
use crate::exit::Exit;
use crate::loader::{Dependency, GlibcVersion, Inspection, Refusal, inspect, machine};

/// A refusal for programs.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// The stable code.
    pub code: &'static str,
    /// What is wrong.
    pub fault: String,
    /// What to do.
    pub remedy: String,
    /// The whole sentence, with the file.
    pub message: String,
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.as_str(),
            fault: refusal.fault.clone(),
            remedy: refusal.remedy.clone(),
            message: refusal.to_string(),
        }
    }
}

/// The answer for programs.
#[derive(Serialize)]
struct Answer<'a> {
    file: &'a Path,
    #[serde(flatten)]
    inspection: Option<&'a Inspection>,
    /// The boundary's version that this host speaks.
    host_abi: &'static str,
    /// The glibc of this machine.
    host_glibc: Option<GlibcVersion>,
    refused: Option<Refused>,
}

/// Inspects a file and writes what was found.
#[must_use]
pub fn run(args: &InspectArgs) -> Exit {
    let InspectArgs { file, dependencies, json } = args;
    // The bytes are not needed any more: they are hashed.
    let inspected = inspect::file(file).map(|(inspection, _)| inspection);
    let (inspection, refusal) = match inspected {
        Ok(inspection) => {
            let refusal = inspect::verdict(file, &inspection).err();
            (Some(inspection), refusal)
        }
        Err(refusal) => (None, Some(refusal)),
    };
    if *json {
        output::json(&Answer {
            file,
            inspection: inspection.as_ref(),
            host_abi: cardcage_abi::VERSION,
            host_glibc: machine::glibc(),
            refused: refusal.as_ref().map(Refused::from),
        });
    } else if let Some(inspection) = &inspection {
        output::result(&text(file, inspection, refusal.as_ref()));
        if *dependencies {
            output::result(&dependency_table(inspection));
        }
    }
    match refusal {
        Some(refusal) => {
            output::trouble(&output::shown(&refusal.to_string()));
            Exit::PluginRefused
        }
        None => Exit::Success,
    }
}

fn text(file: &Path, inspection: &Inspection, refusal: Option<&Refusal>) -> String {
    let Inspection { manifest, needs, .. } = inspection;
    let or = |text: &str, absent: &str| output::shown(if text.is_empty() { absent } else { text });
    let abi = match inspect::abi_verdict(&manifest.abi, cardcage_abi::VERSION) {
        Ok(()) => format!("{}, which this host ({}) loads", manifest.abi, cardcage_abi::VERSION),
        Err(_) => format!("{}, which this host ({}) does not load", manifest.abi, cardcage_abi::VERSION),
    };
    let verdict = match refusal {
        None => "this host would load it".to_owned(),
        Some(refusal) => format!("refused ({})", refusal.code.as_str()),
    };
    let libraries = match needs.needs_libraries.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    };
    let needed =
        needs.needs_glibc.as_ref().map_or_else(|| "no particular one".to_owned(), ToString::to_string);
    let glibc = machine::glibc().map_or_else(String::new, |there| format!(" (this machine has {there})"));
    let std = needs
        .dynamic_std
        .as_ref()
        .map_or_else(|| "inside".to_owned(), |it| format!("{it}, which is not loaded"));
    let rows = [
        ("file", file.display().to_string()),
        ("plugin", manifest.name.clone()),
        ("version", manifest.version.clone()),
        ("verdict", verdict),
        ("ABI", abi),
        ("SDK", or(&manifest.sdk, "not stated")),
        ("rustc", or(&manifest.rustc, "not stated")),
        ("target", or(&manifest.target, "not stated")),
        ("panic", or(&manifest.panic, "not stated")),
        ("git revision", or(&manifest.git_revision, "not stated")),
        ("needs glibc", format!("{needed}{glibc}")),
        ("static TLS", if needs.static_tls { "yes, most often an allocator" } else { "no" }.to_owned()),
        ("Rust's std", std),
        ("needs libraries", libraries),
        ("dependencies", dependencies(inspection)),
        ("size", format!("{} bytes", inspection.size_bytes)),
        ("sha256", inspection.sha256.clone()),
    ];
    let mut table = output::table();
    for (name, value) in rows {
        table.add_row([name.to_owned(), output::shown(&value)]);
    }
    table.trim_fmt()
}

/// How many crates it was built from, in words.
fn dependencies(inspection: &Inspection) -> String {
    match (&inspection.dependencies, &inspection.dependencies_fault) {
        (_, Some(fault)) => format!("cannot be read ({fault})"),
        (Some(list), _) => format!("{} crates; --dependencies lists them", list.len()),
        (None, None) => "not stated; it was built without `cargo auditable`".to_owned(),
    }
}

fn dependency_table(inspection: &Inspection) -> String {
    let mut table = output::table();
    table.set_header(["crate", "version", "source", "kind"]);
    for Dependency { name, version, source, kind } in inspection.dependencies.iter().flatten() {
        table.add_row([name, version, source, kind].map(|cell| output::shown(cell)));
    }
    format!("\n{}", table.trim_fmt())
}
