//! Builds what the tests of the boundary load besides what is frozen: the frozen plugin's source against the boundary as it is
//! (`peer`) and against a 1.1 that exists in these tests only (`younger`, `needy`), and this host against that 1.1.
//!
//! 1.1 is made from `plugin-api/abi` by the rules of change: a version, and one more entry at the end of both vtables.
//! The host of 1.1 is this host's source; it offers its entry, asks each plugin for the plugin's, and puts an entry into
//! the extension blocks that it hands over. The folders are kept between runs.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cardcage_harness::workspace_root;

use super::cargo::Build;
use super::frozen;

const PLUGIN: &str = include_str!("../../fixtures/abi/plugin.rs");
/// An extension block with the entry `next: 11`.
const BLOCK: &str = r#"FfiBytes::from_static(b"\x04\x00\x02\x00\x00\x00next11")"#;

/// What a fixture is built against: the boundary as it is, 1.1, or a 1.0 that somebody has changed against the rules.
#[derive(Clone, Copy)]
enum Against {
    This,
    Next,
    Astray,
}

/// The fixtures: name, what it is built against, and its features.
const FIXTURES: [(&str, Against, &str); 4] = [
    ("peer", Against::This, ""),
    ("younger", Against::Next, "\"next\""),
    ("needy", Against::Next, "\"next\", \"needs\""),
    ("stray", Against::Astray, ""),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside/boundary")
}

/// The library of `elder` (of 1.0, and frozen), `peer` (built against the boundary as it is), `younger` (against 1.1),
/// `needy` (which needs 1.1) or `stray` (against a boundary of which a head has grown).
pub(super) fn library(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    static ELDER: OnceLock<PathBuf> = OnceLock::new();
    if name == "elder" {
        return ELDER.get_or_init(|| frozen::elder(None)).clone();
    }
    let arguments = ["--lib", "-p", "peer", "-p", "younger", "-p", "needy", "-p", "stray"];
    let build = || workspace(|folder| Build { folder, arguments: &arguments, locked: false }.plugins(None));
    BUILT.get_or_init(build).join(format!("lib{name}.so"))
}

/// The library of `younger` as the compiler of another toolchain builds it.
pub(super) fn younger_by(toolchain: &str) -> PathBuf {
    let arguments = ["--lib", "-p", "younger"];
    let build =
        |folder: &Path| Build { folder, arguments: &arguments, locked: false }.plugins(Some(toolchain));
    workspace(build).join("libyounger.so")
}

/// The library of this workspace's `hello`, which is built with the SDK, as the compiler of another toolchain builds it.
pub(super) fn hello_by(toolchain: &str) -> PathBuf {
    let arguments = ["--lib", "-p", "cardcage-plugin-hello"];
    let build = Build { folder: workspace_root(), arguments: &arguments, locked: true };
    build.plugins(Some(toolchain)).join("libcardcage_plugin_hello.so")
}

/// This host, built against 1.1.
pub(super) fn host() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let arguments = ["-p", "cardcage", "--bin", "cardcage"];
    let build = || workspace(|folder| Build { folder, arguments: &arguments, locked: false }.host());
    BUILT.get_or_init(build).join("cardcage")
}

/// Builds in the workspace that has 1.1. Another test process may be at it, and waits.
fn workspace(build: impl Fn(&Path) -> PathBuf) -> PathBuf {
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    write_workspace();
    build(&folder)
}

/// Writes a file unless it says so already: cargo goes by modification times.
fn write(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Replaces what is there; that it is there no more would turn the test into one that shows nothing.
fn change(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "host/tests/it/abi/built.rs changes `{from}`, which is nowhere any more");
    text.replace(from, to)
}

/// Appends an entry to a vtable, as a minor version would.
fn append(source: &str, vtable: &str, entry: &str) -> String {
    let start = source.find(&format!("pub struct {vtable} {{")).unwrap();
    let end = start + source[start..].find("\n}\n").unwrap();
    let entry = format!("\n    /// Since 1.1.\n    #[sabi(missing_field(option))]\n    {entry}");
    format!("{}{entry}{}", &source[..end], &source[end..])
}

/// Copies a folder's files, changed by `edit`, which gets their paths.
fn copy(from: &Path, to: &Path, edit: &dyn Fn(&str, String) -> String) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to, edit);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            write(&to, &edit(path.to_str().unwrap(), text));
        }
    }
}

fn boundary(file: &str, text: String) -> String {
    if !file.ends_with("src/vtable.rs") {
        return text;
    }
    let text = append(&text, "Host", "pub next: extern \"C\" fn(HostCtx) -> u64,");
    append(&text, "Plugin", "pub next: extern \"C\" fn(Instance) -> u64,")
}

/// A field in the middle of a head, which never changes. And a version, for a lock file holds one of a kind.
fn astray(file: &str, text: String) -> String {
    if file.ends_with("Cargo.toml") {
        return change(&text, "version = \"1.0.0\"", "version = \"1.0.1\"");
    }
    if !file.ends_with("src/head.rs") {
        return text;
    }
    change(
        &text,
        "    pub attempt: u32,\n    /// The hard",
        "    pub attempt: u32,\n    pub next: u64,\n    /// The hard",
    )
}

fn of_1_1(file: &str, text: String) -> String {
    if file.ends_with("loader/plugin_host.rs") {
        let text = change(&text, "    Host {\n", "    Host {\n        next,\n");
        return text + "\nextern \"C\" fn next(_: HostCtx) -> u64 {\n    11\n}\n";
    }
    if file.ends_with("loader/plugin.rs") {
        let text = change(&text, "ext: FfiBytes::empty()", &format!("ext: {BLOCK}"));
        let started = "let Self { file, description, vtable, .. } = self;";
        let asked = "let said = vtable.next().map_or_else(|| \"nothing\".to_owned(), |next| next(reply.instance).to_string());\n\
                     tracing::info!(plugin = &*identity.name, said, \"a plugin was asked for what 1.1 brought\");";
        return change(&text, started, &format!("{started}\n{asked}"));
    }
    text
}

/// The manifest of the host, without what only its tests need.
fn without_tests(manifest: &str) -> String {
    let Some((before, after)) = manifest.split_once("[dev-dependencies]") else { return manifest.to_owned() };
    let rest = after.find("\n[").map_or("", |next| &after[next..]);
    format!("{before}{rest}")
}

fn write_workspace() {
    let (root, folder) = (workspace_root(), folder());
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let manifest = read("Cargo.toml");
    let (before, members) = manifest.split_once("members = [").unwrap();
    let (_, after) = members.split_once(']').unwrap();
    let names = FIXTURES.map(|(name, ..)| format!("\"{name}\"")).join(", ");
    let members = format!("members = [\"plugin-api/abi\", \"host\", \"host/protocol\", {names}]");
    write(&folder.join("Cargo.toml"), &format!("{before}{members}{after}"));
    let lock_file = folder.join("Cargo.lock");
    if !lock_file.exists() {
        // The versions that are on this machine already: the build is offline.
        std::fs::copy(root.join("Cargo.lock"), lock_file).unwrap();
    }
    let abi = folder.join("plugin-api/abi");
    write(
        &abi.join("Cargo.toml"),
        &change(&read("plugin-api/abi/Cargo.toml"), "version = \"1.0.0\"", "version = \"1.1.0\""),
    );
    copy(&root.join("plugin-api/abi/src"), &abi.join("src"), &boundary);
    write(&folder.join("host/Cargo.toml"), &without_tests(&read("host/Cargo.toml")));
    copy(&root.join("host/src"), &folder.join("host/src"), &of_1_1);
    // The sources that the binary carries are this workspace's.
    let here = "Path::new(&std::env::var(\"CARGO_MANIFEST_DIR\")?).join(\"..\").canonicalize()?";
    let script =
        change(&read("host/build.rs"), here, &format!("PathBuf::from({:?})", root.display().to_string()));
    write(&folder.join("host/build.rs"), &script);
    write(&folder.join("host/protocol/Cargo.toml"), &without_tests(&read("host/protocol/Cargo.toml")));
    copy(&root.join("host/protocol/src"), &folder.join("host/protocol/src"), &|_, text| text);
    // Beside the workspace, for in it no two packages have one name.
    let strays = folder.with_file_name("stray");
    copy(&frozen::folder().join("abi"), &strays, &astray);
    for (name, against, features) in FIXTURES {
        let path = match against {
            Against::This => root.join("plugin-api/abi"),
            Against::Next => abi.clone(),
            Against::Astray => strays.clone(),
        };
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n[features]\ndefault = [{features}]\nnext = []\nneeds = []\n\n\
             [dependencies]\ncardcage-abi = {{ path = {:?} }}\n",
            path.display().to_string()
        );
        write(&folder.join(name).join("Cargo.toml"), &manifest);
        write(&folder.join(name).join("src/lib.rs"), PLUGIN);
    }
}
