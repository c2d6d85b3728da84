//! What a library was built from, as `cargo auditable` leaves it in the section `.dep-v0`: zlib over JSON.
//!
//! A host can so tell which libraries contain a crate with a known fault, without running any of them.
//!
//! Invariants: a list that cannot be read is said to be so, and refuses nothing, since no host acts on it; a small
//! section cannot unfold into a large list ([`UNFOLDED_MAX_BYTES`]).

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};

const SECTION: &str = ".dep-v0";
/// `cargo auditable`'s own bound.
const UNFOLDED_MAX_BYTES: usize = 8 * 1024 * 1024;

/// One crate that the library was built from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dependency {
    /// The crate's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it came from: `crates.io`, `git`, `local` or `registry`.
    #[serde(default)]
    pub source: String,
    /// `build` where it ran while the library was built, and is not in it.
    #[serde(default = "runtime")]
    pub kind: String,
}

fn runtime() -> String {
    "runtime".to_owned()
}

#[derive(Deserialize)]
struct Embedded {
    packages: Vec<Dependency>,
}

/// The list, sorted; `None` where the library has none.
///
/// # Errors
/// Why the list that is there cannot be read.
pub(super) fn of(elf: &ElfFile64<'_>) -> Result<Option<Vec<Dependency>>, String> {
    let Some(section) = elf.section_by_name(SECTION) else { return Ok(None) };
    let data = section.data().map_err(|error| error.to_string())?;
    parse(data).map(Some)
}

fn parse(data: &[u8]) -> Result<Vec<Dependency>, String> {
    let unfolded = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(data, UNFOLDED_MAX_BYTES)
        .map_err(|error| format!("the section {SECTION} does not unfold: {error}"))?;
    let embedded: Embedded = serde_json::from_slice(&unfolded)
        .map_err(|error| format!("the section {SECTION} holds no list: {error}"))?;
    let mut packages = embedded.packages;
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(json: &[u8]) -> Vec<u8> {
        miniz_oxide::deflate::compress_to_vec_zlib(json, 6)
    }

    #[test]
    fn list_is_read_as_cargo_auditable_writes_it_and_sorted() {
        let json = br#"{"packages":[
            {"name":"serde","version":"1.0.228","source":"crates.io","dependencies":[1]},
            {"name":"cc","version":"1.2.0","source":"crates.io","kind":"build"},
            {"name":"mine","version":"0.1.0","source":"local","dependencies":[0],"root":true}]}"#;
        let list = parse(&folded(json)).unwrap();
        let names: Vec<_> = list.iter().map(|one| (one.name.as_str(), one.kind.as_str())).collect();
        assert_eq!(names, [("cc", "build"), ("mine", "runtime"), ("serde", "runtime")]);
    }

    #[test]
    fn list_that_would_unfold_without_end_is_given_up() {
        let bomb = folded(&vec![b' '; UNFOLDED_MAX_BYTES + 1]);
        assert!(bomb.len() < 64 * 1024);
        assert!(parse(&bomb).unwrap_err().contains("does not unfold"));
    }

    #[test]
    fn noise_is_no_list() {
        assert!(parse(b"noise").is_err());
        assert!(parse(&folded(b"{}")).unwrap_err().contains("holds no list"));
    }
}
