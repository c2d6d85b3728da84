//! What this machine offers a library. A file with `unsafe`.

use super::needs::GlibcVersion;
use std::ffi::{CStr, c_char};

/// The version of the glibc that this process runs with.
#[must_use]
pub fn glibc() -> Option<GlibcVersion> {
    unsafe extern "C" {
        fn gnu_get_libc_version() -> *const c_char;
    }
    // SAFETY: it takes nothing and answers a text that ends with zero. OWNERSHIP: a static of glibc's.
    // THREADS: read-only.
    let text = unsafe { CStr::from_ptr(gnu_get_libc_version()) };
    text.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn machine_that_runs_the_host_has_a_glibc_that_can() {
        assert!(super::glibc() >= Some("2.17".parse().unwrap()));
    }
}
