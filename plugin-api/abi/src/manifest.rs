//! The manifest that can be read without loading the library: JSON in an ELF section of its own.

/// The section's name.
pub const SECTION: &str = ".cardcage";

/// The symbol's name; being exported, it survives strip and LTO.
pub const SYMBOL: &str = "CARDCAGE_MANIFEST";

/// The longest manifest, bytes.
pub const MAX_BYTES: usize = 16 * 1024;

/// Total length of some texts, for sizing [`concat()`].
#[allow(clippy::indexing_slicing)] // const evaluation: out of bounds is a compile error
pub const fn total_len(parts: &[&str]) -> usize {
    let mut total = 0;
    let mut i = 0;
    while i < parts.len() {
        total += parts[i].len();
        i += 1;
    }
    total
}

/// Joins texts at compile time.
#[allow(clippy::indexing_slicing)] // const evaluation: out of bounds is a compile error
pub const fn concat<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut out = [0u8; N];
    let (mut at, mut i) = (0, 0);
    while i < parts.len() {
        let bytes = parts[i].as_bytes();
        let mut j = 0;
        while j < bytes.len() {
            out[at] = bytes[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    out
}

/// Puts a library's manifest into its own section. All values are literals or constants without `"` or `\`.
///
/// `needs_abi` is for a library that is of no use in an older host: the first minor version that it can live with, as in
/// `"1.2"`.
#[macro_export]
macro_rules! export_manifest {
    (
        $name:expr, $version:expr, $sdk:expr, $rustc:expr, $target:expr, $panic:expr, $revision:expr
        $(, needs_abi = $needs:expr)?
    ) => {
        const _: () = {
            const PARTS: &[&str] = &[
                "{\"name\":\"",
                $name,
                "\",\"version\":\"",
                $version,
                "\",\"abi\":\"",
                $crate::VERSION,
                "\",\"sdk\":\"",
                $sdk,
                "\",\"rustc\":\"",
                $rustc,
                "\",\"target\":\"",
                $target,
                "\",\"panic\":\"",
                $panic,
                "\",\"git_revision\":\"",
                $revision,
                $("\",\"needs_abi\":\"", $needs,)?
                "\"}",
            ];
            #[unsafe(link_section = ".cardcage")]
            #[unsafe(export_name = "CARDCAGE_MANIFEST")]
            #[used]
            pub static MANIFEST: [u8; $crate::manifest::total_len(PARTS)] = $crate::manifest::concat(PARTS);
        };
    };
}
