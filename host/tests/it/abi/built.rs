//! Builds what the tests of the boundary load: a frozen plugin against the boundary as it is, the same against a 1.1 that
//! exists in these tests only, and this host against that 1.1.
//!
//! 1.1 is made from `plugin-api/abi` by the rules of change: a version, and one more entry at the end of both vtables.
//! The host of 1.1 is this host's source; it offers its entry, asks each plugin for the plugin's, and puts an entry into
//! the extension blocks that it hands over. The folders are kept between runs, and share the target folder of the
//! plugins that are built outside, so that only the first run compiles dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cardcage_harness::workspace_root;

const PLUGIN: &str = include_str!("../../fixtures/abi/plugin.rs");
/// An extension block with the entry `next: 11`.
const BLOCK: &str = r#"FfiBytes::from_static(b"\x04\x00\x02\x00\x00\x00next11")"#;

/// The fixtures: name, whether it is of 1.1, and its features.
const FIXTURES: [(&str, bool, &str); 3] =
    [("elder", false, ""), ("younger", true, "\"next\""), ("needy", true, "\"next\", \"needs\"")];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside/boundary")
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside/target")
}

/// The library of `elder` (built against the boundary as it is), `younger` (against 1.1) or `needy` (which needs 1.1).
pub(super) fn library(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--lib", "-p", "elder", "-p", "younger", "-p", "needy"], None));
    target().join(format!("debug/lib{name}.so"))
}

/// The library of `elder` as the compiler of another toolchain builds it.
pub(super) fn library_by(toolchain: &str) -> PathBuf {
    build(&["--lib", "-p", "elder"], Some(toolchain));
    target().join(toolchain).join("debug/libelder.so")
}

/// This host, built against 1.1.
pub(super) fn host() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&["-p", "cardcage", "--bin", "cardcage"], None));
    target().join("debug/cardcage")
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
    write(&folder.join("host/protocol/Cargo.toml"), &without_tests(&read("host/protocol/Cargo.toml")));
    copy(&root.join("host/protocol/src"), &folder.join("host/protocol/src"), &|_, text| text);
    for (name, is_next, features) in FIXTURES {
        let path = if is_next { abi.clone() } else { root.join("plugin-api/abi") };
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

/// Another toolchain's cargo, which must not be told of this one's compiler.
fn cargo(toolchain: Option<&str>) -> Command {
    let Some(toolchain) = toolchain else {
        return Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    };
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "cargo"]);
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}

fn build(arguments: &[&str], toolchain: Option<&str>) {
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    // Another test process may be at it.
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    write_workspace();
    let target = toolchain.map_or_else(target, |toolchain| target().join(toolchain));
    let mut command = cargo(toolchain);
    command.args(["build", "--offline"]).args(arguments).arg("--target-dir").arg(target).current_dir(&folder);
    command.env("CARGO_PROFILE_DEV_DEBUG", "false");
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "the workspace of the boundary's tests does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
