//! This executable, for starting it again as another process.

use std::path::PathBuf;

/// Its path; but if it was replaced or removed meanwhile, the very file that this process runs: both ends of a
/// conversation must be the same build.
pub(super) fn path() -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let running = PathBuf::from("/proc/self/exe");
    let inode = |path: &std::path::Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    match std::env::current_exe() {
        Ok(path) if inode(&path).is_some() && inode(&path) == inode(&running) => path,
        _ => running,
    }
}
