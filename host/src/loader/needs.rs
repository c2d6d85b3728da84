//! What a library asks of the machine that loads it, read from its dynamic section.
//!
//! glibc's own words about these are late (some of them come after constructors have run) and name a private copy:
//! so they are read from the file and said first.
//!
//! Invariant: input is bytes; nothing in them makes this panic.

use super::machine;
use super::refusal::{Code, Refusal};
use object::read::elf::{Dyn, ElfFile64};
use object::{Object, elf};
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A version of glibc, as in `2.36`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlibcVersion(Vec<u32>);

impl FromStr for GlibcVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        parts.map(Self).map_err(|_| ())
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

impl Serialize for GlibcVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a library asks of the machine.
#[derive(Debug, Clone, Serialize)]
pub struct Needs {
    /// The newest glibc symbol version that it needs.
    pub needs_glibc: Option<GlibcVersion>,
    /// Whether it needs static thread-local storage, as libraries with an allocator of their own do.
    pub static_tls: bool,
    /// The shared libraries that it needs.
    pub needs_libraries: Vec<String>,
    /// The one among them that is Rust's standard library.
    pub dynamic_std: Option<String>,
}

impl Needs {
    pub(super) fn of(elf: &ElfFile64<'_>) -> Self {
        let imports = elf.import_libraries().into_iter().flatten().flatten();
        let needs_libraries: Vec<String> =
            imports.map(|import| String::from_utf8_lossy(import.name()).into_owned()).collect();
        let dynamic_std = needs_libraries.iter().find(|name| name.starts_with("libstd-")).cloned();
        Self { needs_glibc: glibc(elf), static_tls: static_tls(elf), needs_libraries, dynamic_std }
    }

    /// Refuses what this machine cannot give.
    pub(super) fn verdict(&self, path: &Path) -> Result<(), Refusal> {
        let refuse = |code, fault: String, remedy| Err(Refusal::new(path, code, fault, remedy));
        if let Some(library) = &self.dynamic_std {
            let fault = format!("needs the Rust standard library as a shared library ({library})");
            return refuse(Code::DynamicStd, fault, "build the plugin without `-C prefer-dynamic`");
        }
        if let (Some(needed), Some(there)) = (&self.needs_glibc, machine::glibc())
            && *needed > there
        {
            let fault = format!("needs glibc {needed}, and this machine has {there}");
            let remedy = "build the plugin on the oldest distribution that it shall run on";
            return refuse(Code::NeedsNewerGlibc, fault, remedy);
        }
        if self.static_tls {
            let fault = "needs static thread-local storage, which a loaded library cannot get; most often an allocator";
            let remedy = "remove jemalloc, mimalloc or another #[global_allocator] from the plugin";
            return refuse(Code::StaticTls, fault.to_owned(), remedy);
        }
        Ok(())
    }
}

/// The newest `GLIBC_x.y` among the version needs.
fn glibc(elf: &ElfFile64<'_>) -> Option<GlibcVersion> {
    let endian = elf.endian();
    let (mut needs, link) = elf.elf_section_table().gnu_verneed(endian, elf.data()).ok()??;
    let strings = elf.elf_section_table().strings(endian, elf.data(), link).unwrap_or_default();
    let mut newest = None;
    // The iterators end at the section's end, and each entry moves forward.
    while let Ok(Some((_, mut entries))) = needs.next() {
        while let Ok(Some(entry)) = entries.next() {
            let name = entry.name(endian, strings).unwrap_or_default();
            newest = newest.max(std::str::from_utf8(name).ok().and_then(symbol_version));
        }
    }
    newest
}

fn symbol_version(name: &str) -> Option<GlibcVersion> {
    match name.strip_prefix("GLIBC_")? {
        // Not a symbol's version: it says that the library has packed relocations, which 2.36 was the first to read.
        "ABI_DT_RELR" => Some(GlibcVersion(vec![2, 36])),
        version => version.parse().ok(),
    }
}

fn static_tls(elf: &ElfFile64<'_>) -> bool {
    let endian = elf.endian();
    let Ok(Some((entries, _))) = elf.elf_section_table().dynamic(endian, elf.data()) else { return false };
    entries
        .iter()
        .any(|entry| entry.tag(endian) == elf::DT_FLAGS && entry.val(endian) & elf::DF_STATIC_TLS.0 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_numbers_and_not_by_letters() {
        let version = |text: &str| text.parse::<GlibcVersion>().unwrap();
        assert!(version("2.9") < version("2.36"));
        assert!(version("2.2.5") < version("2.3"));
        assert!("2.x".parse::<GlibcVersion>().is_err());
    }

    #[test]
    fn what_is_no_version_counts_as_none_and_packed_relocations_as_the_first_that_reads_them() {
        assert_eq!(symbol_version("GLIBC_PRIVATE"), None);
        assert_eq!(symbol_version("GCC_3.0"), None);
        assert_eq!(symbol_version("GLIBC_ABI_DT_RELR"), "2.36".parse().ok());
    }
}
