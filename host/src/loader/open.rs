//! Opens a library and checks the boundary's layout. A room with `unsafe`.

use super::refusal::{Code, Refusal};
use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals};
use abi_stable::library::{AbiHeaderRef, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule};
use cardcage_abi::RootRef;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::path::Path;

const REBUILD: &str = "build the plugin again with an SDK that this host knows";

/// Opens the private copy `copy` of the library `original` and answers its root module.
///
/// Runs the library's constructors: inspect it first.
pub(super) fn open(copy: &Path, original: &Path) -> Result<RootRef, Refusal> {
    let refuse = |code, fault: String, remedy: &str| Refusal::new(original, code, fault, remedy);
    // SAFETY: constructors run here; the bytes were inspected, and loading a plugin means trusting its code.
    // OWNERSHIP: the library is forgotten below and stays mapped. THREADS: the dynamic linker locks.
    let library = unsafe { Library::open(Some(copy), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| open_failed(original, &error))?;
    // SAFETY: the symbol, where it exists, is the `LibHeader` static that abi_stable's header check then verifies.
    // OWNERSHIP: a static of the library. THREADS: read-only.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = header.map_err(|_| refuse(Code::AbiLayout, "exports no root module".into(), REBUILD))?;
    let header = *header;
    // Never closed: thread-local destructors and the plugin's threads go on running its code.
    std::mem::forget(library);
    let header = header.upgrade().map_err(|error| layout(original, &error.to_string()))?;
    let theirs = header
        .layout()
        .ok_or_else(|| refuse(Code::AbiLayout, "was built without a layout to check".into(), REBUILD))?;
    let ours = RootRef::LAYOUT;
    let version = header.version_strings();
    let minor =
        |version: &str| version.split('.').nth(1).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    // The checker asks that the first may stand in for the second, so the older side comes first: a host that has
    // grown still loads what was built before it grew.
    let older_plugin = minor(version.version.as_str()) < minor(RootRef::VERSION_STRINGS.version.as_str());
    let (first, second) = if older_plugin { (theirs, ours) } else { (ours, theirs) };
    // Each library is held against this host and no other library, for nothing passes from one to another. What the
    // checker would remember of an older one makes it refuse those that are as new as the host.
    check_layout_compatibility_with_globals(first, second, &CheckingGlobals::new())
        .map_err(|error| layout(original, &error.to_string()))?;
    // SAFETY: the layouts were compared just above, in the direction that fits. OWNERSHIP: leaked by the library.
    // THREADS: vtables of functions that may be called from any thread.
    let root = unsafe { header.init_root_module_with_unchecked_layout::<RootRef>() };
    root.map_err(|error| match error {
        LibraryError::RootModule { .. } => {
            refuse(Code::AbiLayout, "panicked while it made its root module".into(), "mend the plugin")
        }
        other => layout(original, &other.to_string()),
    })
}

fn open_failed(original: &Path, error: &libloading::Error) -> Refusal {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text = source.to_string();
    }
    // glibc puts the private copy's path before its sentence.
    let text = text.rsplit_once(".so: ").map_or(text.clone(), |(_, end)| end.to_owned());
    let (code, remedy) = if text.contains("GLIBC_") {
        (Code::NeedsNewerGlibc, "build the plugin on the oldest distribution that it shall run on")
    } else if text.contains("static TLS") {
        (Code::StaticTls, "remove jemalloc, mimalloc or another #[global_allocator] from the plugin")
    } else {
        (Code::OpenFailed, "install what it needs, or build it for this machine")
    };
    Refusal::new(original, code, format!("cannot be opened ({text})"), remedy)
}

/// A mismatch's report is hundreds of lines: people get its error lines, the log the rest.
fn layout(original: &Path, report: &str) -> Refusal {
    tracing::debug!(file = %original.display(), report, "the boundary's layout differs");
    let line = |line: &str| line.trim().strip_prefix("Error:").map(|text| text.trim().to_owned());
    let errors: Vec<_> = report.lines().filter_map(line).take(2).collect();
    let first = report.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    let what = if errors.is_empty() { first.trim().to_owned() } else { errors.join(", ") };
    Refusal::new(
        original,
        Code::AbiLayout,
        format!("does not fit this host's plugin interface ({what})"),
        REBUILD,
    )
}

/// Ends the process without running any library's destructors: plugin threads may still run their code, and what
/// `exit` would tear down under them is a crash at the end of a good life.
pub fn exit_now(code: i32) -> ! {
    unsafe extern "C" {
        fn _exit(code: i32) -> !;
    }
    // SAFETY: `_exit` takes any code and ends the process. OWNERSHIP: none. THREADS: async-signal-safe.
    unsafe { _exit(code) }
}
