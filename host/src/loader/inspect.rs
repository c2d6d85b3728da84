//! Reads what a library is and needs, without running any of it.
//!
//! Constructors of a library run inside `dlopen`, before any check could be made, so everything that can be known
//! from the file is checked here first. Input is bytes; nothing in them makes this panic.

use super::dependencies::{self, Dependency};
use super::needs::Needs;
use super::needs_abi;
use super::refusal::{Code, Refusal};
use crate::regular_file;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Object, ObjectSection, elf};
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::Path;

/// The largest library that is read: 512 MiB.
pub const LIBRARY_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// What a library says of itself in its `.cardcage` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The plugin's name.
    pub name: String,
    /// The plugin's version, semver.
    pub version: String,
    /// The boundary's version that it was built against.
    pub abi: String,
    /// The first minor version of the boundary that a host must speak, where it needs more than the first of its major.
    #[serde(default)]
    pub needs_abi: String,
    /// The SDK's version.
    #[serde(default)]
    pub sdk: String,
    /// The compiler.
    #[serde(default)]
    pub rustc: String,
    /// The target triple.
    #[serde(default)]
    pub target: String,
    /// `unwind`.
    #[serde(default)]
    pub panic: String,
    /// The revision of the plugin's repo, where its build told.
    #[serde(default)]
    pub git_revision: String,
}

impl Manifest {
    /// The plugin's major: the first number of its version.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        self.version.split('.').next()?.parse().ok()
    }
}

/// All that can be known of a library from its bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Bytes.
    pub size_bytes: u64,
    /// The manifest.
    pub manifest: Manifest,
    /// What it asks of the machine.
    #[serde(flatten)]
    pub needs: Needs,
    /// What it was built from, where its build told.
    pub dependencies: Option<Vec<Dependency>>,
    /// Why the list of what it was built from cannot be read.
    pub dependencies_fault: Option<String>,
}

/// Whether a name can be a subject token.
pub(super) fn is_name(name: &str) -> bool {
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    !name.is_empty() && name.len() <= 64 && name.chars().all(legal)
}

/// Reads a file and inspects it.
///
/// # Errors
/// A [`Refusal`] that says why no host could load this file.
pub fn file(path: &Path) -> Result<(Inspection, Vec<u8>), Refusal> {
    let mut bytes = Vec::new();
    let inspection = file_into(path, &mut bytes)?;
    Ok((inspection, bytes))
}

/// The same, with the file's bytes in place of what is in `bytes`: whoever reads many has the memory for them made ready once, which costs
/// as much as the reading.
///
/// # Errors
/// As [`file()`].
pub(super) fn file_into(path: &Path, bytes: &mut Vec<u8>) -> Result<Inspection, Refusal> {
    bytes.clear();
    let unreadable = |error: std::io::Error| match std::fs::read_link(path) {
        Ok(target) if error.kind() == std::io::ErrorKind::NotFound => {
            let fault = format!("cannot be read: it is a link to {}, where nothing is", target.display());
            Refusal::new(path, Code::Unreadable, fault, "put the library there, or mend the link")
        }
        _ => {
            let remedy = "check the path and the file's permissions";
            Refusal::new(path, Code::Unreadable, format!("cannot be read ({error})"), remedy)
        }
    };
    let file = regular_file::open(path).map_err(|error| {
        if !regular_file::is_other_kind(&error) {
            return unreadable(error);
        }
        let remedy = "give the path of the plugin's .so file";
        Refusal::new(path, Code::NotALibrary, "is not a regular file", remedy)
    })?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > LIBRARY_MAX_BYTES {
        let fault = format!("has {length} bytes, more than the {LIBRARY_MAX_BYTES} allowed");
        return Err(Refusal::new(
            path,
            Code::NotALibrary,
            fault,
            "strip the library, or give the path of another file",
        ));
    }
    bytes.reserve(usize::try_from(length).unwrap_or_default());
    // No more than was looked at, whoever writes to it meanwhile: what is missing then is told by the inspection.
    file.take(length).read_to_end(bytes).map_err(unreadable)?;
    bytes_of(path, bytes)
}

fn truncated(path: &Path, what: &str) -> Refusal {
    let fault = format!("is cut short or damaged: {what}");
    Refusal::new(path, Code::Truncated, fault, "copy or build it again")
}

/// Inspects a library's bytes.
///
/// # Errors
/// As [`file()`].
pub fn bytes_of(path: &Path, bytes: &[u8]) -> Result<Inspection, Refusal> {
    let rebuild = "build the plugin as a cdylib with the Cardcage SDK (`crate-type = [\"cdylib\"]`)";
    if !bytes.starts_with(&elf::ELFMAG) {
        let what = if bytes.is_empty() {
            "is empty"
        } else if bytes.starts_with(b"#!") {
            "is a script, not a library"
        } else {
            "is not an ELF library"
        };
        return Err(Refusal::new(path, Code::NotALibrary, what, rebuild));
    }
    let architecture = std::env::consts::ARCH;
    let wrong = |what: String| {
        let remedy = format!(
            "build it for {architecture} with `cargo build --target {architecture}-unknown-linux-gnu`"
        );
        Refusal::new(path, Code::WrongArchitecture, what, remedy)
    };
    if bytes.get(4) == Some(&elf::ELFCLASS32.0) {
        return Err(wrong("is a 32-bit library".into()));
    }
    let header =
        elf::FileHeader64::<object::Endianness>::parse(bytes).map_err(|e| truncated(path, &e.to_string()))?;
    let endian = header.endian().map_err(|e| truncated(path, &e.to_string()))?;
    let machine = match header.e_machine(endian) {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_RISCV => "riscv64",
        _ => "another machine",
    };
    if machine != architecture {
        return Err(wrong(format!("is built for {machine}, and this host is {architecture}")));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(Refusal::new(path, Code::NotALibrary, "is an ELF file but no shared library", rebuild));
    }
    // Where the loader maps from must lie in the file: glibc answers a cut file with SIGBUS.
    let segments = header.program_headers(endian, bytes).map_err(|e| truncated(path, &e.to_string()))?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    for segment in segments {
        let end = segment.p_offset(endian).checked_add(segment.p_filesz(endian));
        if end.is_none_or(|end| end > size) {
            return Err(truncated(path, "a segment lies beyond the end of the file"));
        }
    }
    let sections_end = u64::from(header.e_shnum(endian))
        .checked_mul(u64::from(header.e_shentsize(endian)))
        .and_then(|length| header.e_shoff(endian).checked_add(length));
    if sections_end.is_none_or(|end| end > size) {
        return Err(truncated(path, "its section table lies beyond the end of the file"));
    }
    let elf = ElfFile64::<object::Endianness>::parse(bytes).map_err(|e| truncated(path, &e.to_string()))?;
    let manifest = manifest(path, &elf)?;
    let (dependencies, dependencies_fault) = match dependencies::of(&elf) {
        Ok(list) => (list, None),
        Err(fault) => (None, Some(fault)),
    };
    Ok(Inspection { size_bytes: size, manifest, needs: Needs::of(&elf), dependencies, dependencies_fault })
}

/// What tells a library's bytes from all others within this machine: BLAKE3, hex. It takes a fraction of the time that SHA-256 takes, which
/// is for what people and other machines compare.
pub(super) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// SHA-256, hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

fn manifest(path: &Path, elf: &ElfFile64<'_>) -> Result<Manifest, Refusal> {
    let section = elf.section_by_name(cardcage_abi::manifest::SECTION).ok_or_else(|| {
        let fault = "has no Cardcage manifest, so it is not a plugin";
        Refusal::new(path, Code::NoManifest, fault, "export the plugin with the SDK's `plugin!` macro")
    })?;
    let bad = |what: String| {
        let fault = format!("has a manifest that cannot be read ({what})");
        Refusal::new(path, Code::BadManifest, fault, "build it again with the SDK's `plugin!` macro")
    };
    manifest_of(path, section.data().map_err(|error| bad(error.to_string()))?)
}

/// Reads the content of a manifest's section.
///
/// # Errors
/// A [`Refusal`] that says what is wrong with it.
pub fn manifest_of(path: &Path, data: &[u8]) -> Result<Manifest, Refusal> {
    let bad = |what: String| {
        let fault = format!("has a manifest that cannot be read ({what})");
        Refusal::new(path, Code::BadManifest, fault, "build it again with the SDK's `plugin!` macro")
    };
    if data.len() > cardcage_abi::manifest::MAX_BYTES {
        return Err(bad(format!("{} bytes are too many", data.len())));
    }
    // Zeros after it are padding: a sanitizer puts some between any two statics.
    let length = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let data = data.get(..length).unwrap_or_default();
    let manifest: Manifest = serde_json::from_slice(data).map_err(|error| bad(error.to_string()))?;
    if !is_name(&manifest.name) {
        return Err(bad("the name is not 1 to 64 of a-z, 0-9, _ and -".into()));
    }
    if manifest.major().is_none() {
        return Err(bad("the version does not start with a number".into()).of(&manifest.name));
    }
    Ok(manifest)
}

/// Whether a host with the boundary `host` loads a plugin built against `plugin`.
///
/// # Errors
/// The fault and the remedy, as the two halves of a sentence.
pub fn abi_verdict(plugin: &str, host: &str) -> Result<(), (String, String)> {
    let major = |version: &str| version.split('.').next().and_then(|part| part.parse::<u32>().ok());
    if major(plugin).is_some() && major(plugin) == major(host) {
        return Ok(());
    }
    let fault = format!("is built against ABI {plugin}, and this host speaks ABI {host}");
    let remedy = match (major(plugin), major(host)) {
        (Some(plugin), Some(host)) if plugin > host => "update the host".to_owned(),
        _ => "build the plugin with a current SDK".to_owned(),
    };
    Err((fault, remedy))
}

/// Refuses a plugin that goes by another name than it is configured by.
#[must_use]
pub fn misnamed(path: &Path, name: &str, inspection: &Inspection) -> Refusal {
    let Manifest { name: own, version, .. } = &inspection.manifest;
    let fault = format!("is the plugin `{own}` {version}, but is configured as `{name}`");
    let remedy = format!("write [plugins.{own}] or point `library` at the right file");
    Refusal::new(path, Code::NameMismatch, fault, remedy).of(name)
}

/// Refuses what inspection shows cannot work on this host.
///
/// # Errors
/// A [`Refusal`] for another ABI major, a minor that this host does not have, `panic=abort`, or for what this machine
/// cannot give.
pub fn verdict(path: &Path, inspection: &Inspection) -> Result<(), Refusal> {
    let Manifest { name, abi, panic, .. } = &inspection.manifest;
    abi_verdict(abi, cardcage_abi::VERSION)
        .map_err(|(fault, remedy)| Refusal::new(path, Code::AbiMajor, fault, remedy).of(name))?;
    needs_abi::verdict(&inspection.manifest.needs_abi, cardcage_abi::VERSION)
        .map_err(|(fault, remedy)| Refusal::new(path, Code::AbiMinor, fault, remedy).of(name))?;
    // The SDK does not compile with it; another toolchain's plugin may say so only here.
    if panic == "abort" {
        let fault = "is built with panic=abort, so that a panic in it would end the host's child";
        let remedy = "remove `panic = \"abort\"` from the profile and build the plugin again";
        return Err(Refusal::new(path, Code::PanicAbort, fault, remedy).of(name));
    }
    inspection.needs.verdict(path).map_err(|refusal| refusal.of(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = br#"{"name":"hello","version":"1.2.3","abi":"1.0"}"#;

    fn read(before: &[u8], after: &[u8]) -> Result<Manifest, String> {
        let data = [before, MANIFEST, after].concat();
        manifest_of(Path::new("hello.so"), &data).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn zeros_after_a_manifest_are_padding_and_nothing_else_may_stand_around_it() {
        let plain = read(b"", b"").unwrap();
        assert_eq!((plain.name.as_str(), plain.major()), ("hello", Some(1)));
        for padding in [1, 18, 64] {
            assert_eq!(read(b"", &vec![0; padding]).as_ref(), Ok(&plain), "{padding} zeros");
        }
        for (before, after) in
            [("", "x"), ("", "\0x"), ("", "\0{}"), ("", "{}"), ("\0", ""), ("\0", "\0"), ("x", "")]
        {
            let refused = read(before.as_bytes(), after.as_bytes()).unwrap_err();
            assert!(
                refused.contains("has a manifest that cannot be read"),
                "{before:?} {after:?}: {refused}"
            );
        }
    }

    #[test]
    fn zeros_count_for_the_length_and_are_no_manifest_by_themselves() {
        let longest = cardcage_abi::manifest::MAX_BYTES - MANIFEST.len();
        assert!(read(b"", &vec![0; longest]).is_ok());
        assert!(read(b"", &vec![0; longest + 1]).unwrap_err().contains("bytes are too many"));
        assert!(manifest_of(Path::new("hello.so"), &[0; 64]).is_err());
        assert!(manifest_of(Path::new("hello.so"), b"").is_err());
    }
}
