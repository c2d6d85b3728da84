//! `cardcage plugin inspect FILE`: what a library says of itself, and whether this host would take it.
//!
//! It is the command for a file that nobody trusts yet: it reads bytes and runs none of them.
//!
//! Invariant: a refusal is one sentence on stderr and exit code 70, also with `--json`, where stdout holds the
//! same as `{"refused": {…}}` beside what could be read.

use std::path::Path;

use serde::Serialize;

use super::output;
use super::session::settings;
use crate::cli::InspectArgs;
use crate::config::{self, Signatures};
use crate::exit::Exit;
use crate::loader::{
    Code, Dependency, GlibcVersion, Inspection, Judgement, Manifest, Refusal, Trust, inspect, machine,
    needs_abi,
};
use crate::signature::{Fault, KeyId, Signature, Verified};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    #[serde(flatten)]
    inspection: Option<&'a Inspection>,
    /// The boundary's version that this host speaks.
    host_abi: &'static str,
    /// Whether this host loads libraries of the boundary that this one was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    abi_fits: Option<bool>,
    /// The glibc of this machine.
    host_glibc: Option<GlibcVersion>,
    /// What the signature beside it is: `good`, `bad` (for other bytes), `untrusted`, `unreadable` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'static str>,
    /// The key that it names.
    signature_key: Option<KeyId>,
    /// The signature, where a trusted key made it.
    signed: Option<&'a Verified>,
    refused: Option<Refused>,
}

/// What was found, and what the configuration says to it.
struct Found {
    sha256: String,
    inspection: Inspection,
    /// What lies beside it, whether or not it was asked for.
    signature: Result<KeyId, Fault>,
    /// It names a trusted key, and is for other bytes than those that are there.
    is_for_other_bytes: bool,
    judgement: Judgement,
}

/// Inspects a file and writes what was found.
#[must_use]
pub fn run(args: InspectArgs) -> Exit {
    let InspectArgs { file, dependencies, json, configuration } = args;
    let settings = match settings(configuration) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let (found, refusal) = match look(&file, &settings.trust) {
        Ok(mut found) => {
            let refusals = std::mem::take(&mut found.judgement.refusals);
            let refusal = refusals.into_iter().next();
            let refusal = refusal.or_else(|| inspect::verdict(&file, &found.inspection).err());
            (Some(found), refusal)
        }
        Err(refusal) => (None, Some(refusal)),
    };
    if json {
        output::json(&Answer {
            file: &file,
            sha256: found.as_ref().map(|found| &*found.sha256),
            inspection: found.as_ref().map(|found| &found.inspection),
            host_abi: cardcage_abi::VERSION,
            abi_fits: found.as_ref().map(|found| abi_fits(&found.inspection.manifest)),
            host_glibc: machine::glibc(),
            signature: found.as_ref().map(|found| signature(found).0),
            signature_key: found.as_ref().and_then(|found| found.signature.as_ref().ok().copied()),
            signed: found.as_ref().and_then(|found| found.judgement.signed.as_ref()),
            refused: refusal.as_ref().map(Refused::from),
        });
    } else if let Some(found) = &found {
        output::result(&text(&file, found, refusal.as_ref()));
        // Where none are stated, the text says so.
        if dependencies && found.inspection.dependencies.is_some() {
            output::result(&dependency_table(&found.inspection));
        }
    }
    match refusal {
        Some(refusal) => {
            output::refusal(&refusal);
            Exit::PluginRefused
        }
        None => Exit::Success,
    }
}

fn look(file: &Path, trust: &config::Trust) -> Result<Found, Refusal> {
    let (inspection, bytes) = inspect::file(file)?;
    // Whose signature it is, is worth knowing also where nobody asks for one.
    let signatures = match (trust.signatures, trust.trusted_keys.is_empty()) {
        (Signatures::Off, false) => Signatures::Warn,
        (asked, _) => asked,
    };
    let judgement =
        Trust::read(&config::Trust { signatures, ..trust.clone() }).judge(file, &inspection, &bytes);
    let signature = Signature::beside(file).map(|signature| signature.key());
    let mut told = judgement.refusals.iter().chain(&judgement.warnings);
    let is_for_other_bytes = signature.is_ok() && told.any(|one| one.code == Code::BadSignature);
    Ok(Found { sha256: inspect::sha256(&bytes), inspection, signature, is_for_other_bytes, judgement })
}

/// What the signature is, in one word and in words.
fn signature(found: &Found) -> (&'static str, String) {
    match (&found.signature, &found.judgement.signed) {
        (_, Some(Verified { key, comment })) => {
            // minisign's tool separates what it says by tabs.
            ("good", format!("good, by the trusted key {key} ({})", comment.replace('\t', "  ")))
        }
        (Ok(key), None) if found.is_for_other_bytes => {
            ("bad", format!("not good: it names the key {key}, and is for other bytes"))
        }
        (Ok(key), None) => ("untrusted", format!("by the key {key}, which the configuration does not trust")),
        (Err(Fault::Unreadable(how)), _) => ("unreadable", how.clone()),
        (Err(_), _) => ("none", "none".to_owned()),
    }
}

fn abi_fits(manifest: &Manifest) -> bool {
    inspect::abi_verdict(&manifest.abi, cardcage_abi::VERSION)
        .and_then(|()| needs_abi::verdict(&manifest.needs_abi, cardcage_abi::VERSION))
        .is_ok()
}

fn text(file: &Path, found: &Found, refusal: Option<&Refusal>) -> String {
    let inspection = &found.inspection;
    let Inspection { manifest, needs, .. } = inspection;
    let or = |text: &str, absent: &str| output::shown(if text.is_empty() { absent } else { text });
    let loads = if abi_fits(manifest) { "loads" } else { "does not load" };
    let abi = format!("{}, which this host ({}) {loads}", manifest.abi, cardcage_abi::VERSION);
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
        ("needs ABI", or(&manifest.needs_abi, "any of its major")),
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
        ("signature", signature(found).1),
        ("size", format!("{} bytes", inspection.size_bytes)),
        ("sha256", found.sha256.clone()),
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
