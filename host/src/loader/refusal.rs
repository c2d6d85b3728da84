//! Why a library is not loaded: the codes, each with a page, and the sentence of one refusal.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

macro_rules! codes {
    ($($variant:ident $code:literal $title:literal $advice:literal;)*) => {
        /// What is wrong, as a stable code. Each has a page at `/problems/<code>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum Code {
            $(#[doc = $title] #[serde(rename = $code)] $variant,)*
        }

        impl Code {
            /// All of them, in the order in which a library meets them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as written in logs and URLs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One line that says what is wrong.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What to do, and whose it is to do.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }

            /// The code with this text.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    Unreadable "unreadable" "The library cannot be read, or no private copy of it can be made."
        "Operator: check the path in `library`, the file's permissions, and `loading.cache_dir`.";
    NotALibrary "not_a_library" "The file is no shared library."
        "Operator: point `library` at the plugin's .so file. Author: build it with `crate-type = [\"cdylib\"]`.";
    Truncated "truncated" "The library is cut short or damaged."
        "Operator: copy it again, and compare its hash with the author's.";
    WrongArchitecture "wrong_architecture" "The library is built for another processor."
        "Operator: take the file for this host's target. Author: build with `--target`.";
    NoManifest "no_manifest" "The library has no manifest, so it is not a plugin."
        "Author: export the plugin with the SDK's `plugin!` macro.";
    BadManifest "bad_manifest" "The library's manifest cannot be read."
        "Author: build the plugin again with the SDK's `plugin!` macro.";
    BadLock "bad_lock" "The lock of the plugin set is required and cannot be read, so nothing is known to be chosen."
        "Operator: write it with `cardcage plugin lock`, or correct `plugins.require_lock`.";
    NotInLock "not_in_lock" "The library is not one that the lock of the plugin set lists: its hash is not there."
        "Operator: put back the file that was chosen, or choose this one with `cardcage plugin lock`.";
    LockMismatch "lock_mismatch" "The library's hash is in the lock under another name, version or signer."
        "Operator: look who changed the lock, then write it again with `cardcage plugin lock`.";
    Unsigned "unsigned" "The library has no signature, and signatures are required."
        "Operator: take the library from who signs it, with its .minisig file, or sign it with `cardcage plugin sign`.";
    BadSignature "bad_signature" "The library's signature is none, or was made for other bytes."
        "Operator: do not use the file; take it again from who signed it.";
    UntrustedKey "untrusted_key" "The library is signed with a key that the configuration does not trust."
        "Operator: add the public key to `plugins.trusted_keys` if you trust it.";
    AbiMajor "abi_major" "The library is built against another major version of the ABI."
        "Operator: update the host where the library is newer. Author: build with a current SDK where it is older.";
    AbiMinor "abi_minor" "The library needs a later minor version of the ABI than this host speaks."
        "Operator: update the host. Author: build without `needs_abi` where the plugin can live without it.";
    PanicAbort "panic_abort" "The library is built with panic=abort, so that a panic in it would end the host's child."
        "Author: remove `panic = \"abort\"` from the profile and build again.";
    DynamicStd "dynamic_std" "The library needs the Rust standard library as a shared library."
        "Author: build without `-C prefer-dynamic`.";
    NeedsNewerGlibc "needs_newer_glibc" "The library needs a newer glibc than this machine has."
        "Author: build on the oldest distribution that the plugin shall run on. Operator: or update this machine.";
    StaticTls "static_tls" "The library needs static thread-local storage, which a loaded library cannot get."
        "Author: remove jemalloc, mimalloc or another `#[global_allocator]` from the plugin.";
    NameMismatch "name_mismatch" "The library is another plugin than the configuration says."
        "Operator: rename the section, or point `library` at the right file.";
    Duplicate "duplicate" "Two libraries of the configuration are the same plugin."
        "Operator: remove one of them.";
    SameMajor "same_major" "A previous library is of a major that another library of the plugin has."
        "Operator: take it out of `previous`: a major's tasks are taken by one library of it, the latest.";
    OpenFailed "open_failed" "The dynamic linker cannot open the library."
        "Operator: install the shared libraries that it needs; `cardcage plugin inspect` lists them.";
    AbiLayout "abi_layout" "The library does not fit this host's plugin interface."
        "Author: build the plugin again with an SDK that this host knows, and with no other copy of `cardcage-abi`.";
    DescribeFailed "describe_failed" "The plugin could not describe itself."
        "Author: mend what the sentence names.";
    BadDescription "bad_description" "The plugin describes itself in a way that makes no sense."
        "Author: mend what the sentence names.";
    RouteConflict "route_conflict" "The plugin's routes are in another plugin's way."
        "Operator: give one of them another `prefix`.";
    NeedsPlugin "needs_plugin" "The plugin needs another plugin, or another version of it, than is loaded."
        "Operator: configure the plugin that the sentence names.";
    InitFailed "init_failed" "The plugin could not start."
        "Operator: correct its settings as the sentence says. Author: mend what it names.";
    Hung "hung" "The plugin did not return in time while it was loaded."
        "Author: do no slow work there. Operator: raise `loading.timeout_ms` where it only needs more time.";
    CrashLoop "crash_loop" "The plugin crashes the process again and again, on a thread of its own, and is left out for a while."
        "Author: mend the crash; `last_crash` of `/readyz?verbose` says where it is. Operator: nothing, it is tried again by itself.";
    Died "died" "The plugin ended the process while it was loaded."
        "Author: return an error instead of ending the process, and mend crashes.";
}

/// `docs/reference/refusals.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Refused plugins\n\n\
         <!-- Generated from host/src/loader/refusal.rs; `CARDCAGE_BLESS=1 cargo test -p cardcage --test it config`. -->\n\n\
         A library that a host does not load is refused in one sentence: file, reason and remedy, with one of these codes, which\n\
         never change their meaning. It stands in the log, in `/readyz?verbose`, in what `cardcage check`, `plugin verify`, `inspect`\n\
         and `describe` say, and each has a page at `/problems/<code>` of an API host. A plugin with `required = true` ends the start\n\
         with exit code 70; one with `required = false` leaves the rest running, degraded, with the reason.\n\n\
         They are in the order in which a library meets them: everything down to `same_major` is judged before any of its code runs.\n\n\
         | code | what is wrong | what to do |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let _ = writeln!(text, "| `{}` | {} | {} |", code.as_str(), code.title(), code.advice());
    }
    text
}

/// A library that is not loaded: one sentence with file, fault and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {fault}; {remedy}", file = .file.display())]
pub struct Refusal {
    /// The plugin's name in the configuration, or in its manifest.
    pub plugin: String,
    /// The library.
    pub file: PathBuf,
    /// The stable code.
    pub code: Code,
    /// What is wrong.
    pub fault: String,
    /// What to do.
    pub remedy: String,
}

impl Refusal {
    /// A refusal of a file whose plugin is not known yet.
    pub fn new(file: &Path, code: Code, fault: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            plugin: String::new(),
            file: file.to_owned(),
            code,
            // A sentence stays one line, and obeys nothing, whatever a plugin's error text contains.
            fault: fault.into().replace(char::is_control, " "),
            remedy: remedy.into(),
        }
    }

    /// Names the plugin.
    #[must_use]
    pub fn of(mut self, plugin: &str) -> Self {
        plugin.clone_into(&mut self.plugin);
        self
    }
}
