//! A `.tar.zst` that depends on names and contents only.
//!
//! Invariant: the same files give the same bytes, whoever packs them and when: sorted, owned by nobody, from 1970.

use std::io::Write as _;

/// Zstandard's level: a library packs in a second or two.
const LEVEL: i32 = 9;

/// Packs files into one folder.
///
/// # Errors
/// A path that does not fit into a tar header.
pub(super) fn pack(folder: &str, files: &[(String, Vec<u8>)]) -> std::io::Result<Vec<u8>> {
    let mut sorted: Vec<&(String, Vec<u8>)> = files.iter().collect();
    sorted.sort();
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL)?);
    for (name, content) in sorted {
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("{folder}/{name}"))?;
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        tar.append(&header, content.as_slice())?;
    }
    let mut zstd = tar.into_inner()?;
    zstd.flush()?;
    zstd.finish()
}

#[cfg(test)]
mod tests {
    use super::pack;

    #[test]
    fn the_same_files_in_another_order_give_the_same_bytes() {
        let file = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
        let bytes = pack("x-1", &[file("b"), file("a")]).unwrap();
        assert_eq!(bytes, pack("x-1", &[file("a"), file("b")]).unwrap());
        assert_ne!(bytes, pack("x-1", &[file("a"), file("c")]).unwrap());
    }

    #[test]
    fn longest_names_fit() {
        let folder = format!("{}-100.200.300-x86_64-unknown-linux-gnu", "n".repeat(64));
        let library = format!("libcardcage_plugin_{}.so", "n".repeat(64));
        assert!(pack(&folder, &[(library, Vec::new())]).is_ok());
    }
}
